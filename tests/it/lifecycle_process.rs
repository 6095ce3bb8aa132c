//! The sidecar and the app beside it: who starts and who ends first (SPEC §11).

use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup, run_to_end};
use crate::support::files::open;
use crate::support::isolation::Wrapper;
use crate::support::ports::free_port;
use crate::support::process;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_for, wait_until};

/// A service with a health check that is quick to notice.
fn file(port: u16, app: u16) -> String {
    format!(
        "port: {port}\nupstream: {app}\nauth: {{strategy: none}}\nhealthCheck: \
         {{path: /, interval: 200ms, timeout: 1s, unhealthyThreshold: 1, healthyThreshold: 1}}\n"
    )
}

fn probe(daemon: &Daemon, path: &str) -> Option<u16> {
    Request::get(path).status(daemon.observe)
}

#[test]
fn an_app_may_start_late_and_die_first() {
    let _machine = shared_machine();
    let (port, app_port) = (free_port(), free_port());
    let tree = Tree::with(&[("shop/cart", &file(port, app_port))]);
    let shutdown = "shutdown: {accept: 5s, deadline: 20s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    // Started, but nobody should be sent here yet.
    assert_eq!(probe(&daemon, "/startupz"), Some(200));
    assert_eq!(probe(&daemon, "/livez"), Some(200));
    assert_eq!(probe(&daemon, "/readyz"), Some(503));
    assert_eq!(Request::get("/").send(port).status, 502);
    let app = App::start_on(app_port, scripts::ok);
    wait_until("ready", SOON, || probe(&daemon, "/readyz") == Some(200));
    let mut idle = Client::connect(port).unwrap();
    assert_eq!(idle.exchange(&Request::get("/")).unwrap().status, 200);
    drop(app);
    wait_until("not ready", SOON, || probe(&daemon, "/readyz") == Some(503));
    assert_eq!(probe(&daemon, "/livez"), Some(200));
    // Nothing in flight and the app gone: there is nothing to wait for.
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_request_in_flight_is_waited_for_until_the_deadline() {
    let _machine = shared_machine();
    let app = App::start(scripts::hung_stream);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let shutdown = "shutdown: {accept: 100ms, deadline: 3s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    let mut stream = Client::connect(port).unwrap();
    stream.send(&Request::get("/").bytes()).unwrap();
    stream.head().unwrap();
    let begun = Instant::now();
    daemon.signal("INT");
    daemon.wait_for_exit(SOON);
    let took = begun.elapsed();
    let range = Duration::from_millis(2500)..Duration::from_secs(3);
    assert!(range.contains(&took), "{took:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let _machine = shared_machine();
    let app = App::start(scripts::hung_stream);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let mut daemon = Setup::new(&tree).start();
    let mut stream = Client::connect(port).unwrap();
    stream.send(&Request::get("/").bytes()).unwrap();
    stream.head().unwrap();
    daemon.signal("TERM");
    daemon.wait_for_line(&["draining"]);
    pause(Duration::from_millis(300));
    assert!(daemon.is_running());
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_signal_after_a_drain_that_was_asked_for_cuts_nothing() {
    let _machine = shared_machine();
    let app = App::start(scripts::Routes(vec![
        ("/slow", Box::new(scripts::slow(Duration::from_secs(2)))),
        ("/events", Box::new(scripts::hung_stream)),
    ]));
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let shutdown = "shutdown: {accept: 100ms, deadline: 30s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    let [mut slow, mut stream] = ["/slow", "/events"].map(|target| {
        let mut client = Client::connect(port).unwrap();
        client.send(&Request::get(target).bytes()).unwrap();
        client
    });
    stream.head().unwrap();
    // As a hook before the stop does it; then comes the stop itself.
    assert_eq!(daemon.admin_post("/drain", "").status, 202);
    daemon.wait_for_line(&["draining"]);
    daemon.signal("TERM");
    assert_eq!(slow.response().unwrap().status, 200);
    assert!(daemon.is_running());
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn as_process_one_it_takes_signals_from_the_first_moment() {
    let _machine = shared_machine();
    for early in [true, false] {
        let Some(wrapper) = Wrapper::process_one() else {
            return;
        };
        let app = App::start(scripts::ok);
        let port = free_port();
        let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
        let shutdown = "shutdown: {accept: 200ms, deadline: 5s}";
        let setup = Setup::new(&tree).process(shutdown).within(wrapper);
        let mut daemon = if early { setup.spawn() } else { setup.start() };
        let (inner, _) = wait_for("process 1 is there", SOON, || {
            let (child, _) = *process::children(daemon.pid()).first()?;
            // A signal before the handlers are there is lost, as for any process 1.
            let status = std::fs::read_to_string(format!("/proc/{child}/status")).ok()?;
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            (caught & (1 << 14) != 0).then_some(child)
        });
        process::signal(inner, "TERM");
        let (status, output) = daemon.wait_for_exit(SOON);
        assert_eq!(status.code(), Some(0), "early: {early}\n{output}");
    }
}

#[test]
fn health_asks_the_daemon_without_curl() {
    let _machine = shared_machine();
    let (port, app_port) = (free_port(), free_port());
    let tree = Tree::with(&[("shop/cart", &file(port, app_port))]);
    let ask = |flags: &[&str]| {
        let mut arguments = vec!["health"];
        arguments.extend(flags);
        let (code, errors) = run_to_end(tree.root(), &arguments, &[]);
        (code, errors)
    };
    let daemon = Setup::new(&tree).start();
    assert_eq!(ask(&["--startup"]).0, 0);
    assert_eq!(ask(&["--live"]).0, 0);
    for flags in [&[][..], &["--ready"]] {
        let (code, errors) = ask(flags);
        assert_eq!(code, 69, "{errors}");
        assert!(errors.contains("the app of shop/cart"), "{errors}");
    }
    let _app = App::start_on(app_port, scripts::ok);
    wait_until("ready", SOON, || ask(&[]).0 == 0);
    assert_eq!(ask(&["--live", "--ready"]).0, 64);
    drop(daemon);
    assert_eq!(ask(&["--live"]).0, 69);
}

#[test]
fn health_uses_the_admin_port_where_observe_is_off() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let tree = Tree::with(&[("shop/cart", &open(free_port(), app.port(), 0))]);
    let daemon = Setup::new(&tree)
        .admin("127.0.0.1", "token: a-token-of-the-admin-port")
        .start();
    let off = [("OUTRIGGER_OBSERVE_LISTEN", "off")];
    let (code, errors) = run_to_end(tree.root(), &["health", "--live"], &off);
    assert_eq!(code, 0, "{errors}");
    drop(daemon);
}
