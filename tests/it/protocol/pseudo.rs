//! Header blocks that another parser could take for something else.

use super::front::front;
use crate::support::frames::{self, FrameClient};
use crate::support::scripts;

type Fields = Vec<(&'static str, &'static str)>;

const BASE: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

/// Added to a good request.
const ADDED: &[(&str, &str)] = &[
    (":path", "/other"),
    (":method", "GET"),
    (":authority", "b"),
    (":unknown", "x"),
    (":status", "200"),
    ("host", "b"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("keep-alive", "1"),
    ("te", "gzip"),
    ("X-Upper", "y"),
    ("x y", "z"),
    ("x:y", "z"),
    ("x\r\ny", "z"),
    ("", "z"),
    ("x", "y\r\nx-injected: 1"),
    ("x", "y\nz"),
    ("x", "y\0z"),
    ("content-length", "7"),
    ("content-length", "+3"),
];

/// In place of what a good request has.
const INSTEAD: &[(&str, &str)] = &[
    (":path", ""),
    (":path", "no-slash"),
    (":path", "*"),
    (":path", "/ HTTP/1.1\r\nx-injected: 1"),
    (":path", "/a b"),
    (":path", "/\x7f"),
    (":path", "http://b/"),
    (":method", ""),
    (":method", "GET /x"),
    (":method", "CONNECT"),
    (":scheme", "ftp"),
    (":scheme", "http://b/?"),
    (":authority", "user@a"),
    (":authority", ""),
    (":authority", "a b"),
    (":authority", "a/b"),
];

fn cases() -> Vec<Fields> {
    let without = |name: &str| -> Fields {
        let others = BASE.into_iter().filter(|(found, _)| *found != name);
        others.collect()
    };
    let mut cases = vec![
        without(":method"),
        without(":path"),
        without(":authority"),
        [&[("x", "y")], &BASE[..]].concat(),
        vec![("x", "y")],
    ];
    cases.extend(ADDED.iter().map(|field| [&BASE[..], &[*field]].concat()));
    cases.extend(INSTEAD.iter().map(|(name, value)| {
        let mut fields = without(name);
        fields.insert(0, (name, value));
        fields
    }));
    cases
}

#[test]
fn tricks_with_pseudo_headers_reach_nobody() {
    let (app, front) = front(scripts::ok);
    for fields in cases() {
        let mut client = FrameClient::connect(front.port, &[]);
        let block = frames::block(&fields);
        client.send(&frames::headers(1, &block, false)).unwrap();
        // It may be gone already.
        let _ = client.send(&frames::frame(frames::DATA, frames::END_STREAM, 1, b"abc"));
        let answer = client
            .find(|frame| {
                matches!(
                    frame.kind,
                    frames::RST_STREAM | frames::GOAWAY | frames::HEADERS
                )
            })
            .unwrap_or_else(|error| panic!("{fields:?}: {error}"));
        let accepted = answer.is_some_and(|frame| {
            frame.kind == frames::HEADERS && frame.payload.first() == Some(&0x88)
        });
        assert!(!accepted, "{fields:?}");
        assert_eq!(app.count(), 0, "{fields:?}: {:?}", app.take());
    }
    front.wait_for_rest();
    assert!(app.faults().is_empty(), "{:?}", app.faults());
}
