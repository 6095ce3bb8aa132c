//! W3C Trace Context through inbound, app and outbound: the cases of the
//! specification's own test suite, and the house's headers beside it.

use crate::support::client::Request;
use crate::support::traced::{ALL, Pair, Passed, W3C};
use crate::support::wait::shared_machine;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn good() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// A `traceparent` as the sidecar wrote it.
struct Written<'a> {
    trace: &'a str,
    parent: &'a str,
    flags: &'a str,
}

/// Fails unless it is version 00 to the letter.
#[track_caller]
fn written(value: Option<&str>) -> Written<'_> {
    let value = value.expect("a traceparent");
    let parts: Vec<&str> = value.split('-').collect();
    let ["00", trace, parent, flags] = parts.as_slice() else {
        panic!("not version 00: {value}");
    };
    for (part, length) in [(trace, 32), (parent, 16), (flags, 2)] {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(part.len() == length && part.bytes().all(hex), "{value}");
        assert!(
            length == 2 || part.bytes().any(|byte| byte != b'0'),
            "{value}"
        );
    }
    Written {
        trace,
        parent,
        flags,
    }
}

/// Front and back see the same trace and flags, each the span before it;
/// returns the trace and the flags.
#[track_caller]
fn one_trace(passed: &Passed) -> (&str, &str) {
    let front = written(passed.front.header("traceparent"));
    let back = written(passed.back.header("traceparent"));
    assert_eq!((front.trace, front.flags), (back.trace, back.flags));
    assert_ne!(front.parent, back.parent);
    assert!(front.parent != PARENT && back.parent != PARENT);
    assert_eq!(passed.response.header("x-trace-id"), Some(front.trace));
    (front.trace, front.flags)
}

#[test]
fn valid_parents_are_followed_and_others_begin_a_trace() {
    let _machine = shared_machine();
    let pair = Pair::start("true", W3C, "");
    let ids = format!("{TRACE}-{PARENT}");
    let zeroes = |count: usize| "0".repeat(count);
    for (value, followed) in [
        (good(), true),
        (format!("00-{ids}-00"), true),
        (format!("  {} \t ", good()), true),
        (format!("\t{}", good()), true),
        // Higher versions: the first 55 bytes, and what comes after a dash.
        (format!("cc-{ids}-01"), true),
        (format!("01-{ids}-01-"), true),
        (format!("cc-{ids}-01-what-the-future-will-be-like"), true),
        (
            format!("cc-{ids}-01.what-the-future-will-not-be-like"),
            false,
        ),
        (format!("ff-{ids}-01"), false),
        (format!("FF-{ids}-01"), false),
        (format!("00-{ids}-01-what-the-future-will-be-like"), false),
        (format!("00-{ids}-01."), false),
        (format!(".0-{ids}-01"), false),
        (format!("0-{ids}-01"), false),
        (format!("000-{ids}-01"), false),
        (format!("0x-{ids}-01"), false),
        (format!("00-{}-{PARENT}-01", TRACE.to_uppercase()), false),
        (format!("00-{}-{PARENT}-01", zeroes(32)), false),
        (format!("00-{TRACE}-{}-01", zeroes(16)), false),
        (format!("00-.{}-{PARENT}-01", &TRACE[1..]), false),
        (format!("00-{}-{PARENT}-01", &TRACE[1..]), false),
        (format!("00-{TRACE}0-{PARENT}-01"), false),
        (format!("00-{TRACE}-{}-01", PARENT.to_uppercase()), false),
        (format!("00-{TRACE}-.{}-01", &PARENT[1..]), false),
        (format!("00-{TRACE}-{}-01", &PARENT[1..]), false),
        (format!("00-{TRACE}-{PARENT}0-01"), false),
        (format!("00-{ids}-0"), false),
        (format!("00-{ids}-0x"), false),
        (format!("00-{ids}-.0"), false),
        (format!("00-{ids}-0A"), false),
        (format!("00-{ids}-001"), false),
        (format!("00-{ids}-"), false),
        (format!("00-{ids}"), false),
        (good().replace('-', "_"), false),
        (good().replace('-', ""), false),
        (format!("{},{}", good(), good()), false),
        (String::new(), false),
    ] {
        let passed = pair.send(&[("traceparent", &value), ("tracestate", "foo=1")]);
        let (trace, _) = one_trace(&passed);
        assert_eq!(trace == TRACE, followed, "{value:?}");
        let kept = passed
            .front
            .header("tracestate")
            .unwrap_or_default()
            .contains("foo=1");
        assert_eq!(kept, followed, "tracestate beside {value:?}");
    }
}

#[test]
fn a_parent_is_one_header_by_any_spelling() {
    let _machine = shared_machine();
    let pair = Pair::start("true", W3C, "");
    for name in ["traceparent", "TraceParent", "TRACEPARENT"] {
        assert_eq!(one_trace(&pair.send(&[(name, &good())])).0, TRACE, "{name}");
    }
    for name in ["trace-parent", "trace.parent"] {
        assert_ne!(one_trace(&pair.send(&[(name, &good())])).0, TRACE, "{name}");
    }
    let other = good().replace(PARENT, "1111111111111111");
    for second in [good(), other, "x".to_owned()] {
        let twice = pair.send(&[("traceparent", &good()), ("traceparent", &second)]);
        assert_ne!(one_trace(&twice).0, TRACE, "{second}");
    }
    let alone = pair.send(&[("tracestate", "foo=1")]);
    one_trace(&alone);
    assert_eq!(alone.front.header("tracestate"), Some("outrigger=d:0"));
}

#[test]
fn flags_say_sampled_and_random_and_nothing_else() {
    let _machine = shared_machine();
    let pair = Pair::start("{samplingRate: 0}", W3C, "");
    for (given, expected) in [
        ("00-", "00"),
        ("01-", "01"),
        ("02-", "02"),
        ("03-", "03"),
        ("ff-", "03"),
        ("fc-", "00"),
    ] {
        let value = format!("00-{TRACE}-{PARENT}-{}", given.trim_end_matches('-'));
        assert_eq!(
            one_trace(&pair.send(&[("traceparent", &value)])).1,
            expected,
            "{given}"
        );
    }
    // Of a version from the future only the first bit is known.
    let future = format!("cc-{TRACE}-{PARENT}-03");
    assert_eq!(one_trace(&pair.send(&[("traceparent", &future)])).1, "01");
}

/// What front and back get of these `tracestate` lines, without our member.
#[track_caller]
fn state_of(pair: &Pair, lines: &[&str]) -> Option<String> {
    let parent = good();
    let mut sent = vec![("traceparent", parent.as_str())];
    sent.extend(lines.iter().map(|line| ("tracestate", *line)));
    let passed = pair.send(&sent);
    assert_eq!(
        one_trace(&passed).0,
        TRACE,
        "a bad state costs the trace nothing"
    );
    let others = |value: Option<&str>, own: &str| {
        let value = value.expect("our member at least");
        let rest = value
            .strip_prefix(own)
            .unwrap_or_else(|| panic!("{own} first in {value}"));
        rest.strip_prefix(',').map(str::to_owned)
    };
    let front = others(passed.front.header("tracestate"), "outrigger=d:0");
    let back = others(
        passed.back.header("tracestate"),
        "outrigger=d:1;p:shop/front",
    );
    assert_eq!(front, back);
    back
}

#[test]
fn states_are_combined_in_order_or_dropped_alone() {
    let _machine = shared_machine();
    let pair = Pair::start("true", W3C, "");
    let long_key = "z".repeat(256);
    let long_value = "y".repeat(256);
    let tenant = format!("{}@{}", "t".repeat(241), "v".repeat(14));
    for (lines, expected) in [
        (&["foo=1"][..], "foo=1"),
        (&["foo=1,bar=2"], "foo=1,bar=2"),
        (&["foo=1", "bar=2"], "foo=1,bar=2"),
        (&["foo=1", "", "bar=2,baz=3"], "foo=1,bar=2,baz=3"),
        (&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (&["foo=1\t", "\tbar=2"], "foo=1,bar=2"),
        (&["foo=1,,,bar=2,"], "foo=1,bar=2"),
        (&["foo-_*/bar=bar"], "foo-_*/bar=bar"),
        (&["foo@bar=1", "0tenant@bar=2"], "foo@bar=1,0tenant@bar=2"),
        (&["foo=bar bar"], "foo=bar bar"),
        (&["foo= leading"], "foo= leading"),
        (
            &[&format!("{long_key}={long_value}")],
            &format!("{long_key}={long_value}"),
        ),
        (&[&format!("{tenant}=1")], &format!("{tenant}=1")),
    ] {
        assert_eq!(
            state_of(&pair, lines).as_deref(),
            Some(expected),
            "{lines:?}"
        );
    }
    for bad in [
        "foo",
        "foo=",
        "foo=1=2",
        "=1",
        "FOO=1",
        "foo.bar=1",
        "foo@=1,bar=2",
        "@foo=1,bar=2",
        "foo@@bar=1,bar=2",
        "foo@bar@baz=1,bar=2",
        "foo=1,bar",
        "foo =1",
        "föö=1",
        &format!("{long_key}z=1"),
        &format!("foo={long_value}y"),
        &format!("t{tenant}=1"),
        &format!("{tenant}v=1"),
    ] {
        assert_eq!(state_of(&pair, &[bad]), None, "{bad}");
        assert_eq!(
            state_of(&pair, &["good=1", bad]),
            None,
            "{bad} in a second line"
        );
    }
}

#[test]
fn a_state_has_32_members_at_most() {
    let _machine = shared_machine();
    let pair = Pair::start("true", W3C, "");
    let list = |count: usize| {
        let members: Vec<String> = (1..=count)
            .map(|number| format!("bar{number:02}={number}"))
            .collect();
        members.join(",")
    };
    // Ours comes first, so that of 32 others the last one goes.
    for (given, kept) in [(30, 30), (31, 31), (32, 31)] {
        assert_eq!(
            state_of(&pair, &[&list(given)]),
            Some(list(kept)),
            "{given}"
        );
    }
    assert_eq!(state_of(&pair, &[&list(33)]), None);
    assert_eq!(state_of(&pair, &[&list(32), "one=more"]), None);
    // Unsampled there is no member of ours.
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let passed = pair.send(&[("traceparent", &unsampled), ("tracestate", &list(32))]);
    assert_eq!(passed.back.header("tracestate"), Some(list(32).as_str()));
    // A member of ours that came in moves to the front, told anew.
    let own = "a=1,outrigger=d:9,b=2,outrigger=d:1";
    let passed = pair.send(&[("traceparent", &good()), ("tracestate", own)]);
    let state = passed.back.header("tracestate");
    assert_eq!(state, Some("outrigger=d:10;p:shop/front,a=1,b=2"));
}

#[test]
fn our_member_carries_depth_and_parent_and_is_checked() {
    let _machine = shared_machine();
    let pair = Pair::start("true", W3C, "");
    for (member, depth, parent) in [
        ("d:7;p:shop/users", "7", Some("shop/users")),
        ("p:users;d:3", "3", Some("users")),
        ("d:7", "7", None),
        ("d:;p:", "0", None),
        ("d:x;p:a b", "0", None),
        ("d:-1;p:a/b/c", "0", None),
        ("nonsense", "0", None),
    ] {
        let state = format!("foo=1,outrigger={member}");
        let passed = pair.send(&[("traceparent", &good()), ("tracestate", &state)]);
        assert_eq!(
            passed.front.header("x-trace-depth"),
            Some(depth),
            "{member}"
        );
        assert_eq!(
            passed.front.header("x-parent-service-id"),
            parent,
            "{member}"
        );
    }
}

#[test]
fn house_headers_in_and_out() {
    let _machine = shared_machine();
    let pair = Pair::start("true", ALL, "");
    let upper = TRACE.to_uppercase();
    for (given, house, trace) in [
        ("order-77", Some("order-77"), None),
        (TRACE, Some(TRACE), Some(TRACE)),
        (&upper, Some(TRACE), Some(TRACE)),
        ("not safe", None, None),
        ("<script>", None, None),
        (&"a".repeat(129), None, None),
    ] {
        let passed = pair.send(&[("x-trace-id", given), ("x-trace-depth", "3")]);
        let sent = written(passed.back.header("traceparent"));
        if let Some(trace) = trace {
            assert_eq!(sent.trace, trace, "{given}");
        }
        let expected = house.unwrap_or(sent.trace);
        assert_eq!(passed.front.header("x-trace-id"), Some(expected), "{given}");
        assert_eq!(passed.back.header("x-trace-id"), Some(expected), "{given}");
        assert_eq!(
            passed.response.header("x-trace-id"),
            Some(expected),
            "{given}"
        );
        assert_eq!(passed.response.header("x-trace-depth"), Some("3"));
        assert_eq!(
            passed.response.header("x-trace-service"),
            Some("shop/front")
        );
        assert_eq!(passed.front.header("x-trace-depth"), Some("3"));
        assert_eq!(passed.back.header("x-trace-depth"), Some("4"));
        assert_eq!(
            passed.back.header("x-parent-service-id"),
            Some("shop/front")
        );
    }
    // The W3C's word is the one that counts.
    let both = pair.send(&[("traceparent", &good()), ("x-trace-id", "order-77")]);
    assert_eq!(written(both.back.header("traceparent")).trace, TRACE);
    assert_eq!(both.back.header("x-trace-id"), Some("order-77"));
}

#[test]
fn disabled_tracing_leaves_headers_alone() {
    let _machine = shared_machine();
    let lines = [
        ("traceparent", "00-nonsense"),
        ("traceparent", "twice"),
        ("tracestate", "also nonsense"),
        ("b3", "x"),
        ("x-b3-traceid", "1"),
        ("x-b3-flags", "1"),
        ("x-trace-id", "<any>"),
        ("x-trace-depth", "9999"),
        ("x-parent-service-id", "who knows"),
    ];
    for tracing in ["false", "{enabled: false, samplingRate: 1}"] {
        let pair = Pair::start(tracing, ALL, "");
        let passed = pair.send(&lines);
        for name in lines.map(|(name, _)| name) {
            let given: Vec<&str> = lines
                .iter()
                .filter(|(known, _)| *known == name)
                .map(|(_, value)| *value)
                .collect();
            for seen in [&passed.front, &passed.back] {
                assert_eq!(seen.head.all(name).collect::<Vec<_>>(), given, "{name}");
            }
        }
        for name in ["x-trace-id", "x-trace-service", "x-trace-depth"] {
            assert_eq!(passed.response.header(name), None, "{name}");
        }
        let bare = pair.send(&[]);
        for name in ALL {
            assert_eq!(bare.front.header(name), None, "{name}");
            assert_eq!(bare.back.header(name), None, "{name}");
        }
        // Requests have ids all the same.
        let kept = Request::get("/")
            .header("x-request-id", "mine")
            .send(pair.port);
        assert_eq!(kept.header("x-request-id"), Some("mine"));
        assert_eq!(pair.front.last().header("x-request-id"), Some("mine"));
    }
}
