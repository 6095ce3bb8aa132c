//! Calls to others when a process or the port they come by ends: the app can
//! call while it comes to its own end.

use std::time::{Duration, Instant};

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::crowd::{Crowd, Slow, assert_none, watch_port};
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::seed::seed;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, pause, shared_machine, wait_until};

/// A service that calls `payments` by these local ports.
fn calling(port: u16, app: u16, payments: &App, local_ports: &[u16]) -> String {
    let to = payments.port();
    let mut text = format!(
        "port: {port}\nupstream: {app}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n"
    );
    for (number, local_port) in local_ports.iter().enumerate() {
        text.push_str(&format!(
            "  - {{name: payments{number}, address: \"127.0.0.1:{to}\", \
             localPort: {local_port}, healthCheck: false}}\n"
        ));
    }
    text
}

/// `orders` calls by one port; nobody is its app.
fn without_app(payments: &App, deadline: &str) -> (Tree, Daemon, u16) {
    let ports = free_ports(3);
    let text = calling(ports[0], ports[1], payments, &[ports[2]]);
    let tree = Tree::with(&[("shop/orders", &text)]);
    let daemon = Setup::new(&tree)
        .process(&format!(
            "shutdown: {{accept: 100ms, deadline: {deadline}}}\nlog: {{level: debug}}"
        ))
        .start();
    (tree, daemon, ports[2])
}

#[test]
fn calls_go_on_until_the_app_is_gone() {
    let _machine = shared_machine();
    let (app, payments) = (App::start(scripts::ok), App::start(scripts::ok));
    let ports = free_ports(2);
    let text = calling(ports[0], app.port(), &payments, &[ports[1]]);
    let tree = Tree::with(&[("shop/orders", &text)]);
    let mut daemon = Setup::new(&tree)
        .process("shutdown: {accept: 200ms, deadline: 20s}")
        .start();
    daemon.signal("TERM");
    wait_until("the public port is closed", SOON, || {
        Request::get("/").status(ports[0]).is_none()
    });
    holds_for("the app can still call", Duration::from_secs(1), || {
        Request::get("/").status(ports[1]) == Some(200)
    });
    drop(app);
    let (status, output) = daemon.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn a_call_is_in_flight_though_the_app_accepts_nobody() {
    let _machine = shared_machine();
    let payments = App::start(scripts::slow(Duration::from_secs(3)));
    let (_tree, mut daemon, port) = without_app(&payments, "30s");
    let mut client = Client::connect(port).unwrap();
    client.send(&Request::get("/").bytes()).unwrap();
    wait_until("payments is asked", SOON, || payments.count() == 1);
    daemon.signal("TERM");
    assert_eq!(client.response().unwrap().status, 200);
    let answered = Instant::now();
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    let took = answered.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

fn switch(_: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    use std::io::Write as _;
    let head = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head)?;
    while stream.wait(Duration::from_secs(1)) {}
    Ok(Next::Close)
}

#[test]
fn tunnels_of_calls_end_two_seconds_before_the_deadline() {
    let _machine = shared_machine();
    let payments = App::start(switch);
    let (_tree, mut daemon, port) = without_app(&payments, "6s");
    let mut client = Client::connect(port).unwrap();
    let request = Request::get("/socket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    client.send(&request.bytes()).unwrap();
    assert_eq!(client.head().unwrap().0, 101);
    let begun = Instant::now();
    daemon.signal("TERM");
    client.patience(SOON);
    assert!(client.until_close().is_empty());
    let ended = begun.elapsed();
    let expected = Duration::from_millis(3500)..Duration::from_millis(5000);
    assert!(expected.contains(&ended), "{ended:?}");
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    // Nothing was left to wait for.
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(5700), "{took:?}");
}

#[test]
fn a_call_that_hangs_is_cut_at_the_deadline() {
    let _machine = shared_machine();
    let payments = App::start(scripts::hung_stream);
    let (_tree, mut daemon, port) = without_app(&payments, "4s");
    let mut client = Client::connect(port).unwrap();
    client.send(&Request::get("/").bytes()).unwrap();
    client.head().unwrap();
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, output) = daemon.wait_for_exit(SOON);
    let took = begun.elapsed();
    // The doors for calls end with the process, and that is no fault.
    assert_eq!(status.code(), Some(0), "{output}");
    let expected = Duration::from_millis(3500)..Duration::from_millis(5000);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn a_local_port_that_is_removed_drains_like_a_public_one() {
    let _machine = shared_machine();
    let seed = seed("a_local_port_that_is_removed_drains_like_a_public_one");
    let mut random = fastrand::Rng::with_seed(seed);
    let app = App::start(scripts::ok);
    let payments = App::start(Slow::new(random.fork()));
    let ports = free_ports(3);
    let both = calling(ports[0], app.port(), &payments, &ports[1..]);
    let one = calling(ports[0], app.port(), &payments, &ports[1..2]);
    let tree = Tree::with(&[("shop/orders", &both)]);
    let shutdown = "shutdown: {accept: 700ms, deadline: 6s}";
    let daemon = Setup::new(&tree).process(shutdown).start();
    for _ in 0..3 {
        let crowd = Crowd::start(ports[2], 6, random.u64(..));
        pause(Duration::from_millis(random.u64(50..400)));
        let watched = watch_port(ports[2]);
        let removed = Instant::now();
        tree.replace("shop/orders", &one);
        assert_eq!(daemon.reload().status, 200);
        let accepted_until = watched.join().unwrap();
        let (good, lost) = crowd.end(accepted_until);
        assert_none(&lost);
        assert!(good > 0, "no load");
        assert!(accepted_until.duration_since(removed) >= Duration::from_millis(600));
        tree.replace("shop/orders", &both);
        assert_eq!(daemon.reload().status, 200);
        wait_until("the port is back", SOON, || {
            Request::get("/").status(ports[2]) == Some(200)
        });
    }
}

#[test]
fn what_never_became_a_call_is_counted_and_told() {
    let _machine = shared_machine();
    let payments = App::start(scripts::ok);
    let (_tree, daemon, port) = without_app(&payments, "1s");
    for (bytes, status) in [
        (b"no HTTP at all\r\n\r\n".to_vec(), 400),
        (
            Request::get("/")
                .header("x-large", &"x".repeat(200_000))
                .bytes(),
            431,
        ),
    ] {
        let mut client = Client::connect(port).unwrap();
        // The rest of it may be refused by a reset.
        let _ = client.send(&bytes);
        assert_eq!(client.head().unwrap().0, status);
        let code = status.to_string();
        wait_until("it is counted", SOON, || {
            let labels = [("direction", "outbound"), ("code", &*code)];
            let metrics = daemon.metrics();
            metrics.sum("outrigger_http_requests_total", &labels) == Some(1.0)
        });
    }
    let errors = daemon.metrics();
    let refused = [("cause", "bad_request")];
    assert_eq!(
        errors.sum("outrigger_proxy_errors_total", &refused),
        Some(2.0)
    );
    let line = daemon.wait_for_line(&["refused by the parser", "431"]);
    assert!(line.contains("shop/orders"), "{line}");
}
