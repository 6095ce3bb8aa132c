//! `/livez`, `/startupz`, `/readyz` and `outrigger health` (SPEC §5).

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{BINARY, Daemon, Setup};
use crate::support::moody::{Moody, QUICK, status_of, wait_for_status};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, shared_machine, wait_until};

fn file(port: u16, app: u16) -> String {
    format!("port: {port}\nupstream: {app}\nhealthCheck: {QUICK}\nauth: {{strategy: none}}\n")
}

fn probe(daemon: &Daemon, path: &str) -> Option<u16> {
    Request::get(path).status(daemon.observe)
}

/// The exit code of `outrigger health` in the daemon's folder.
fn asks(tree: &Tree, flag: &str) -> Option<i32> {
    let output = Command::new(BINARY)
        .args(["health", flag])
        .current_dir(tree.root())
        .env_clear()
        .output()
        .expect("the binary was built");
    output.status.code()
}

#[test]
fn neither_app_nor_peer_is_needed_to_start_or_to_live() {
    let _machine = shared_machine();
    let ports = free_ports(3);
    // The app is not there, the peer neither.
    let text = format!(
        "{}dependencies:\n  - {{name: payments, required: true}}\n",
        file(ports[0], ports[1])
    );
    let tree = Tree::with(&[
        ("shop/orders", &text),
        ("shop/payments", &file(ports[2], 1)),
    ]);
    let daemon = Setup::new(&tree).env("SERVICES", "orders").start();
    assert_eq!(probe(&daemon, "/startupz"), Some(200));
    wait_for_status(ports[0], "unhealthy");
    holds_for("alive", Duration::from_millis(500), || {
        probe(&daemon, "/livez") == Some(200)
    });
    wait_until("the app is missed", SOON, || {
        let ready = Request::get("/readyz").send(daemon.observe);
        assert_eq!(ready.status, 503);
        ready.json() == json!({"status": "pending", "pending": ["the app of shop/orders is down"]})
    });
    let codes = ["--startup", "--live", "--ready"].map(|flag| asks(&tree, flag));
    assert_eq!(codes, [Some(0), Some(0), Some(69)]);
    // The app comes: ready, whatever the peer does.
    let _app = App::start_on(ports[1], scripts::ok);
    wait_until("ready", SOON, || probe(&daemon, "/readyz") == Some(200));
    assert_eq!(asks(&tree, "--ready"), Some(0));
    assert_eq!(
        status_of(ports[0]),
        "unhealthy",
        "it needs its peer all the same"
    );
    drop(daemon);
    assert_eq!(asks(&tree, "--live"), Some(69));
}

#[test]
fn a_bad_reload_never_lowers_readiness() {
    let _machine = shared_machine();
    let app = Moody::start(200);
    let port = free_ports(1)[0];
    let tree = Tree::with(&[("shop/cart", &file(port, app.port()))]);
    let daemon = Setup::new(&tree).start();
    wait_until("ready", SOON, || probe(&daemon, "/readyz") == Some(200));
    for bad in ["port: [\n", "port: 0\n", "auth: {strategy: nonsense}\n", ""] {
        tree.write("shop/cart", bad);
        daemon.reload();
        for path in ["/readyz", "/readyz/cart", "/startupz", "/livez"] {
            assert_eq!(probe(&daemon, path), Some(200), "{bad:?}: {path}");
        }
        assert_eq!(status_of(port), "healthy");
    }
    // Nor does one of the settings.
    tree.put("config/outrigger.yaml", "log: {level: loud}\n");
    daemon.reload();
    assert_eq!(probe(&daemon, "/readyz"), Some(200));
}

#[test]
fn one_that_fails_of_several_leaves_the_sidecar_ready() {
    let _machine = shared_machine();
    let apps = [(); 2].map(|()| Moody::start(200));
    let ports = free_ports(3);
    let tree = Tree::with(&[
        ("shop/cart", &file(ports[0], apps[0].port())),
        ("shop/users", &file(ports[1], apps[1].port())),
        ("shop/broken", &format!("port: {}\nupstream: [\n", ports[2])),
    ]);
    let daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "healthy");
    apps[0].becomes(500);
    wait_for_status(ports[0], "unhealthy");
    wait_until("ready", SOON, || {
        probe(&daemon, "/readyz/users") == Some(200)
    });
    assert_eq!(probe(&daemon, "/readyz"), Some(200));
    for (name, pending) in [
        ("cart", "the app of shop/cart is down"),
        ("shop/cart", "the app of shop/cart is down"),
        ("broken", "configuration of shop/broken"),
    ] {
        let answer = Request::get(&format!("/readyz/{name}")).send(daemon.observe);
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["pending"], json!([pending]));
    }
    assert_eq!(probe(&daemon, "/readyz/nobody"), Some(404));
    assert_eq!(probe(&daemon, "/livez"), Some(200));
}
