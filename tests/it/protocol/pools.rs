//! Connections to the app: how many are kept, for how long; and what a reload
//! does to those of clients.

use std::time::{Duration, Instant};

use super::front::{Front, SERVICE};
use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::Request;
use crate::support::frames::{self, FrameClient};
use crate::support::scripts;
use crate::support::wait::{SOON, wait_until};

fn one_worker(app: &App, upstream: &str, limits: &str) -> Front {
    Front::with(&Front::yaml(app.port(), upstream, limits, ""), "workers: 1")
}

/// All at once, so that each needs a connection of its own.
fn burst(front: &Front, count: usize) {
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| assert_eq!(Request::get("/").send(front.port).status, 200));
        }
    });
}

#[test]
fn idle_connections_are_bounded_in_number_and_time() {
    let app = App::start(scripts::slow(Duration::from_millis(300)));
    let front = one_worker(&app, "maxIdle: 2, poolIdleTimeout: 1s", "");
    let before = front.daemon.descriptors();
    burst(&front, 6);
    assert_eq!(app.connections(), 6);
    wait_until("two are kept", SOON, || {
        front.daemon.descriptors() <= before + 2
    });
    burst(&front, 2);
    assert_eq!(app.connections(), 6);
    let begun = Instant::now();
    wait_until("none is kept", SOON, || {
        front.daemon.descriptors() <= before
    });
    assert!(begun.elapsed() > Duration::from_millis(500));
    burst(&front, 1);
    assert_eq!(app.connections(), 7);
    // None at all.
    let app = App::start(scripts::ok);
    let front = one_worker(&app, "maxIdle: 0", "");
    for number in 1..4 {
        assert_eq!(Request::get("/").send(front.port).status, 200);
        assert_eq!(app.connections(), number);
    }
}

#[test]
fn a_reload_of_limits_reaches_open_connections() {
    let app = App::start(scripts::ok);
    let front = one_worker(&app, "", "");
    let mut client = front.client();
    assert!(!client.exchange(&Request::get("/")).unwrap().closes());
    let reload = |limits: &str, more: &str| {
        let yaml = Front::yaml(app.port(), "", limits, more);
        front
            .tree
            .replace(SERVICE, format!("port: {}\n{yaml}", front.port));
        assert_eq!(front.daemon.reload().status, 200);
    };
    // Not by what does not concern connections.
    reload("", "description: other");
    assert!(!client.exchange(&Request::get("/")).unwrap().closes());
    reload("idleTimeout: 300ms", "");
    assert!(client.exchange(&Request::get("/")).unwrap().closes());
    assert!(client.until_close().is_empty());
    // The pool is the old one; the client's time is the new one.
    assert_eq!(app.connections(), 1);
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        .unwrap();
    assert_eq!(client.response().unwrap().status, 408);
}

#[test]
fn header_limits_hold_on_http_2() {
    let app = App::start(scripts::ok);
    let front = one_worker(
        &app,
        "",
        "headerBytes: 4KiB, headerCount: 10, uriBytes: 1KiB",
    );
    let large = "y".repeat(5000);
    let long = format!("/{}", "a".repeat(1100));
    let mut many = frames::get("/");
    for number in 0..11 {
        many.extend(frames::field(format!("x-{number}").as_bytes(), b"y"));
    }
    let mut larger = frames::get("/");
    larger.extend(frames::field(b"x-large", large.as_bytes()));
    for (block, name) in [
        (many, "many"),
        (larger, "large"),
        (frames::get(&long), "long"),
    ] {
        let mut client = FrameClient::connect(front.port, &[]);
        client.send(&frames::headers(1, &block, true)).unwrap();
        let answer = client
            .find(|frame| {
                matches!(
                    frame.kind,
                    frames::HEADERS | frames::RST_STREAM | frames::GOAWAY
                )
            })
            .unwrap()
            .unwrap();
        println!("{name}: {answer:?}");
        // A status of 4xx, as a literal with an indexed name.
        assert_eq!(answer.kind, frames::HEADERS, "{name}");
        assert_ne!(answer.payload.first(), Some(&0x88), "{name}");
        assert!(client.answers(3), "{name}");
    }
    assert_eq!(app.count(), 3);
}

/// What an app says of its connection is between it and us.
#[test]
fn an_app_that_closes_does_not_close_the_client() {
    let closing = |_: &Received, stream: &mut Connection| {
        stream.respond(200, "Connection: close\r\nKeep-Alive: timeout=1\r\n", b"ok")?;
        Ok(Next::Close)
    };
    let app = App::start(closing);
    let front = one_worker(&app, "", "");
    let mut client = front.client();
    for number in 1..5 {
        let response = client.exchange(&Request::get("/")).unwrap();
        assert_eq!((response.status, response.closes()), (200, false));
        assert_eq!(response.header("keep-alive"), None);
        assert_eq!(app.connections(), number);
    }
}
