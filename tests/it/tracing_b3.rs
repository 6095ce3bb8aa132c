//! B3 in all its forms, in and out.

use crate::support::traced::{ALL, Pair, Passed};
use crate::support::wait::shared_machine;

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const SPAN: &str = "e457b5a2e4d86bd1";
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What a hop wrote: trace, span, state (`0`, `1`, `d`), parent.
type Told = (String, String, String, Option<String>);

#[track_caller]
fn single(value: &str) -> Told {
    let parts: Vec<&str> = value.split('-').collect();
    let text = |index: usize| (*parts.get(index).unwrap_or(&"")).to_owned();
    assert!(matches!(parts.len(), 3 | 4), "{value}");
    (
        text(0),
        text(1),
        text(2),
        parts.get(3).map(|part| (*part).to_owned()),
    )
}

/// The same of the multiple headers.
#[track_caller]
fn multi(seen: &crate::support::app::Received) -> Told {
    let text = |name: &str| seen.header(name).map(str::to_owned);
    let state = match (text("x-b3-flags").as_deref(), text("x-b3-sampled")) {
        (Some("1"), None) => "d".to_owned(),
        (None, Some(sampled)) => sampled,
        other => panic!("flags and sampled: {other:?}"),
    };
    (
        text("x-b3-traceid").expect("a trace id"),
        text("x-b3-spanid").expect("a span id"),
        state,
        text("x-b3-parentspanid"),
    )
}

/// Both formats say the same to front and back; returns trace and state.
#[track_caller]
fn told(passed: &Passed, parent: Option<&str>) -> (String, String) {
    let front = single(passed.front.header("b3").expect("a b3 header"));
    let back = single(passed.back.header("b3").expect("a b3 header"));
    assert_eq!(front, multi(&passed.front));
    assert_eq!(back, multi(&passed.back));
    assert_eq!((&front.0, &front.2), (&back.0, &back.2));
    assert_eq!(front.3.as_deref(), parent, "the parent of our span");
    assert_eq!(back.3.as_ref(), Some(&front.1));
    assert_eq!(front.0.len(), 32);
    (front.0, front.2)
}

fn pair() -> Pair {
    // The app passes on everything, so that it does not matter which counts.
    Pair::start("{samplingRate: 0, propagate: [b3, b3multi]}", ALL, "")
}

#[test]
fn the_single_header_in_all_its_forms() {
    let _machine = shared_machine();
    let pair = pair();
    let wide = format!("0000000000000000{SPAN}");
    for (value, trace, state) in [
        (format!("{TRACE}-{SPAN}"), Some(TRACE), "0"),
        (format!("{TRACE}-{SPAN}-1"), Some(TRACE), "1"),
        (format!("{TRACE}-{SPAN}-0"), Some(TRACE), "0"),
        (format!("{TRACE}-{SPAN}-d"), Some(TRACE), "d"),
        (
            format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"),
            Some(TRACE),
            "1",
        ),
        // 64-bit ids are the lower half.
        (format!("{SPAN}-{SPAN}-1"), Some(wide.as_str()), "1"),
        // A decision alone.
        ("1".to_owned(), None, "1"),
        ("0".to_owned(), None, "0"),
        ("d".to_owned(), None, "d"),
    ] {
        let passed = pair.send(&[("b3", &value)]);
        let (seen, decision) = told(&passed, trace.map(|_| SPAN));
        assert!(trace.is_none_or(|trace| trace == seen), "{value}: {seen}");
        assert_eq!(decision, state, "{value}");
        // Not asked for, so not written.
        assert_eq!(passed.back.header("traceparent"), None);
        assert_eq!(passed.back.header("x-trace-id"), None);
    }
    for bad in [
        format!("{TRACE}-{SPAN}-2"),
        format!("{TRACE}-{SPAN}-1-short"),
        format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-x"),
        format!("{}-{SPAN}-1", TRACE.to_uppercase()),
        format!("{}-{SPAN}-1", "0".repeat(32)),
        format!("{TRACE}-{}-1", "0".repeat(16)),
        format!("{TRACE}-{SPAN}-"),
        TRACE.to_owned(),
        String::new(),
    ] {
        let (trace, state) = told(&pair.send(&[("b3", &bad)]), None);
        assert!(trace != TRACE && state == "0", "{bad}: {trace} {state}");
    }
}

#[test]
fn the_multiple_headers_in_all_their_forms() {
    let _machine = shared_machine();
    let pair = pair();
    let ids = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN)];
    for (more, state) in [
        (&[][..], "0"),
        (&[("X-B3-Sampled", "1")], "1"),
        (&[("X-B3-Sampled", "0")], "0"),
        (&[("X-B3-Sampled", "true")], "1"),
        (&[("X-B3-Sampled", "false")], "0"),
        (&[("X-B3-Flags", "1")], "d"),
        (&[("X-B3-Flags", "1"), ("X-B3-Sampled", "0")], "d"),
        (&[("X-B3-Flags", "0"), ("X-B3-Sampled", "1")], "1"),
        (
            &[
                ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90"),
                ("X-B3-Sampled", "1"),
            ],
            "1",
        ),
    ] {
        let (trace, decision) = told(&pair.send(&[&ids[..], more].concat()), Some(SPAN));
        assert_eq!(
            (trace.as_str(), decision.as_str()),
            (TRACE, state),
            "{more:?}"
        );
    }
    // A decision alone, and ids of which one is missing or bad.
    let (_, state) = told(&pair.send(&[("X-B3-Sampled", "1")]), None);
    assert_eq!(state, "1");
    for bad in [
        &[("X-B3-TraceId", TRACE)][..],
        &[("X-B3-TraceId", TRACE), ("X-B3-SpanId", "x")],
        &[
            ("X-B3-TraceId", TRACE),
            ("X-B3-SpanId", SPAN),
            ("X-B3-SpanId", SPAN),
        ],
    ] {
        assert_ne!(told(&pair.send(bad), None).0, TRACE, "{bad:?}");
    }
    let short = [("X-B3-TraceId", SPAN), ("X-B3-SpanId", SPAN)];
    let (trace, _) = told(&pair.send(&short), Some(SPAN));
    assert_eq!(trace, format!("0000000000000000{SPAN}"));
}

#[test]
fn of_mixed_headers_the_w3c_counts_then_the_single_one() {
    let _machine = shared_machine();
    let pair = pair();
    let w3c = format!("00-{OTHER}-{SPAN}-00");
    let one = format!("{TRACE}-{SPAN}-1");
    let many = [
        ("x-b3-traceid", SPAN),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "1"),
    ];
    let all = [&many[..], &[("b3", &one), ("traceparent", &w3c)]].concat();
    let (trace, state) = told(&pair.send(&all), Some(SPAN));
    assert_eq!((trace.as_str(), state.as_str()), (OTHER, "0"));
    let both = [&many[..], &[("b3", one.as_str())]].concat();
    assert_eq!(told(&pair.send(&both), Some(SPAN)).0, TRACE);
    // An invalid traceparent leaves the word to B3.
    let fallback = pair.send(&[("traceparent", "00-x"), ("b3", &one)]);
    assert_eq!(told(&fallback, Some(SPAN)).0, TRACE);
    // B3 in, W3C out: the app copies what it got.
    let w3c_out = Pair::start("{samplingRate: 0, propagate: [w3c]}", ALL, "");
    let passed = w3c_out.send(&[("b3", &format!("{TRACE}-{SPAN}-d"))]);
    let sent = passed.back.header("traceparent").expect("a traceparent");
    assert!(
        sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-01"),
        "{sent}"
    );
    assert_eq!(passed.front.header("b3"), None);
}
