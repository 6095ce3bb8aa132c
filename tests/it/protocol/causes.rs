//! Every cause of SPEC §9 that the way to the app can have, provoked for real.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use super::front::{Front, limited};
use crate::support::app::{Connection, Next, Received, Script};
use crate::support::client::Request;
use crate::support::message::Unread;
use crate::support::ports::free_port;
use crate::support::scripts;

/// The answer is a problem document with all that SPEC §9 promises.
#[track_caller]
fn assert_problem(front: &Front, target: &str, status: u16, cause: &str, proxy_error: &str) {
    let before = front.errors(cause);
    let response = Request::get(target).send(front.port);
    assert_eq!(
        (response.status, response.cause().as_str()),
        (status, cause),
        "{target}: {}",
        response.text()
    );
    assert_eq!(
        response.header("proxy-status"),
        Some(format!("users.shop; error={proxy_error}").as_str())
    );
    assert_eq!(
        response.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(
        response.header("retry-after").is_some(),
        status == 503,
        "{target}"
    );
    let document = response.json();
    let id = document["requestId"].as_str().unwrap().to_owned();
    assert_eq!(response.header("x-request-id"), Some(id.as_str()));
    assert_eq!(document["status"], status);
    for key in ["type", "title", "detail", "error"] {
        assert!(document[key].is_string(), "{key}: {document}");
    }
    front.wait_for_errors(cause, before + 1.0);
    let line = front.daemon.wait_for_line(&[cause, &id]);
    // The first request has no connection to go by.
    let connects = cause.starts_with("upstream_connect");
    assert!(!connects || line.contains("\"connect_ms\":"), "{line}");
}

#[test]
fn an_app_that_does_not_listen() {
    let front = Front::of(free_port(), "", "");
    assert_problem(
        &front,
        "/",
        502,
        "upstream_connect_refused",
        "connection_refused",
    );
    let absent = front.tree.root().join("no-such.sock");
    let unix = Front::with(
        &format!(
            "upstream: \"unix:{}\"\nhealthCheck: false\n",
            absent.display()
        ),
        "",
    );
    assert_problem(
        &unix,
        "/",
        502,
        "upstream_connect_refused",
        "connection_refused",
    );
}

#[test]
fn an_app_whose_accept_queue_is_full() {
    // Nobody accepts; once the queue is full, further SYNs are dropped.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let port = listener.local_addr().unwrap().port();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(
        &(Ipv4Addr::LOCALHOST, port).into(),
        Duration::from_millis(200),
    ) {
        fillers.push(filler);
    }
    let front = Front::of(port, "connectTimeout: 200ms", "");
    let begun = Instant::now();
    assert_problem(
        &front,
        "/",
        504,
        "upstream_connect_timeout",
        "connection_timeout",
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_name_that_does_not_resolve() {
    let service = "upstream: \"http://no-such-host.invalid:80\"\nhealthCheck: false\n";
    let front = Front::with(service, "");
    assert_problem(&front, "/", 502, "dns", "dns_error");
}

fn interim(count: usize) -> impl Script {
    move |_: &Received, stream: &mut Connection| {
        for _ in 0..count {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            // Each in a packet of its own.
            stream.wait(Duration::from_millis(10));
        }
        stream.respond(200, "", b"ok")?;
        Ok(Next::KeepAlive)
    }
}

/// One byte of a head at a time, for ever.
fn dribbled_head(_: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ")?;
    while stream.wait(Duration::from_millis(50)) {
        stream.write_all(b"a")?;
    }
    Ok(Next::Close)
}

fn raw(bytes: &'static [u8]) -> Box<dyn Script> {
    Box::new(scripts::bytes(bytes, Next::Close))
}

fn misbehaving() -> scripts::Routes {
    scripts::Routes(vec![
        ("/slow", Box::new(scripts::silent)),
        ("/dribble", Box::new(dribbled_head)),
        ("/closed", Box::new(scripts::closes_after(0))),
        ("/early", Box::new(scripts::closes_after(30))),
        ("/garbage", Box::new(scripts::garbage())),
        ("/endless", Box::new(scripts::endless_headers)),
        ("/interim/many", Box::new(interim(40))),
        ("/interim/few", Box::new(interim(5))),
        ("/half", Box::new(scripts::half_body_then_reset())),
        ("/short", Box::new(scripts::closes_after(70))),
        ("/headers/100", Box::new(many_headers(100))),
        ("/headers/101", Box::new(many_headers(101))),
        ("/switch", raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")),
        ("/lengths", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ("/both", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("/coding", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("/version", raw(b"HTTP/2.0 200 OK\r\n\r\n")),
        ("/space", raw(b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n")),
        ("/fold", raw(b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n")),
        ("/nul", raw(b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n")),
        ("/status", raw(b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n")),
    ])
}

fn many_headers(count: usize) -> impl Script {
    move |_: &Received, stream: &mut Connection| {
        let fields: String = (1..count)
            .map(|number| format!("x-{number}: y\r\n"))
            .collect();
        stream.respond(200, &fields, b"ok")?;
        Ok(Next::KeepAlive)
    }
}

#[test]
fn an_app_that_answers_badly_or_not_at_all() {
    let upstream = "responseTimeout: 400ms";
    let (_app, front) = limited(misbehaving(), upstream, "");
    for target in ["/slow", "/dribble"] {
        let begun = Instant::now();
        assert_problem(
            &front,
            target,
            504,
            "upstream_response_timeout",
            "http_response_timeout",
        );
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(350), "{target}: {took:?}");
        assert!(took < Duration::from_secs(5), "{target}: {took:?}");
    }
    for target in ["/closed", "/early"] {
        assert_problem(
            &front,
            target,
            502,
            "upstream_closed",
            "connection_terminated",
        );
    }
    for target in [
        "/garbage",
        "/endless",
        "/interim/many",
        "/headers/101",
        "/switch",
        "/lengths",
        "/both",
        "/coding",
        "/version",
        "/space",
        "/fold",
        "/nul",
        "/status",
    ] {
        assert_problem(
            &front,
            target,
            502,
            "upstream_protocol",
            "http_protocol_error",
        );
    }
    assert_eq!(Request::get("/headers/100").send(front.port).status, 200);
    let few = Request::get("/interim/few").send(front.port);
    assert_eq!((few.status, few.informational), (200, vec![]));
    front.wait_for_rest();
}

/// Equal lengths are one length (RFC 9110 section 8.6), for GET and HEAD.
#[test]
fn a_length_that_is_said_twice_is_said_once() {
    let twice = |request: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n")?;
        if request.method == "GET" {
            stream.write_all(b"hello")?;
        }
        Ok(Next::KeepAlive)
    };
    let (_app, front) = limited(twice, "", "");
    let mut client = front.client();
    for method in ["HEAD", "GET", "HEAD"] {
        client.send(&Request::new(method, "/").bytes()).unwrap();
        let response = client.response_to(method).unwrap();
        assert_eq!(
            (response.status, response.header("content-length")),
            (200, Some("5"))
        );
    }
    front.wait_for_rest();
}

/// A body that breaks off must not look complete to the client.
#[test]
fn half_a_body_is_never_taken_for_a_whole_one() {
    let chunked_cut = |_: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        Ok(Next::Close)
    };
    let bad_chunk = |_: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX")?;
        stream.wait(Duration::from_secs(30));
        Ok(Next::Close)
    };
    let stalls = |_: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        while stream.wait(Duration::from_secs(1)) {}
        Ok(Next::Close)
    };
    let routes = scripts::Routes(vec![
        ("/half", Box::new(scripts::half_body_then_reset())),
        ("/short", Box::new(scripts::closes_after(70))),
        ("/chunked", Box::new(chunked_cut)),
        ("/bad", Box::new(bad_chunk)),
        ("/stalls", Box::new(stalls)),
    ]);
    let (_app, front) = limited(routes, "bodyIdleTimeout: 300ms", "");
    for (target, cause, count) in [
        ("/half", "upstream_closed", 1.0),
        ("/short", "upstream_closed", 2.0),
        ("/chunked", "upstream_closed", 3.0),
        ("/bad", "upstream_protocol", 1.0),
        ("/stalls", "upstream_response_timeout", 1.0),
    ] {
        // The reset may overtake the head.
        let outcome = Request::get(target).try_send(front.port);
        assert!(
            matches!(outcome, Err(Unread::Cut(_) | Unread::Closed)),
            "{target}: {outcome:?}"
        );
        front.wait_for_errors(cause, count);
        // The app's status went out; the failure is in the cause.
    }
    assert_eq!(front.counted(200), 5.0);
    front.wait_for_rest();
}

#[test]
fn a_silent_event_stream_is_not_a_stalled_body() {
    let (_app, front) = limited(scripts::hung_stream, "bodyIdleTimeout: 200ms", "");
    let mut client = front.client();
    client.send(&Request::get("/").bytes()).unwrap();
    assert_eq!(client.head().unwrap().0, 200);
    assert_eq!(client.chunk().unwrap(), b"data: 1\n\n");
    client.patience(Duration::from_millis(800));
    assert!(matches!(client.chunk(), Err(Unread::TimedOut)));
}

#[test]
fn a_service_without_a_good_version_says_so() {
    let front = Front::beside("auth: {strategy: jwt}\n");
    assert_problem(
        &front,
        "/",
        503,
        "config_invalid",
        "proxy_configuration_error",
    );
}

#[test]
fn too_many_at_once_are_told_so() {
    let (_app, front) = limited(scripts::silent, "", "inFlight: 2");
    let mut held: Vec<_> = (0..2).map(|_| front.client()).collect();
    for client in &mut held {
        client.send(&Request::get("/").bytes()).unwrap();
    }
    crate::support::wait::wait_until("both are in flight", crate::support::wait::SOON, || {
        front.in_flight() == 2.0
    });
    assert_problem(&front, "/", 503, "overloaded", "connection_limit_reached");
    drop(held);
    front.wait_for_rest();
    assert!(front.errors("client_closed") >= 2.0);
}
