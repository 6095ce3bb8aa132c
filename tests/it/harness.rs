//! The harness is trusted by every other test, so it is tested itself: the parts
//! that do not need the daemon, against each other.

use std::time::Duration;

use crate::support::app::{App, Next};
use crate::support::client::{Client, Request};
use crate::support::load::{Load, Plain};
use crate::support::message::{Reader, Unread};
use crate::support::metrics::Metrics;
use crate::support::shim::{Fault, Shim};
use crate::support::wait::{SOON, wait_until};
use crate::support::{isolation, ports, scripts};

#[test]
fn an_app_records_what_it_receives() {
    let app = App::start(scripts::echo);
    let mut client = Client::connect(app.port()).unwrap();
    let first = client
        .exchange(&Request::get("/a").header("X-Thing", "1"))
        .unwrap();
    assert_eq!(
        (first.status, first.json()["target"].as_str()),
        (200, Some("/a"))
    );
    first.assert_only_headers(&["content-type", "content-length"]);
    let second = client.exchange(&Request::post("/b", "body")).unwrap();
    assert_eq!(second.json()["body"], "body");
    let received = app.take();
    assert_eq!(app.count(), 2);
    assert_eq!(received[0].connection, received[1].connection);
    assert_eq!(
        received[0].raw,
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nX-Thing: 1\r\n\r\n"
    );
    assert!(received[1].raw.ends_with(b"\r\n\r\nbody"));
}

#[test]
#[should_panic(expected = "unexpected `Content-Type")]
fn the_allow_list_of_response_headers_can_fail() {
    let app = App::start(scripts::ok);
    Request::get("/")
        .send(app.port())
        .assert_only_headers(&["content-length"]);
}

#[test]
fn messages_are_read_strictly() {
    for bad in [
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \u{7f}\r\n\r\n",
    ] {
        let read = Reader::new(bad.as_bytes()).head();
        assert!(
            matches!(read, Err(Unread::Malformed(_))),
            "{bad:?}: {read:?}"
        );
    }
    for bad in [
        "+5\r\nhello\r\n",
        "5;x=y\r\nhello\r\n",
        "5\r\nhelloo\r\n",
        " 5\r\nhello\r\n",
    ] {
        let read = Reader::new(bad.as_bytes()).chunk();
        assert!(
            matches!(read, Err(Unread::Malformed(_))),
            "{bad:?}: {read:?}"
        );
    }
    assert!(matches!(Reader::new(&b""[..]).head(), Err(Unread::Closed)));
    assert!(matches!(
        Reader::new(&b"HTTP"[..]).head(),
        Err(Unread::Cut(_))
    ));
}

#[test]
fn scripts_misbehave_as_they_say() {
    let request = Request::get("/");
    let app = App::start(scripts::half_body_then_reset());
    assert!(matches!(request.try_send(app.port()), Err(Unread::Cut(_))));
    let app = App::start(scripts::garbage());
    assert!(matches!(
        request.try_send(app.port()),
        Err(Unread::Malformed(_))
    ));
    let app = App::start(scripts::closes_after(0));
    assert!(matches!(request.try_send(app.port()), Err(Unread::Closed)));
    let app = App::start(scripts::closes_after(30));
    assert!(matches!(request.try_send(app.port()), Err(Unread::Cut(_))));
    let app = App::start(scripts::silent);
    let mut client = Client::connect(app.port()).unwrap();
    client.patience(Duration::from_millis(50));
    assert!(matches!(client.exchange(&request), Err(Unread::TimedOut)));
    let app = App::start(scripts::endless_headers);
    let mut client = Client::connect(app.port()).unwrap();
    client.send(&request.bytes()).unwrap();
    client.exactly(2_000_000).unwrap();
    drop(app);
    let app = App::start(scripts::download(1_000_000));
    let body = request.send(app.port()).body;
    assert!(
        (0..)
            .zip(&body)
            .all(|(position, byte)| scripts::pattern(position) == *byte)
    );
    assert_eq!(body.len(), 1_000_000);
}

#[test]
fn load_counts_failures() {
    let app = App::start(scripts::ok);
    let load = Load::start(
        app.port(),
        3,
        Duration::from_millis(1),
        Plain(Request::get("/")),
    );
    wait_until("thirty requests", SOON, || load.requests() >= 30);
    assert_eq!(load.failures(), 0);
    app.cut_connections();
    wait_until("a failure is seen", SOON, || load.failures() > 0);
    let report = load.stop();
    assert!(report.failures <= 6, "{report:?}");
    // A request that is cut may have been received or not.
    let (requests, failures) = (report.requests as usize, report.failures as usize);
    assert!((requests - failures..=requests).contains(&app.count()));
    let rude = App::start(scripts::bytes(
        *b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        Next::KeepAlive,
    ));
    let load = Load::start(
        rude.port(),
        1,
        Duration::from_millis(1),
        Plain(Request::get("/")),
    );
    wait_until("ten requests", SOON, || load.requests() >= 10);
    let report = load.stop();
    assert_eq!(report.failures, report.requests);
}

#[test]
fn the_shim_makes_each_fault() {
    let app = App::start(scripts::download(1000));
    let shim = Shim::start(app.port(), 1);
    let request = Request::get("/");
    let outcome = |fault| {
        shim.set(fault);
        let mut client = Client::connect(shim.port()).unwrap();
        client.patience(Duration::from_millis(300));
        client
            .exchange(&request)
            .map(|response| response.body.len())
    };
    assert!(matches!(outcome(Fault::None), Ok(1000)));
    assert!(matches!(
        outcome(Fault::Delay(Duration::from_millis(20))),
        Ok(1000)
    ));
    assert!(matches!(
        outcome(Fault::Dribble(100, Duration::from_millis(1))),
        Ok(1000)
    ));
    assert!(matches!(outcome(Fault::BlackHole), Err(Unread::TimedOut)));
    assert!(matches!(outcome(Fault::HalfOpen), Err(Unread::TimedOut)));
    assert!(matches!(
        outcome(Fault::Refuse),
        Err(Unread::Closed | Unread::Cut(_))
    ));
    assert!(matches!(
        outcome(Fault::ResetRequestAt(5)),
        Err(Unread::Closed | Unread::Cut(_))
    ));
    assert!(matches!(
        outcome(Fault::ResetAnswerAt(0)),
        Err(Unread::Closed | Unread::Cut(_))
    ));
    assert!(matches!(
        outcome(Fault::CloseAnswerAt(500)),
        Err(Unread::Cut(_))
    ));
    assert_eq!(shim.connections(), 9);
}

#[test]
fn metrics_are_parsed_with_labels() {
    let text =
        "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}\"} 2\na{x=\"2\",y=\"\"} 3.5\nb 1e3\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.sum("a", &[]), Some(5.5));
    assert_eq!(metrics.sum("a", &[("y", "q\"}")]), Some(2.0));
    assert_eq!(metrics.sum("a", &[("x", "3")]), None);
    assert_eq!(metrics.count("b", &[]), 1000.0);
    assert_eq!(metrics.names(), ["a", "b"]);
}

#[test]
fn ports_given_out_are_free_and_different() {
    let first = ports::free_ports(3);
    let second = ports::free_ports(3);
    assert!(first.iter().all(|port| !second.contains(port)));
    let app = App::start(scripts::ok);
    assert!(!ports::is_free(app.port()));
}

#[test]
fn another_network_can_be_had() {
    let Some(wrapper) = isolation::Wrapper::own_network() else {
        return;
    };
    isolation::run_test_within(&wrapper, "harness::inside_another_network");
}

#[test]
#[ignore = "run by another_network_can_be_had in a network namespace"]
fn inside_another_network() {
    let address = format!("{}:0", isolation::OTHER_ADDRESS);
    let listener = std::net::TcpListener::bind(address).unwrap();
    let client = Client::connect_to(listener.local_addr().unwrap()).unwrap();
    assert!(!client.local_address().ip().is_loopback());
}
