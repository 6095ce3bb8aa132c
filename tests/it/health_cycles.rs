//! Services that depend on each other, and dependencies of every kind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::moody::{Moody, health, status_of, wait_for_status};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, pause, shared_machine, wait_until};

/// `orders` and `payments`, which need each other.
struct Pair {
    apps: [Moody; 2],
    ports: Vec<u16>,
    tree: Tree,
}

impl Pair {
    fn new(check: &str) -> Self {
        let apps = [(); 2].map(|()| Moody::start(200));
        let ports = free_ports(2);
        let text = |index: usize, other: &str| {
            format!(
                "port: {}\nupstream: {}\nhealthCheck: {{path: /well, interval: 300ms}}\n\
                 auth: {{strategy: none}}\ndependencies:\n  \
                 - {{name: {other}, required: true{check}}}\n",
                ports[index],
                apps[index].port()
            )
        };
        let tree = Tree::with(&[
            ("shop/orders", &text(0, "payments")),
            ("shop/payments", &text(1, "orders")),
        ]);
        Self { apps, ports, tree }
    }

    fn statuses(&self) -> [String; 2] {
        [status_of(self.ports[0]), status_of(self.ports[1])]
    }

    #[track_caller]
    fn wait_for(&self, orders: &str, payments: &str) {
        wait_until(&format!("{orders}, {payments}"), SOON, || {
            self.statuses() == [orders, payments]
        });
    }

    /// Both well, for a while, with no more questions than the times allow.
    #[track_caller]
    fn rests(&self) {
        let (began, before) = (Instant::now(), self.apps.each_ref().map(Moody::probes));
        holds_for("both are healthy", Duration::from_secs(2), || {
            self.statuses() == ["healthy", "healthy"]
        });
        let most = began.elapsed().as_secs_f64() / 0.27 + 2.0;
        for (app, before) in self.apps.iter().zip(before) {
            let asked = app.probes() - before;
            assert!(
                (asked as f64) <= most,
                "{asked} > {most}: somebody recurses"
            );
        }
    }
}

/// Each way to write it must ask for the other's own state only.
#[test]
fn two_that_need_each_other_in_one_process() {
    let _machine = shared_machine();
    for check in [
        "",
        ", healthCheck: {interval: 200ms}",
        ", healthCheck: /health",
        ", healthCheck: true",
    ] {
        let pair = Pair::new(check);
        let _daemon = Setup::new(&pair.tree).start();
        pair.wait_for("healthy", "healthy");
        if check == ", healthCheck: {interval: 200ms}" {
            pair.rests();
            // Either dies, and comes back.
            for dead in [0, 1] {
                pair.apps[dead].becomes(500);
                pair.wait_for("unhealthy", "unhealthy");
                let living = health(pair.ports[1 - dead]).1;
                assert_eq!(living["checks"]["http"], true);
                let own = Request::get("/health?scope=self").send(pair.ports[1 - dead]);
                assert_eq!(own.status, 200, "the living one is well itself");
                let own = Request::get("/health?scope=self").send(pair.ports[dead]);
                assert_eq!(own.status, 503);
                pair.apps[dead].becomes(200);
                pair.wait_for("healthy", "healthy");
            }
            pair.rests();
        }
    }
}

#[test]
fn two_that_need_each_other_in_two_processes() {
    let _machine = shared_machine();
    let pair = Pair::new(", healthCheck: {interval: 200ms}");
    let start = |name: &str| -> (Daemon, Tree) {
        let tree = Tree::new();
        for service in ["shop/orders", "shop/payments"] {
            tree.write(service, std::fs::read(pair.tree.file(service)).unwrap());
        }
        let daemon = Setup::new(&tree)
            .env("SERVICES", name)
            .process("shutdown: {accept: 3s, deadline: 4s}")
            .start();
        (daemon, tree)
    };
    let (mut orders, _tree) = start("orders");
    let ready = Request::get("/readyz").status(orders.observe);
    // Nobody waits for the other to start.
    wait_until("ready without its peer", SOON, || {
        Request::get("/readyz").status(orders.observe) == Some(200)
    });
    assert!(ready.is_some());
    wait_until("the peer is missed", SOON, || {
        health(pair.ports[0]).1["message"] == "payments is down"
    });
    let (payments, _other) = start("payments");
    pair.wait_for("healthy", "healthy");
    pair.rests();
    // A sidecar dies: its service is not there any more.
    drop(payments);
    wait_for_status(pair.ports[0], "unhealthy");
    assert_eq!(
        health(pair.ports[0]).1["checks"],
        json!({"http": true, "dependencies": {"payments": false}})
    );
    let (payments, _another) = start("payments");
    pair.wait_for("healthy", "healthy");
    // A sidecar that drains is stopped, and so not there for others.
    orders.signal("TERM");
    wait_for_status(pair.ports[1], "unhealthy");
    assert!(orders.wait_for_exit(SOON).0.success());
    // What was asked is no error to tell of; what turned is.
    let told = payments.output();
    assert!(!told.contains("\"path\":\"/health\""), "{told}");
    drop(payments);
}

#[test]
fn without_a_sidecar_its_own_check_is_asked() {
    let _machine = shared_machine();
    let (app, plain, strict) = (Moody::start(200), Moody::start(404), Moody::start(404));
    let port = free_ports(1)[0];
    let check = "interval: 200ms, unhealthyThreshold: 1, healthyThreshold: 1";
    let file = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n\
         dependencies:\n  \
         - {{name: plain, address: \"http://localhost:{}\", healthCheck: {{{check}}}}}\n  \
         - {{name: strict, address: \"127.0.0.1:{}\", healthCheck: {{path: /well, {check}}}}}\n  \
         - {{name: unwatched, address: \"127.0.0.1:1\", healthCheck: false, required: true}}\n",
        app.port(),
        plain.port(),
        strict.port()
    );
    let tree = Tree::with(&[("shop/orders", &file)]);
    let daemon = Setup::new(&tree).start();
    let checks = |plain: bool, strict: bool| {
        let expected = json!({"http": true, "dependencies": {"plain": plain, "strict": strict}});
        wait_until(&format!("{expected}"), SOON, || {
            health(port).1["checks"] == expected
        });
    };
    checks(true, false);
    strict.becomes(200);
    plain.becomes(500);
    checks(false, true);
    plain.becomes(200);
    checks(true, true);
    assert_eq!(status_of(port), "healthy");
    // They are called as they are addressed, and by nobody else's name.
    let asked = plain.app.last();
    assert_eq!(asked.target, "/health");
    assert_eq!(
        asked.header("host"),
        Some(format!("localhost:{}", plain.port()).as_str())
    );
    assert_eq!(strict.app.last().target, "/well");
    assert_eq!(app.app.count(), 0);
    let metrics = daemon.metrics();
    for name in ["plain", "strict"] {
        let labels = [("target", name), ("kind", "dependency")];
        assert_eq!(metrics.sum("outrigger_health_status", &labels), Some(1.0));
        daemon.wait_for_line(&["is up", name, "shop/orders"]);
    }
}

#[test]
fn one_good_address_of_several_is_enough() {
    let _machine = shared_machine();
    let ports = free_ports(3);
    let (silent, well) = (App::start(scripts::silent), Moody::start(200));
    let file = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n\
         dependencies:\n  - {{name: many, required: true, healthCheck: {{path: /, interval: 400ms}}, \
         address: [\"127.0.0.1:{}\", \"127.0.0.1:{}\", \"127.0.0.1:{}\"]}}\n",
        ports[0],
        ports[1],
        ports[2],
        silent.port(),
        well.port()
    );
    let tree = Tree::with(&[("shop/orders", &file)]);
    let _daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "healthy");
    let before = silent.count();
    holds_for("healthy", Duration::from_secs(2), || {
        status_of(ports[0]) == "healthy"
    });
    assert!(silent.count() <= before + 1, "the good one is asked first");
    well.becomes(500);
    wait_for_status(ports[0], "unhealthy");
}

/// Not all of very many are asked at once, but none is left out for ever.
#[test]
fn one_good_address_of_very_many_is_found() {
    let _machine = shared_machine();
    let (ports, well) = (free_ports(22), Moody::start(200));
    let gone = ports[2..]
        .iter()
        .map(|port| format!("\"127.0.0.1:{port}\""));
    let mut addresses: Vec<String> = gone.collect();
    addresses.push(format!("\"127.0.0.1:{}\"", well.port()));
    let file = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n\
         dependencies:\n  - {{name: many, required: true, address: [{}], \
         healthCheck: {{path: /, interval: 100ms}}}}\n",
        ports[0],
        ports[1],
        addresses.join(", ")
    );
    let tree = Tree::with(&[("shop/orders", &file)]);
    let _daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "healthy");
    holds_for("healthy", Duration::from_secs(1), || {
        status_of(ports[0]) == "healthy"
    });
}

#[test]
fn calls_that_fail_bring_the_looks_on() {
    let _machine = shared_machine();
    let ports = free_ports(3);
    let file = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n\
         dependencies:\n  - {{name: far, required: true, address: \"127.0.0.1:{}\", \
         localPort: {}, healthCheck: {{path: /, interval: 60s}}, breaker: false}}\n",
        ports[0],
        free_ports(1)[0],
        ports[1],
        ports[2]
    );
    let tree = Tree::with(&[("shop/orders", &file)]);
    let app = App::start_on(ports[1], scripts::ok);
    let _daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "healthy");
    drop(app);
    wait_until("known long before the next look", SOON, || {
        assert_eq!(Request::get("/").status(ports[2]), Some(502));
        pause(Duration::from_millis(50));
        status_of(ports[0]) == "unhealthy"
    });
    // Other services are not kept from being called.
    let _app = App::start_on(ports[1], scripts::ok);
    assert_eq!(Request::get("/").status(ports[2]), Some(200));
    wait_for_status(ports[0], "healthy");
}
