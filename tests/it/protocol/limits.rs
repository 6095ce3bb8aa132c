//! Every limit and time of `limits`, tripped; clients that are slow, rude or
//! gone.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::front::{Front, front, limited};
use crate::support::app::{Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::message::Unread;
use crate::support::scripts;
use crate::support::wait::{SOON, holds_for, wait_until};

/// 413, 414 and 431 of our own are problem documents.
#[track_caller]
fn assert_refused(front: &Front, request: &Request, status: u16) {
    let before = front.errors("bad_request");
    let response = request.send(front.port);
    assert_eq!(
        (response.status, response.cause().as_str()),
        (status, "bad_request")
    );
    front.wait_for_errors("bad_request", before + 1.0);
    assert!(front.counted(status) >= 1.0);
}

#[test]
fn heads_that_are_too_large() {
    let limits = "headerBytes: 1KiB, headerCount: 10, uriBytes: 1KiB";
    let (app, front) = limited(scripts::ok, "", limits);
    let at_limit = format!("/{}", "a".repeat(1023));
    assert_eq!(Request::get(&at_limit).send(front.port).status, 200);
    assert_refused(&front, &Request::get(&format!("{at_limit}a")), 414);
    let many = |count: usize| {
        (1..count).fold(Request::get("/"), |request, number| {
            request.header(&format!("x-{number}"), "y")
        })
    };
    assert_eq!(many(10).send(front.port).status, 200);
    assert_refused(
        &front,
        &Request::get("/").header("x-large", &"y".repeat(1100)),
        431,
    );
    assert_eq!(app.count(), 2);
}

/// What the parser refuses by itself: bare, but counted and logged.
#[test]
fn heads_that_the_parser_refuses() {
    let (app, front) = limited(scripts::ok, "", "headerBytes: 16KiB, headerCount: 10");
    let many = (0..11).fold(Request::get("/"), |request, number| {
        request.header(&format!("x-{number}"), "y")
    });
    let large = Request::get("/").header("x-large", &"y".repeat(20_000));
    let long = Request::get(&format!("/{}", "a".repeat(70_000)));
    for (number, (bytes, status)) in (1_u8..).zip([
        (many.bytes(), 431),
        (large.bytes(), 431),
        (long.bytes(), 431),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/7.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            400,
        ),
    ]) {
        let mut client = front.client();
        client.send(&bytes).unwrap();
        let response = client.response().unwrap();
        assert_eq!(response.status, status, "{number}");
        assert!(response.closes(), "{number}: {:?}", response.head);
        assert!(client.until_close().is_empty());
        front.wait_for_errors("bad_request", f64::from(number));
        wait_until("it is logged", SOON, || {
            let output = front.daemon.output();
            output.matches("\"bad_request\"").count() >= usize::from(number)
        });
    }
    assert_eq!(front.counted(431) + front.counted(400), 6.0);
    assert_eq!(app.count(), 0);
    let (_app, front) = limited(scripts::ok, "", "headerBytes: 128KiB");
    assert_eq!(long.send(front.port).status, 414);
}

#[test]
fn bodies_that_are_too_large() {
    let (app, front) = limited(scripts::echo, "", "bodyBytes: 1000");
    let whole = Request::post("/", vec![b'x'; 1000]).send(front.port);
    assert_eq!(whole.json()["body"].as_str().unwrap().len(), 1000);
    // Known at the head: nothing reaches the app, and the answer says that the
    // connection ends.
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.closes()), (413, true));
    assert_eq!(app.count(), 1);
    assert_eq!(app.connections(), 1);
    // Found out on the way: the app never sees the end of the body.
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for _ in 0..3 {
        client.send(b"190\r\n").unwrap();
        client.send(&[b'x'; 400]).unwrap();
        client.send(b"\r\n").unwrap();
    }
    let response = client.response().unwrap();
    assert_eq!((response.status, response.closes()), (413, true));
    client.until_close();
    assert_eq!(app.count(), 1);
    assert_eq!(front.errors("bad_request"), 2.0);
    assert_eq!(front.counted(413), 2.0);
    front.wait_for_rest();
}

#[test]
fn connections_beyond_the_ceiling_are_answered() {
    let (_app, front) = limited(scripts::ok, "", "connections: 3");
    let mut held: Vec<Client> = (0..3).map(|_| front.client()).collect();
    for client in &mut held {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    let response = Request::get("/").send(front.port);
    assert_eq!(
        (response.status, response.cause().as_str()),
        (503, "overloaded")
    );
    assert!(response.closes());
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(front.errors("overloaded"), 1.0);
    for client in &mut held {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    held.pop();
    wait_until("a place is free", SOON, || {
        Request::get("/").status(front.port) == Some(200)
    });
}

#[test]
fn slow_heads_end_in_408() {
    let (app, front) = limited(scripts::ok, "", "headerTimeout: 300ms, idleTimeout: 20s");
    // Nothing at all; half a head; a head one byte at a time; half a preface.
    let dribble: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaa";
    for (bytes, pause) in [
        (&b""[..], 0),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", 0),
        (dribble, 30),
        (b"PRI * HTTP/2.0\r\n", 0),
    ] {
        let mut client = front.client();
        let begun = Instant::now();
        for byte in bytes {
            if client.send(&[*byte]).is_err() {
                break;
            }
            crate::support::wait::pause(Duration::from_millis(pause));
        }
        let response = client.response().unwrap();
        assert_eq!(
            (response.status, response.cause().as_str()),
            (408, "client_timeout")
        );
        assert!(response.closes());
        assert!(client.until_close().is_empty());
        assert!(begun.elapsed() >= Duration::from_millis(250));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    // On a connection that served already.
    let mut client = front.client();
    assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    client.send(b"GET /second").unwrap();
    assert_eq!(client.response().unwrap().status, 408);
    assert_eq!(app.count(), 1);
    assert_eq!(front.errors("client_timeout"), 5.0);
}

#[test]
fn idle_connections_are_closed_silently() {
    let (_app, front) = limited(scripts::ok, "", "headerTimeout: 20s, idleTimeout: 300ms");
    let mut client = front.client();
    for _ in 0..3 {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
        crate::support::wait::pause(Duration::from_millis(100));
    }
    let begun = Instant::now();
    assert!(client.until_close().is_empty());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(front.errors("client_timeout"), 0.0);
}

#[test]
fn a_body_that_stalls_ends_in_408() {
    let (app, front) = limited(scripts::ok, "", "idleTimeout: 300ms");
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        .unwrap();
    // Slow is fine.
    for _ in 0..8 {
        client.send(b"x").unwrap();
        crate::support::wait::pause(Duration::from_millis(80));
    }
    let response = client.response().unwrap();
    assert_eq!(
        (response.status, response.cause().as_str()),
        (408, "client_timeout")
    );
    assert!(response.closes());
    client.until_close();
    assert_eq!(app.count(), 0);
    front.wait_for_rest();
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let limits = "writeStallTimeout: 1s, headerTimeout: 200ms";
    let (app, front) = limited(scripts::download(64 * 1024 * 1024), "", limits);
    let mut client = front.client();
    client.send(&Request::get("/").bytes()).unwrap();
    assert_eq!(client.head().unwrap().0, 200);
    wait_until("it is in flight", SOON, || front.in_flight() == 1.0);
    front.wait_for_rest();
    front.wait_for_errors("client_closed", 1.0);
    // The cut is seen as one.
    let mut read = 0;
    let end = loop {
        match client.some(usize::MAX) {
            Ok(more) if more.is_empty() => break None,
            Ok(more) => read += more.len(),
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(end, Some(Unread::Cut(_))), "{end:?} after {read}");
    // The app's end was let go too.
    wait_until("the app is free", SOON, || app.count() == 1);
    // A slow reader is no such client.
    let mut client = front.client();
    client.send(&Request::get("/").bytes()).unwrap();
    client.head().unwrap();
    holds_for("a slow reader", Duration::from_millis(1600), || {
        let more = client.exactly(1024 * 1024).unwrap();
        crate::support::wait::pause(Duration::from_millis(30));
        !more.is_empty()
    });
}

/// Pipelined requests whose answers are not read, with half a head behind them:
/// a 408 must not be written into the middle of an answer.
#[test]
fn no_answer_is_written_into_another() {
    let limits = "writeStallTimeout: 2s, headerTimeout: 200ms";
    let (_app, front) = limited(scripts::download(16 * 1024 * 1024), "", limits);
    let mut client = front.client();
    client.send(&Request::get("/").bytes()).unwrap();
    client.send(b"GET /half").unwrap();
    front.wait_for_errors("client_closed", 1.0);
    let bytes = client.until_close();
    let tail = &bytes[bytes.len().saturating_sub(4096)..];
    assert!(!String::from_utf8_lossy(tail).contains("HTTP/1.1 408"));
}

#[test]
fn a_client_that_resets_within_its_body() {
    let (app, front) = front(scripts::ok);
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf")
        .unwrap();
    wait_until("it is in flight", SOON, || front.in_flight() == 1.0);
    client.reset();
    front.wait_for_rest();
    front.wait_for_errors("client_closed", 1.0);
    assert_eq!(app.count(), 0);
    // With chunks: the app must not see an end either.
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .unwrap();
    wait_until("it is in flight", SOON, || front.in_flight() == 1.0);
    client.reset();
    front.wait_for_rest();
    front.wait_for_errors("client_closed", 2.0);
    assert_eq!(app.count(), 0);
    assert_eq!(Request::get("/").send(front.port).status, 200);
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    let (app, front) = front(scripts::silent);
    let mut client = front.client();
    client.send(&Request::get("/").bytes()).unwrap();
    wait_until("the app has it", SOON, || app.count() == 1);
    drop(client);
    front.wait_for_rest();
    assert_eq!(front.errors("client_closed"), 1.0);
    assert_eq!(front.counted(499), 1.0);
}

/// Who closes only its half within a body still reads: 499 is for the log.
#[test]
fn a_client_that_stops_within_its_body_is_told() {
    let (_app, front) = front(scripts::silent);
    let mut client = front.client();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab";
    client.send(head).unwrap();
    client.finish_sending().unwrap();
    let response = client.response_to("POST").unwrap();
    assert_eq!(
        (response.status, response.cause().as_str()),
        (400, "bad_request")
    );
    front.wait_for_rest();
    assert_eq!(front.errors("client_closed"), 1.0);
    assert_eq!(front.counted(400), 1.0);
}

/// The app answers before it has read the body, and closes: the answer gets
/// through though the client is still sending.
#[test]
fn an_early_answer_is_not_lost() {
    let early = EarlyAnswer;
    let (_app, front) = limited(early, "", "");
    for _ in 0..5 {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).unwrap();
        let writer = stream.try_clone().unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n";
        stream.write_all(head).unwrap();
        let sending = std::thread::spawn(move || {
            let mut sent = 0;
            let block = [b'x'; 16 * 1024];
            while sent < 50_000_000 && (&writer).write_all(&block).is_ok() {
                sent += block.len();
            }
            sent
        });
        let mut reader = crate::support::message::Reader::new(stream);
        let head = reader.head().unwrap();
        assert!(head.start.starts_with("HTTP/1.1 413 "), "{head:?}");
        let (body, _) = reader
            .body(crate::support::message::Framing::Length(5))
            .unwrap();
        assert_eq!(body, b"early");
        drop(reader);
        assert!(sending.join().unwrap() < 50_000_000);
    }
    front.wait_for_rest();
}

struct EarlyAnswer;

impl crate::support::app::Script for EarlyAnswer {
    fn greet(&self, stream: &mut Connection) -> std::io::Result<Next> {
        stream.respond(413, "Connection: close\r\n", b"early")?;
        // Long enough for the answer to leave before unread bytes reset it.
        stream.wait(Duration::from_millis(100));
        Ok(Next::Close)
    }

    fn answer(&self, _: &Received, _: &mut Connection) -> std::io::Result<Next> {
        Ok(Next::Close)
    }
}
