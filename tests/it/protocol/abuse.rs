//! HTTP/2 clients that mean harm: the others are served, and memory is bounded.

use std::time::{Duration, Instant};

use super::front::{Front, limited};
use crate::support::app::{App, Next};
use crate::support::client::Request;
use crate::support::frames::{self, FrameClient, frame};
use crate::support::load::{Load, Plain};
use crate::support::scripts;
use crate::support::wait::{SOON, wait_until};

/// SPEC §2.4 and issue's bound.
const MOST_GROWTH_KIB: u64 = 64 * 1024;

/// Runs an attack beside ordinary clients, which must not notice, and bounds
/// the memory it costs.
fn attack(limits: &str, attack: impl FnOnce(&Front)) -> (App, Front) {
    let routes = scripts::Routes(vec![
        ("/large", Box::new(scripts::bytes(large(), Next::KeepAlive))),
        ("/silent", Box::new(scripts::silent)),
    ]);
    // The app's own accept queue is not what is tried here.
    let (app, front) = limited(routes, "connectTimeout: 10s", limits);
    let load = Load::start(
        front.port,
        2,
        Duration::from_millis(5),
        Plain(Request::get("/")),
    );
    wait_until("the others are served", SOON, || load.requests() > 20);
    let before = front.daemon.resident_kib();
    attack(&front);
    let grown = front.daemon.resident_kib().saturating_sub(before);
    let served = load.requests();
    wait_until("the others are served", SOON, || {
        load.requests() > served + 20
    });
    let report = load.stop();
    println!("resident memory +{grown} KiB; others: {report:?}");
    assert_eq!(report.failures, 0, "{report:?}");
    assert!(report.slowest < Duration::from_secs(3), "{report:?}");
    assert!(grown < MOST_GROWTH_KIB, "+{grown} KiB");
    let mut client = FrameClient::connect(front.port, &[]);
    assert!(client.answers(1), "HTTP/2 is served as before");
    assert!(app.faults().is_empty(), "{:?}", app.faults());
    (app, front)
}

/// An answer of 1 MiB.
fn large() -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 1024 * 1024, b'l');
    bytes
}

/// Sends these bytes over and over without reading, until the peer has had
/// enough or the time is over; gives how often.
fn flood(client: &mut FrameClient, bytes: &[u8], time: Duration) -> usize {
    client.patience(Duration::from_millis(500));
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < time && client.send(bytes).is_ok() {
        count += 1;
    }
    count
}

fn malformed_frame_list() -> Vec<(&'static str, Vec<u8>)> {
    let open = frames::headers(1, &frames::get("/silent"), false);
    let on_open = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    vec![
        ("DATA on stream 0", frame(frames::DATA, 0, 0, b"x")),
        ("DATA on an idle stream", frame(frames::DATA, 0, 1, b"x")),
        (
            "HEADERS on stream 0",
            frames::headers(0, &frames::get("/"), true),
        ),
        (
            "HEADERS on an even stream",
            frames::headers(2, &frames::get("/"), true),
        ),
        (
            "RST_STREAM on an idle stream",
            frame(frames::RST_STREAM, 0, 9, &[0; 4]),
        ),
        (
            "RST_STREAM of a wrong length",
            on_open(frame(frames::RST_STREAM, 0, 1, &[0; 3])),
        ),
        (
            "WINDOW_UPDATE of zero",
            frame(frames::WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        (
            "a window beyond 2^31",
            frame(frames::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "SETTINGS of a wrong length",
            frame(frames::SETTINGS, 0, 0, &[0; 5]),
        ),
        (
            "SETTINGS on a stream",
            frame(frames::SETTINGS, 0, 1, &[0; 6]),
        ),
        (
            "SETTINGS ACK with content",
            frame(frames::SETTINGS, frames::ACK, 0, &[0; 6]),
        ),
        (
            "SETTINGS with a forbidden frame size",
            frames::settings(&[(5, 1)]),
        ),
        (
            "SETTINGS with a forbidden window",
            frames::settings(&[(4, u32::MAX)]),
        ),
        ("PING of a wrong length", frame(frames::PING, 0, 0, &[0; 7])),
        ("PING on a stream", frame(frames::PING, 0, 1, &[0; 8])),
        (
            "PUSH_PROMISE from a client",
            on_open(frame(frames::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])),
        ),
    ]
}

fn malformed_blocks() -> Vec<(&'static str, Vec<u8>)> {
    let open = frames::headers(1, &frames::get("/silent"), false);
    let on_open = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    vec![
        (
            "CONTINUATION out of place",
            frame(frames::CONTINUATION, 4, 1, &frames::get("/")),
        ),
        (
            "another frame within a header block",
            [
                frame(frames::HEADERS, 0, 1, &frames::get("/")),
                frame(frames::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "a frame beyond 16 KiB",
            on_open(frame(frames::DATA, 0, 1, &[0; 16 * 1024 + 1])),
        ),
        (
            "more padding than payload",
            on_open(frame(frames::DATA, frames::PADDED, 1, &[200, 1, 2])),
        ),
        (
            "an unknown index of the header table",
            frames::headers(1, &[0xff, 0x80, 0x80, 0x01], true),
        ),
        ("index 0", frames::headers(1, &[0x80], true)),
        (
            "an integer without end",
            frames::headers(1, &[0xff; 40], true),
        ),
        (
            "a cut header block",
            frames::headers(1, &frames::get("/")[..10], true),
        ),
        (
            "a table beyond what was offered",
            frames::headers(1, &[0x3f, 0xe1, 0xff, 0xff, 0x7f], true),
        ),
    ]
}

#[test]
fn malformed_frames() {
    let (app, _front) = attack("", |front| {
        for (name, bytes) in malformed_frame_list().into_iter().chain(malformed_blocks()) {
            let mut client = FrameClient::connect(front.port, &[]);
            client.send(&bytes).unwrap();
            let refusal = client
                .refusal()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            println!("{name}: {refusal:?}");
        }
        // What is unknown is ignored.
        let mut client = FrameClient::connect(front.port, &[(0xff, 7)]);
        client.send(&frame(0xee, 0xff, 7, b"anything")).unwrap();
        assert!(client.answers(1));
    });
    assert!(app.count() > 0);
}

#[test]
fn a_preface_that_is_none() {
    // The others are idle for 5 ms at a time, and a machine may halt.
    let limits = "headerTimeout: 300ms, idleTimeout: 1500ms";
    let (_app, front) = attack(limits, |front| {
        for bytes in [
            &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            frames::PREFACE,
        ] {
            let mut client = FrameClient::silent(front.port);
            client.send(bytes).unwrap();
            // Over soon, with words or without.
            while let Ok(Some(_)) = client.frame() {}
        }
        // A header block that never ends.
        let mut client = FrameClient::connect(front.port, &[]);
        let begun = Instant::now();
        client
            .send(&frame(frames::HEADERS, 0, 1, &frames::get("/")))
            .unwrap();
        while let Ok(Some(_)) = client.frame() {}
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
    front.wait_for_rest();
}

#[test]
fn rapid_resets() {
    let (app, front) = attack("", |front| {
        let mut client = FrameClient::connect(front.port, &[]);
        client.patience(Duration::from_secs(2));
        let mut sent = 0;
        for number in 0..20_000_u32 {
            let stream = number * 2 + 1;
            let mut bytes = frames::headers(stream, &frames::get("/silent"), true);
            bytes.extend(frame(frames::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            if client.send(&bytes).is_err() {
                break;
            }
            sent += 1;
        }
        let refusal = client.refusal();
        println!("{sent} resets sent, then {refusal:?}");
    });
    println!("{} requests reached the app", app.count());
    front.wait_for_rest();
}

#[test]
fn floods_of_continuation_and_header_bombs() {
    let (app, front) = attack("", |front| {
        for piece in [&frames::field(b"x-more", &[b'y'; 4000])[..], b""] {
            let mut client = FrameClient::connect(front.port, &[]);
            client
                .send(&frame(frames::HEADERS, 0, 1, &frames::get("/")))
                .unwrap();
            let more = frame(frames::CONTINUATION, 0, 1, piece);
            let count = flood(&mut client, &more, Duration::from_secs(3));
            println!("{count} CONTINUATION frames of {} bytes taken", piece.len());
            assert!(count < 100_000, "{count}");
        }
        // One field of 4 000 bytes in the table, then named again and again.
        let mut bomb = frames::get("/");
        bomb.push(0x40);
        frames::integer(1, 7, 0, &mut bomb);
        bomb.push(b'x');
        frames::integer(3900, 7, 0, &mut bomb);
        bomb.extend([b'y'; 3900]);
        bomb.extend([0xbe; 10_000]);
        for stream in [1, 3, 5] {
            let mut client = FrameClient::connect(front.port, &[]);
            client.send(&frames::headers(stream, &bomb, true)).unwrap();
            let refused = client
                .find(|frame| {
                    matches!(
                        frame.kind,
                        frames::RST_STREAM | frames::GOAWAY | frames::HEADERS
                    )
                })
                .unwrap();
            println!("39 MB in 14 KB: {refused:?}");
            let is_ok = |frame: &frames::Frame| {
                frame.kind == frames::HEADERS && frame.payload.first() == Some(&0x88)
            };
            assert!(!refused.as_ref().is_some_and(is_ok));
        }
    });
    assert!(
        app.take()
            .iter()
            .all(|request| request.head.all("x").next().is_none())
    );
    front.wait_for_rest();
}

#[test]
fn floods_of_small_frames_without_reading() {
    let limits = "writeStallTimeout: 500ms, idleTimeout: 2s";
    let (_app, front) = attack(limits, |front| {
        let open = frames::headers(1, &frames::get("/silent"), false);
        for (name, bytes) in [
            ("PING", frame(frames::PING, 0, 0, &[7; 8])),
            ("SETTINGS", frames::settings(&[(3, 100)])),
            ("empty DATA", frame(frames::DATA, 0, 1, b"")),
            ("PRIORITY", frame(frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
            (
                "WINDOW_UPDATE",
                frame(frames::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            ),
            ("unknown", frame(0xee, 0, 1, b"x")),
        ] {
            let mut client = FrameClient::connect(front.port, &[]);
            client.send(&open).unwrap();
            let many = bytes.repeat(200);
            let count = flood(&mut client, &many, Duration::from_secs(3)) * 200;
            println!("{name}: {count} frames taken");
            assert!(count < 2_000_000, "{name}: {count}");
        }
        // The write stall may come first, and a slow machine's flood is no flood.
        let floods = front.errors("bad_request");
        assert!(floods >= 1.0, "{floods}");
        // To a client that reads, the GOAWAY may be lost to the reset.
        let mut client = FrameClient::connect(front.port, &[]);
        // It may be gone before all of it is sent.
        let _ = client.send(&frame(frames::PING, 0, 0, &[7; 8]).repeat(200_000));
        let goaway = client.find(|frame| frame.kind == frames::GOAWAY).unwrap();
        println!("a reading client sees {goaway:?}");
    });
    front.wait_for_rest();
}

/// Clients that ask for much and open no window.
#[test]
fn stalled_windows() {
    let limits = "writeStallTimeout: 2s";
    let (app, front) = attack(limits, |front| {
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = FrameClient::connect(front.port, &[(4, 0)]);
            for number in 0..100_u32 {
                let request = frames::headers(number * 2 + 1, &frames::get("/large"), true);
                client.send(&request).unwrap();
            }
            clients.push(client);
        }
        wait_until("all are in flight", SOON, || front.in_flight() >= 400.0);
        println!(
            "{} in flight, {} KiB",
            front.in_flight(),
            front.daemon.resident_kib()
        );
        // Each stream is reset by its own limit; the connection goes on.
        wait_until("all are let go", SOON, || front.in_flight() < 3.0);
        let mut client = clients.pop().unwrap();
        let reset = client
            .find(|frame| frame.kind == frames::RST_STREAM)
            .unwrap();
        assert!(reset.is_some());
        client.send(&frames::settings(&[(4, 65_535)])).unwrap();
        assert!(client.answers(401));
    });
    let closed = front.errors("client_closed");
    assert!(closed >= 400.0, "{closed}");
    assert!(app.connections() >= 300);
    front.wait_for_rest();
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let (_app, front) = attack("h2Streams: 10", |front| {
        let mut client = FrameClient::connect(front.port, &[]);
        for number in 0..12_u32 {
            let request = frames::headers(number * 2 + 1, &frames::get("/silent"), true);
            client.send(&request).unwrap();
        }
        let refused = client
            .find(|frame| frame.kind == frames::RST_STREAM)
            .unwrap()
            .unwrap();
        // REFUSED_STREAM: it may be asked again.
        assert_eq!(refused.payload, [0, 0, 0, 7]);
        assert!(refused.stream >= 21);
        let mut dropped = Some(client);
        wait_until("ten are in flight", SOON, || front.in_flight() >= 10.0);
        dropped.take();
    });
    front.wait_for_rest();
}
