//! What reaches the app is strict RFC 9112, and only what the client asked for.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::front::{Front, front, limited};
use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::message::Unread;
use crate::support::scripts;

/// What a parser that reads the framing otherwise would take for a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// Sends bytes on a connection of their own and gives the statuses that come
/// back until it closes, or stays silent after the last.
fn statuses(front: &Front, bytes: &[u8]) -> Vec<u16> {
    let mut client = front.client();
    client.send(bytes).unwrap();
    answers(&mut client, bytes)
}

fn answers(client: &mut Client, bytes: &[u8]) -> Vec<u16> {
    client.patience(Duration::from_millis(300));
    let mut statuses = Vec::new();
    loop {
        match client.response() {
            Ok(response) => statuses.push(response.status),
            Err(Unread::Malformed(why)) => panic!("{why}: {:?}", String::from_utf8_lossy(bytes)),
            Err(_) => return statuses,
        }
    }
}

/// The client sees one refusal at most, the app nothing.
#[track_caller]
fn assert_refused(app: &App, front: &Front, bytes: &str) {
    let found = statuses(front, bytes.as_bytes());
    assert_eq!(found, [400], "{bytes:?}");
    assert_eq!(app.count(), 0, "{bytes:?}: {:?}", app.take());
}

#[test]
fn framing_that_two_parsers_could_read_differently_is_refused() {
    let (app, front) = front(scripts::ok);
    for fields in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: chunked\r\n\tx\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: five\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length\r\n",
        "Content-Length : 5\r\n",
        ": empty\r\n",
        "X\0Y: z\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\r\r\nTransfer-Encoding: chunked\r\n",
        "X(y): z\r\n",
        "Host: b\r\n",
        "Connection: Host\r\n",
        "Connection: content-length\r\nContent-Length: 5\r\n",
        "Connection: close, HOST\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, Host\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n{SMUGGLED}");
        assert_refused(&app, &front, &bytes);
    }
    assert!(app.faults().is_empty(), "{:?}", app.faults());
}

#[test]
fn request_lines_and_hosts_that_are_not_exactly_right_are_refused() {
    let (app, front) = front(scripts::ok);
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n",
        "GET http:///x HTTP/1.1\r\nHost: a\r\n",
        "GET ftp://a/x HTTP/1.1\r\nHost: a\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n",
        "GET / x HTTP/1.1\r\nHost: a\r\n",
        "GET /\tx HTTP/1.1\r\nHost: a\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: a\r\n",
        "GET /<x> HTTP/1.1\r\nHost: a\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n",
        "GET / http/1.1\r\nHost: a\r\n",
        "GET / HTTP/11\r\nHost: a\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        assert_refused(&app, &front, &format!("{head}\r\n{SMUGGLED}"));
    }
    let connect = statuses(&front, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    assert_eq!(connect, [405]);
    assert_eq!(app.count(), 0);
}

/// Bytes, the target and the body that reach the app.
const TOLERATED: &[(&str, &str, &str)] = &[
    // Both framings: chunked counts, the length goes, the connection ends.
    (
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "/a",
        "",
    ),
    (
        "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "/b",
        "abc",
    ),
    (
        "POST /c HTTP/1.1\r\nHost: a\r\ntRANSFER-eNCODING: ChUnKeD\r\n\r\n3;x=y;z=\"q\"\r\nabc\r\n00\r\n\r\n",
        "/c",
        "abc",
    ),
    (
        "POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "/d",
        "abc",
    ),
    (
        "\r\nPOST /e HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc",
        "/e",
        "abc",
    ),
    (
        "POST http://b/f?q HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
        "/f?q",
        "abc",
    ),
    (
        "GET /g HTTP/1.1\r\nHost: a\r\nConnection: close, X-Gone, Transfer-Encoding\r\nX-Gone: 1\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nTE: gzip\r\n\r\n",
        "/g",
        "",
    ),
    ("GET /h HTTP/1.0\r\n\r\n", "/h", ""),
    // A fragment is no part of a request target and goes nowhere.
    ("GET /i?q#f HTTP/1.1\r\nHost: a\r\n\r\n", "/i?q", ""),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*", ""),
];

/// What is accepted is made anew.
#[test]
fn what_is_tolerated_is_written_anew() {
    let (app, front) = front(scripts::ok);
    for (bytes, target, body) in TOLERATED {
        let ends = bytes.contains("POST /a") || bytes.contains("POST /b");
        let sent = if ends {
            format!("{bytes}{SMUGGLED}")
        } else {
            (*bytes).to_owned()
        };
        assert_eq!(statuses(&front, sent.as_bytes()), [200], "{bytes:?}");
        let received = app.take();
        let found: Vec<&str> = received
            .iter()
            .map(|request| request.target.as_str())
            .collect();
        assert_eq!(found, [*target], "{bytes:?}");
        let request = &received[0];
        assert_eq!(String::from_utf8_lossy(&request.body), *body, "{bytes:?}");
        for gone in [
            "x-gone",
            "keep-alive",
            "proxy-connection",
            "upgrade",
            "http2-settings",
            "te",
            "connection",
        ] {
            assert_eq!(request.header(gone), None, "{gone}");
        }
        if bytes.contains("http://b") {
            assert_eq!(request.header("host"), Some("b"));
        }
    }
    assert!(app.faults().is_empty(), "{:?}", app.faults());
}

#[test]
fn broken_chunks_never_end_well() {
    let (app, front) = front(scripts::ok);
    for chunks in [
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3;x\ny\r\nabc\r\n0\r\n\r\n",
        "3;\rGET /smuggled HTTP/1.1\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
        "3\r\r\nabc\r\n0\r\n\r\n",
        "3\x0c\r\nabc\r\n0\r\n\r\n",
        "3 \r;x\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\r\n0\r\nX: y\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\r\n\n",
    ] {
        let bytes = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"
        );
        let found = statuses(&front, bytes.as_bytes());
        assert!(!found.contains(&200), "{chunks:?}: {found:?}");
        assert_eq!(app.count(), 0, "{chunks:?}: {:?}", app.take());
    }
    assert!(front.errors("bad_request") > 0.0);
    front.wait_for_rest();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (app, front) = front(scripts::echo);
    let mut bytes = Vec::new();
    for number in 0..40 {
        let request = match number % 3 {
            0 => Request::get(&format!("/{number}")),
            1 => Request::post(&format!("/{number}"), "body"),
            _ => Request::new("HEAD", &format!("/{number}")),
        };
        bytes.extend(request.bytes());
    }
    let mut client = front.client();
    // In pieces that respect no boundary.
    for piece in bytes.chunks(97) {
        client.send(piece).unwrap();
    }
    for number in 0..40 {
        let method = if number % 3 == 2 { "HEAD" } else { "GET" };
        let response = client.response_to(method).unwrap();
        assert_eq!(response.status, 200);
        if method == "GET" {
            assert_eq!(response.json()["target"], format!("/{number}"));
        } else {
            assert!(response.header("content-length").is_some());
        }
    }
    let order: Vec<String> = app
        .take()
        .into_iter()
        .map(|request| request.target)
        .collect();
    let expected: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
    assert_eq!(order, expected);
}

/// Pieces that make requests likely, and likely wrong.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec()),
        Just(b"POST /p HTTP/1.1\r\nHost: a\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Connection: x-y, keep-alive\r\n".to_vec()),
        Just(b"Trailer: x-y\r\nTE: trailers\r\n".to_vec()),
        Just(b"X-Y: z\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"abc".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"0\r\nx-y: z\r\n\r\n".to_vec()),
        Just(b" ".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..8),
    ];
    let begun = prop_oneof![
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec()),
        Just(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n".to_vec()),
        Just(b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n".to_vec()),
        Just(Vec::new()),
    ];
    (begun, proptest::collection::vec(piece, 1..14))
        .prop_map(|(begun, pieces)| [begun, pieces.concat()].concat())
}

#[test]
fn arbitrary_bytes_reach_the_app_as_strict_requests_or_not_at_all() {
    // Half a request is over soon.
    let limits = "headerTimeout: 150ms, idleTimeout: 150ms";
    let (app, front) = limited(scripts::ok, "", limits);
    let config = Config {
        cases: 25,
        failure_persistence: None,
        ..Config::default()
    };
    let reached = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&proptest::collection::vec(pieces(), 24), |batch| {
            let mut clients: Vec<Client> = batch.iter().map(|_| front.client()).collect();
            for (client, bytes) in clients.iter_mut().zip(&batch) {
                client.send(bytes).unwrap();
            }
            let answered: Vec<u16> = clients
                .iter_mut()
                .zip(&batch)
                .flat_map(|(client, bytes)| answers(client, bytes))
                .collect();
            let accepted = answered.iter().filter(|status| **status == 200).count();
            let received = app.take();
            reached.set(reached.get() + received.len());
            // Cancelled ones may have reached the app without an answer.
            prop_assert!(accepted <= received.len(), "{answered:?} {received:?}");
            prop_assert!(app.faults().is_empty(), "{:?}", app.faults());
            for request in received {
                let token =
                    |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                prop_assert!(request.method.bytes().all(token), "{}", request.method);
                for gone in ["x-outrigger-x", "keep-alive"] {
                    prop_assert!(request.head.all(gone).next().is_none());
                }
                // The only option of a connection is the one that `TE` calls
                // for (RFC 9110 section 10.1.4).
                prop_assert!(
                    request
                        .head
                        .all("connection")
                        .eq(request.head.all("te").map(|_| "TE")),
                    "{:?}",
                    String::from_utf8_lossy(&request.raw)
                );
            }
            Ok(())
        })
        .unwrap();
    assert!(
        reached.get() > 20,
        "the shapes are too wrong to show anything: {reached:?}"
    );
    front.wait_for_rest();
}
