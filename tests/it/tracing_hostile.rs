//! Whatever bytes trace headers hold: nothing breaks, grows or gets into the
//! log unescaped.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::client::{Client, Request};
use crate::support::collector;
use crate::support::ports::free_port;
use crate::support::traced::{ALL, Pair};
use crate::support::wait::{shared_machine, whole_machine};

/// Headers that are filled: what apps copy, and the request's id.
const NAMES: usize = ALL.len() + 1;

fn name(index: usize) -> &'static str {
    ALL.get(index).copied().unwrap_or("x-request-id")
}

fn pair(exporter: &str) -> Pair {
    Pair::start(
        "{propagate: [w3c, house, b3, b3multi]}",
        ALL,
        &format!("accessLog: all\nlog: {{level: debug}}\n{exporter}"),
    )
}

/// Bytes that are nearly right, or anything at all.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let shapes = prop_oneof![
        Just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        Just("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1".to_owned()),
        Just("outrigger=d:3;p:shop/users,foo=1".to_owned()),
        Just("63".to_owned()),
    ];
    let bent = (shapes, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    prop_oneof![
        bent,
        prop::collection::vec(any::<u8>(), 0..80),
        "[\\x20-\\x7e\\u{80}-\\u{ff}\"\\\\]{0,200}".prop_map(String::into_bytes),
    ]
}

fn bytes_of(fields: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"GET /x HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    for (index, value) in fields {
        bytes.extend_from_slice(name(*index).as_bytes());
        bytes.extend_from_slice(b": ");
        // A line break would begin another header, which is not what is asked.
        bytes.extend(value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[test]
fn any_bytes_in_any_trace_header_are_answered_and_logged_as_json() {
    let _machine = shared_machine();
    let pair = pair("tracing: {exporter: stdout}");
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let fields = prop::collection::vec((0..NAMES, value()), 0..6);
    runner
        .run(&fields, |fields| {
            let mut client = Client::connect(pair.port).unwrap();
            client.send(&bytes_of(&fields)).unwrap();
            let response = client.response().unwrap();
            // Control bytes are the parser's to refuse, great depths ours.
            prop_assert!(matches!(response.status, 200 | 400 | 508), "{response:?}");
            if response.status == 200 {
                let seen = pair.back.last();
                let parent = seen.header("traceparent").unwrap_or_default();
                prop_assert_eq!(parent.len(), 55);
                for name in ALL {
                    prop_assert!(seen.head.all(name).count() <= 1, "{}", name);
                    let clean = seen.head.all(name).all(|value| value.is_ascii());
                    prop_assert!(clean, "{}: {:?}", name, seen.head);
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(Request::get("/").send(pair.port).status, 200);
    assert!(pair.front.faults().is_empty() && pair.back.faults().is_empty());
    let metrics = pair.daemon.metrics();
    assert_eq!(metrics.sum("outrigger_task_panics_total", &[]), None);
    let output = pair.daemon.output();
    for line in output.lines() {
        let read = serde_json::from_str::<serde_json::Value>(line);
        assert!(read.is_ok() && line.is_ascii(), "{line:?}");
    }
    assert!(
        output
            .lines()
            .filter(|line| line.contains("\"message\":\"span\""))
            .count()
            > 100
    );
}

#[test]
fn large_trace_headers_do_not_grow_memory() {
    let _machine = whole_machine();
    // Nobody takes the spans, so that all there is room for are held.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let pair = pair(&collector::settings(&nobody, ""));
    let long = "v".repeat(256);
    let members: Vec<String> = (0..32).map(|number| format!("k{number}={long}")).collect();
    let full = members.join(",");
    let broken = format!("{full},{full}");
    let mut client = Client::connect(pair.port).unwrap();
    let mut ask = |state: &str, number: usize| {
        let parent = format!("00-{:032x}-00f067aa0ba902b7-01", number + 1);
        let request = Request::get("/")
            .header("traceparent", &parent)
            .header("tracestate", state)
            .header("x-trace-id", &"a".repeat(10_000));
        assert_eq!(client.exchange(&request).unwrap().status, 200);
    };
    for number in 0..500 {
        ask(&full, number);
        ask(&broken, number);
    }
    let before = pair.daemon.resident_kib();
    for number in 0..1500 {
        ask(&full, number);
        ask(&broken, number);
    }
    let grown = pair.daemon.resident_kib().saturating_sub(before);
    // 45 MiB of headers went through, and more than the queue holds.
    assert!(grown < 8 * 1024, "{grown} KiB");
}
