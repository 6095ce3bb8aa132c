//! Who may do what at the daemon's own ports, and two daemons on one port.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::open;
use crate::support::isolation::{OTHER_ADDRESS, Wrapper, run_test_within};
use crate::support::load::{Load, Plain};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

const TOKEN: &str = "a-token-for-the-admin-port-0001";

#[test]
fn a_second_daemon_on_a_port_ends_with_64() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    let text = open(port, app.port(), 1);
    let (first_tree, second_tree) = (
        Tree::with(&[("shop/cart", &text)]),
        Tree::with(&[("shop/cart", &text)]),
    );
    for listen in ["127.0.0.1", "0.0.0.0", "::"] {
        let first = Setup::new(&first_tree).listen(listen).start();
        let load = Load::start(port, 4, Duration::from_millis(1), Plain(Request::get("/")));
        wait_until("the load runs", SOON, || load.requests() > 50);
        for second_listen in ["127.0.0.1", "0.0.0.0", "::"] {
            let mut second = Setup::new(&second_tree).listen(second_listen).spawn();
            let (status, output) = second.wait_for_exit(SOON);
            assert_eq!(
                status.code(),
                Some(64),
                "{listen}, then {second_listen}: {output}"
            );
            assert!(
                output.contains(&format!("port {port} is in use")),
                "{output}"
            );
        }
        let seen = load.requests();
        wait_until("the load goes on", SOON, || load.requests() > seen + 50);
        let report = load.stop();
        figure!(
            "first on {listen}: {} requests beside three second daemons",
            report.requests
        );
        assert_eq!(
            (report.failures, report.announced_closes),
            (0, 0),
            "{:#?}",
            report.words
        );
        drop(first);
    }
}

#[test]
fn a_second_daemon_on_a_door_ends_with_64() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (first_tree, second_tree) = (Tree::new(), Tree::new());
    first_tree.write("shop/cart", open(free_port(), app.port(), 1));
    second_tree.write("shop/cart", open(free_port(), app.port(), 1));
    let setup = Setup::new(&first_tree);
    let admin = setup.admin_port();
    let first = setup.start();
    let mut second = Setup::new(&second_tree)
        .env("OUTRIGGER_ADMIN_LISTEN", &format!("127.0.0.1:{admin}"))
        .spawn();
    let (status, output) = second.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(64), "{output}");
    assert!(output.contains(&admin.to_string()), "{output}");
    assert_eq!(first.admin_get("/livez").status, 200);
}

/// Every request that changes something.
fn mutations() -> Vec<Request> {
    vec![
        Request::post("/reload", ""),
        Request::post("/reload?confirm=removals", ""),
        Request::post("/drain", ""),
        Request::post("/quitquitquit", ""),
        Request::new("PUT", "/log-level").body("debug"),
        Request::new("PUT", "/log-level").body(r#"{"level":"debug"}"#),
        Request::post(
            "/explain",
            r#"{"service":"cart","method":"GET","path":"/"}"#,
        ),
    ]
}

/// Still serving and not draining.
#[track_caller]
fn assert_unmoved(daemon: &mut Daemon, before: u64) {
    assert!(daemon.is_running());
    assert_eq!(daemon.admin_get("/readyz").status, 200);
    assert_eq!(daemon.generation(), before);
}

#[test]
fn a_web_page_cannot_use_the_admin_port() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let tree = Tree::with(&[("shop/cart", &open(free_port(), app.port(), 1))]);
    let mut daemon = Setup::new(&tree)
        .process("shutdown: {quitEndpoint: true}")
        .start();
    let before = daemon.generation();
    for request in mutations() {
        let browser = request
            .clone()
            .header("Host", "127.0.0.1")
            .header("Origin", "http://evil.example");
        assert_eq!(browser.status(daemon.admin), Some(403), "{browser:?}");
        let rebound = request.clone().header("Host", "evil.example");
        let status = rebound.status(daemon.admin);
        assert!(matches!(status, Some(403 | 421)), "{rebound:?}: {status:?}");
    }
    for target in ["/services", "/pools", "/health/services"] {
        let rebound = Request::get(target)
            .header("Host", "evil.example:80")
            .status(daemon.admin);
        assert!(matches!(rebound, Some(403 | 421)), "{target}: {rebound:?}");
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "localhost:9900"] {
        let status = Request::get("/services")
            .header("Host", host)
            .status(daemon.admin);
        assert_eq!(status, Some(200), "{host}");
    }
    assert_unmoved(&mut daemon, before);
    // The read-only port has no mutations at all.
    for request in mutations() {
        let status = request.status(daemon.observe);
        assert!(matches!(status, Some(404 | 405)), "{request:?}: {status:?}");
    }
    assert_unmoved(&mut daemon, before);
}

#[test]
fn an_open_admin_port_needs_a_token() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let tree = Tree::with(&[("shop/cart", &open(free_port(), app.port(), 1))]);
    let mut daemon = Setup::new(&tree)
        .env("OUTRIGGER_ADMIN_LISTEN", "0.0.0.0:1")
        .spawn();
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(64), "{output}");
    assert!(output.contains("admin.token"), "{output}");
}

#[test]
fn from_another_address_only_reading_works() {
    let Some(wrapper) = Wrapper::own_network() else {
        return;
    };
    let _machine = shared_machine();
    run_test_within(&wrapper, "doors::inside_another_network");
}

#[test]
#[ignore = "run by from_another_address_only_reading_works in a network namespace"]
fn inside_another_network() {
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 1))]);
    let at = |port: u16| SocketAddr::new(OTHER_ADDRESS.parse().unwrap(), port);

    // As it comes: the admin port is not there at all from outside.
    let mut daemon = Setup::new(&tree)
        .listen("0.0.0.0")
        .observe("0.0.0.0")
        .start();
    let before = daemon.generation();
    assert!(Client::connect_to(at(daemon.admin)).is_err());
    reading_works(&at(daemon.observe));
    assert_eq!(Request::get("/").try_send_to(at(port)).unwrap().status, 200);
    assert_unmoved(&mut daemon, before);
    drop(daemon);

    // Opened, with a token.
    let mut daemon = Setup::new(&tree)
        .admin("0.0.0.0", &format!("token: {TOKEN}"))
        .process("shutdown: {quitEndpoint: true}")
        .start();
    let before = daemon.generation();
    let admin = at(daemon.admin);
    for request in mutations() {
        for wrong in [
            request.clone(),
            request.clone().header("Authorization", "Bearer wrong"),
            request
                .clone()
                .header("Authorization", &format!("Bearer {TOKEN}x")),
            request
                .clone()
                .header("Authorization", &format!("Bearer {}", &TOKEN[1..])),
            request.clone().header("X-Forwarded-For", "127.0.0.1"),
        ] {
            let status = wrong
                .try_send_to(admin)
                .map(|response| response.status)
                .ok();
            assert!(
                matches!(status, Some(401 | 403 | 421)),
                "{wrong:?}: {status:?}"
            );
        }
    }
    reading_works(&admin);
    assert_eq!(daemon.generation(), before);
    assert!(daemon.is_running());
    let right = Request::post("/reload", "").header("Authorization", &format!("Bearer {TOKEN}"));
    assert_eq!(
        right
            .header("Host", OTHER_ADDRESS)
            .try_send_to(admin)
            .unwrap()
            .status,
        200
    );
}

#[track_caller]
fn reading_works(address: &SocketAddr) {
    for target in ["/livez", "/readyz", "/startupz", "/metrics"] {
        let answer = Request::get(target)
            .header("Host", OTHER_ADDRESS)
            .try_send_to(*address)
            .unwrap();
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }
}
