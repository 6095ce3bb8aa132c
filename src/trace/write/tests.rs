use proptest::prelude::*;

use super::*;
use crate::model::{TracingSpec, TrustParent};
use crate::trace::{Caller, IdGenerator, MAX_DEPTH, TooDeep};

const ALL: [Propagation; 4] = [
    Propagation::W3c,
    Propagation::House,
    Propagation::B3,
    Propagation::B3Multi,
];
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn spec(sampling_rate: f64, trust_parent: TrustParent) -> TracingSpec {
    TracingSpec {
        sampling_rate,
        propagate: ALL.to_vec(),
        trust_parent,
    }
}

fn stranger() -> Caller {
    Caller {
        authenticated: false,
        peer: "203.0.113.9".parse().expect("address"),
        forwarded: false,
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

/// Writes as a request does: what is ours stands nowhere else.
fn write(context: &Context, headers: &mut HeaderMap, propagate: &[Propagation]) {
    let mut ours = FieldLines::default();
    context.write(headers, &mut ours, propagate);
    assert!(headers.keys().all(|name| !ours.has(name)));
    ours.insert_into(headers);
}

/// What the app sees of a request with these headers, one `name: value` a line.
fn through(
    pairs: &[(&'static str, &str)],
    spec: &TracingSpec,
    propagate: &[Propagation],
) -> String {
    let mut headers = headers(pairs);
    let mut context = Context::read(&headers, &IdGenerator::with_seed(1));
    context.decide(spec, &stranger());
    write(&context, &mut headers, propagate);
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}\n", value.to_str().expect("visible"))
    };
    headers.iter().map(line).collect()
}

#[test]
fn every_format_in_and_out() {
    let trusting = spec(0.0, TrustParent::Always);
    let mut text = String::new();
    let house = [
        ("x-trace-id", TRACE),
        ("x-trace-depth", "3"),
        ("x-parent-service-id", "shop/web"),
    ];
    let multi = [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", "00f067aa0ba902b7"),
        ("x-b3-flags", "1"),
    ];
    let b3 = format!("{TRACE}-00f067aa0ba902b7-1");
    let cases: [(&str, &[(&'static str, &str)]); 7] = [
        ("nothing", &[]),
        ("w3c", &[("traceparent", PARENT), ("tracestate", "foo=1")]),
        (
            "w3c with our member",
            &[
                ("traceparent", PARENT),
                ("tracestate", "foo=1,outrigger=d:5;p:shop/web"),
            ],
        ),
        ("b3", &[("b3", &b3)]),
        ("b3 multi, debug", &multi),
        ("house", &house),
        ("house text", &[("x-trace-id", "order-77")]),
    ];
    for (name, pairs) in cases {
        text += &format!("--- {name}\n{}", through(pairs, &trusting, &ALL));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn an_invalid_parent_starts_anew_and_drops_the_state() {
    let seen = through(
        &[("traceparent", "00-bad"), ("tracestate", "foo=1")],
        &spec(1.0, TrustParent::Always),
        &[Propagation::W3c],
    );
    assert!(!seen.contains("foo=1"), "{seen}");
    assert!(
        seen.contains("-01\n") && seen.contains("tracestate: outrigger=d:0\n"),
        "{seen}"
    );
}

#[test]
fn w3c_wins_over_b3_and_house() {
    let other = "80f198ee56343ba864fe8b2a57d3eff7";
    let b3 = format!("{other}-e457b5a2e4d86bd1-0");
    let pairs = [
        ("b3", b3.as_str()),
        ("x-trace-id", other),
        ("traceparent", PARENT),
    ];
    let seen = through(&pairs, &spec(0.0, TrustParent::Always), &ALL);
    assert!(!seen.contains(other), "{seen}");
    assert!(seen.contains(&format!("x-trace-id: {TRACE}")), "{seen}");
}

#[test]
fn formats_not_written_do_not_pass() {
    let pairs = [
        ("traceparent", PARENT),
        ("b3", "0"),
        ("x-trace-depth", "3"),
        ("accept", "*/*"),
    ];
    let seen = through(&pairs, &spec(0.0, TrustParent::Always), &[]);
    assert_eq!(seen, "accept: */*\n");
}

#[test]
fn a_stranger_cannot_raise_the_share() {
    let sampled = |rate, trust| {
        let seen = through(
            &[("traceparent", PARENT)],
            &spec(rate, trust),
            &[Propagation::W3c],
        );
        // The ids are kept either way, the parent is ours.
        assert!(
            seen.starts_with(&format!("traceparent: 00-{TRACE}-")),
            "{seen}"
        );
        assert!(!seen.contains("00f067aa0ba902b7"), "{seen}");
        seen.contains("-01\n")
    };
    assert!(!sampled(0.0, TrustParent::Auto));
    assert!(sampled(0.0, TrustParent::Always));
    assert!(sampled(1.0, TrustParent::Never));
}

#[test]
fn the_random_flag_is_passed_on() {
    let random = PARENT.replace("-01", "-02");
    let pairs = [("traceparent", random.as_str())];
    let seen = through(&pairs, &spec(0.0, TrustParent::Always), &[Propagation::W3c]);
    assert!(seen.ends_with("-02\n"), "{seen}");
}

#[test]
fn outbound_is_deeper_until_it_is_a_loop() {
    let ids = IdGenerator::with_seed(1);
    let service = HeaderValue::from_static("shop/users");
    let mut context = Context::read(&headers(&[("traceparent", PARENT)]), &ids);
    context.decide(&spec(0.0, TrustParent::Always), &stranger());
    for depth in 1..=MAX_DEPTH {
        let parent = context.span_id();
        context = context.child(&service, &ids);
        assert_eq!(context.check_depth(), Ok(()));
        assert_eq!(
            (context.depth(), context.parent_id()),
            (depth, Some(parent))
        );
        // An app that copies only what W3C defines.
        let mut sent = HeaderMap::new();
        write(&context, &mut sent, &[Propagation::W3c]);
        let mut read = Context::read(&sent, &ids);
        read.follow(&spec(0.0, TrustParent::Never));
        assert!(read.is_sampled());
        assert_eq!(read.parent_service, Some(service.clone()));
        context = read;
    }
    context.become_call(&service);
    assert_eq!(context.check_depth(), Err(TooDeep));
    let mut deep = Context::read(&headers(&[("x-trace-depth", "99999")]), &ids);
    assert_eq!(deep.check_depth(), Err(TooDeep));
    deep.become_call(&service);
    assert_eq!(deep.check_depth(), Err(TooDeep));
}

#[test]
fn every_carrier_is_found_and_nothing_else() {
    for name in &CARRIERS {
        let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
        headers.insert("x-trace-other", HeaderValue::from_static("x"));
        let carried = Carried::of(&headers);
        assert_eq!(carried.names().collect::<Vec<_>>(), [name]);
    }
    let others = ["host", "b33", "x-b3", "x-trace", "traceparents"];
    let others = others.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
    assert!(Carried::of(&HeaderMap::from_iter(others)).is_empty());
}

#[test]
fn responses_carry_the_house_headers() {
    let ids = IdGenerator::with_seed(1);
    let context = Context::read(
        &headers(&[("x-trace-id", "order-77"), ("x-trace-depth", "2")]),
        &ids,
    );
    let (mut response, mut ours) = (HeaderMap::new(), FieldLines::default());
    context.write_response(&HeaderValue::from_static("shop/users"), &mut ours);
    ours.insert_into(&mut response);
    assert_eq!(response["x-trace-id"], "order-77");
    assert_eq!(response["x-trace-service"], "shop/users");
    assert_eq!(response["x-trace-depth"], "2");
}

proptest! {
    #[test]
    fn any_bytes_in_any_header_make_valid_headers(
        values in proptest::collection::vec((0..CARRIERS.len(), proptest::collection::vec(any::<u8>(), 0..60)), 0..8),
        rate in 0.0..=1.0_f64,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &values {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(&CARRIERS[*name], value);
            }
        }
        let ids = IdGenerator::with_seed(3);
        let mut context = Context::read(&headers, &ids);
        context.decide(&spec(rate, TrustParent::Always), &stranger());
        write(&context, &mut headers, &ALL);
        for name in &CARRIERS {
            prop_assert!(headers.get_all(name).iter().count() <= 1);
        }
        prop_assert_eq!(headers["traceparent"].len(), 55);
        prop_assert!(headers.values().all(|value| value.to_str().is_ok()));
        let mut again = Context::read(&headers, &ids);
        again.decide(&spec(0.0, TrustParent::Always), &stranger());
        prop_assert_eq!(again.trace_id(), context.trace_id());
        prop_assert_eq!(again.parent_id(), Some(context.span_id()));
        prop_assert_eq!(again.is_sampled(), context.is_sampled());
        prop_assert_eq!(again.depth(), context.depth());
    }
}
