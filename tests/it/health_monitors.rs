//! What counts as up, and how soon a change is known (SPEC §5).

use std::time::{Duration, Instant};

use crate::protocol::grpc_app::GrpcApp;
use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::load::{Load, Plain};
use crate::support::moody::{Moody, SILENT, health, status_of, wait_for_status};
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, pause, shared_machine, wait_until, whole_machine};

fn file(port: u16, app: u16, check: &str) -> String {
    format!("port: {port}\nupstream: {app}\nauth: {{strategy: none}}\n{check}\n")
}

/// One service in front of an app.
struct One {
    app: Moody,
    port: u16,
    tree: Tree,
    daemon: Daemon,
}

impl One {
    fn start(app: Moody, check: &str) -> Self {
        let port = free_port();
        let tree = Tree::with(&[("shop/cart", &file(port, app.port(), check))]);
        let daemon = Setup::new(&tree).start();
        Self {
            app,
            port,
            tree,
            daemon,
        }
    }

    /// Lines that tell of a change of the app.
    fn lines(&self, word: &str) -> usize {
        let output = self.daemon.output();
        let told = |line: &&str| line.contains(word) && line.contains("shop/cart");
        output.lines().filter(told).count()
    }

    fn gauge(&self) -> Option<f64> {
        let labels = [("target", "shop/cart"), ("kind", "app")];
        self.daemon
            .metrics()
            .sum("outrigger_health_status", &labels)
    }
}

#[test]
fn the_status_decides_and_nothing_else() {
    let _machine = shared_machine();
    let html = ("text/html", "<h1>it works</h1>");
    let json = ("application/json", "{\"status\":\"healthy\"}");
    for (check, status, (kind, body), up) in [
        // Not written: what is below 500 is up, an app without the route too.
        ("", 200, json, true),
        ("", 404, html, true),
        ("", 401, json, true),
        ("", 500, html, false),
        ("", 503, json, false),
        // Written: it must be good.
        ("healthCheck: /status", 200, html, true),
        ("healthCheck: /status", 204, ("text/plain", ""), true),
        ("healthCheck: /status", 302, html, true),
        ("healthCheck: /status", 404, html, false),
        ("healthCheck: /status", 503, json, false),
        // Off.
        ("healthCheck: false", 500, html, true),
    ] {
        let one = One::start(Moody::saying(status, kind, body), check);
        let expected = if up { "healthy" } else { "unhealthy" };
        wait_until(&format!("{check} {status} is {expected}"), SOON, || {
            let (_, document) = health(one.port);
            document["status"] == expected && document["message"] != "the app is not checked yet"
        });
        // Whatever it says, requests reach the app.
        assert_eq!(
            Request::get("/any").status(one.port),
            Some(status),
            "{check}"
        );
        if check == "healthCheck: false" {
            assert_eq!((one.app.probes(), one.gauge()), (0, None));
        } else {
            let target = if check.is_empty() {
                "/health"
            } else {
                "/status"
            };
            let asked = one.app.app.take();
            assert_eq!(asked[0].target, target);
            assert_eq!(one.gauge(), Some(f64::from(u8::from(up))));
        }
    }
}

#[test]
fn an_app_that_is_not_there_is_down() {
    let _machine = shared_machine();
    let ports = free_ports(2);
    let tree = Tree::with(&[("shop/cart", &file(ports[0], ports[1], ""))]);
    let daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "unhealthy");
    daemon.wait_for_line(&["is down", "shop/cart", "ConnectRefused"]);
    let _app = App::start_on(ports[1], scripts::ok);
    wait_for_status(ports[0], "healthy");
}

#[test]
fn a_grpc_app_is_asked_by_its_protocol() {
    let _machine = shared_machine();
    let app = GrpcApp::start();
    let port = free_port();
    let check = "healthCheck: {path: grpc, interval: 200ms}";
    let tree = Tree::with(&[("shop/cart", &file(port, app.port, check))]);
    let _daemon = Setup::new(&tree).start();
    wait_for_status(port, "healthy");
    app.serves(false);
    wait_for_status(port, "unhealthy");
    app.serves(true);
    wait_for_status(port, "healthy");
    // An app that speaks something else is none.
    let one = One::start(Moody::start(200), check);
    wait_until("it was looked at", SOON, || {
        health(one.port).1["message"] == "the app is down"
    });
    let metadata = app.seen.last();
    assert_eq!(
        metadata.get("user-agent").unwrap().as_bytes()[..10],
        *b"outrigger/"
    );
}

#[test]
fn a_change_is_known_within_its_time_and_told_once() {
    let _machine = whole_machine();
    let one = One::start(
        Moody::start(200),
        "healthCheck: {interval: 1s, timeout: 500ms}",
    );
    wait_for_status(one.port, "healthy");
    one.daemon.wait_for_line(&["is up", "shop/cart"]);
    assert_eq!((one.gauge(), one.lines("is up")), (Some(1.0), 1));
    // (threshold + 1) × interval + timeout, with some for a busy machine.
    let bound = |threshold: u32| Duration::from_millis(u64::from(threshold + 1) * 1000 + 500 + 300);
    let (mut longest, mut turns) = (Duration::ZERO, 0);
    for round in 1..=2 {
        for (how, threshold, word) in [
            (500, 3, "is down"),
            (200, 2, "is up"),
            (SILENT, 3, "is down"),
            (200, 2, "is up"),
        ] {
            one.app.becomes(how);
            if how == 200 {
                one.app.app.cut_connections();
            }
            let status = if how == 200 { "healthy" } else { "unhealthy" };
            let began = Instant::now();
            wait_for_status(one.port, status);
            let took = began.elapsed();
            assert!(took <= bound(threshold), "{how}: {took:?}");
            longest = longest.max(took);
            assert_eq!(one.gauge(), Some(f64::from(u8::from(how == 200))));
            turns += 1;
            wait_until("the change is told", SOON, || {
                one.lines("is down") + one.lines("is up") > turns
            });
            one.daemon.wait_for_line(&[word, "shop/cart"]);
        }
        // It stays down for several looks; the line comes once for each change.
        assert_eq!(
            (one.lines("is down"), one.lines("is up")),
            (2 * round, 2 * round + 1)
        );
    }
    figure!("a change was known after {longest:.2?} at most (interval 1 s, thresholds 3 and 2)");
}

#[test]
fn one_bad_answer_changes_nothing() {
    let _machine = shared_machine();
    let one = One::start(Moody::start(200), "healthCheck: {interval: 500ms}");
    wait_for_status(one.port, "healthy");
    let probes = one.app.probes();
    one.app.becomes(500);
    wait_until("one look more", SOON, || one.app.probes() > probes);
    one.app.becomes(200);
    holds_for("still healthy", Duration::from_secs(2), || {
        status_of(one.port) == "healthy"
    });
    assert_eq!(one.lines("is down"), 0);
}

#[test]
fn requests_that_fail_bring_the_looks_on() {
    let _machine = shared_machine();
    let ports = free_ports(2);
    let check = "healthCheck: {interval: 60s}";
    let tree = Tree::with(&[("shop/cart", &file(ports[0], ports[1], check))]);
    let app = App::start_on(ports[1], scripts::ok);
    let daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "healthy");
    drop(app);
    let load = Load::start(
        ports[0],
        1,
        Duration::from_millis(50),
        Plain(Request::get("/")),
    );
    wait_for_status(ports[0], "unhealthy");
    let report = load.stop();
    assert!(
        report.failures > 0,
        "monitors never stop traffic: {report:?}"
    );
    // Looks alone would come after a minute.
    let _app = App::start_on(ports[1], scripts::ok);
    wait_for_status(ports[0], "healthy");
    drop(daemon);
}

#[test]
fn a_broken_route_does_not_bring_the_app_down() {
    let _machine = shared_machine();
    let app = App::start(scripts::Routes(vec![(
        "/broken",
        Box::new(scripts::closes_after(0)),
    )]));
    let port = free_port();
    let check = "healthCheck: {interval: 200ms, unhealthyThreshold: 1}";
    let tree = Tree::with(&[("shop/cart", &file(port, app.port(), check))]);
    let _daemon = Setup::new(&tree).start();
    wait_for_status(port, "healthy");
    holds_for("still healthy", Duration::from_secs(3), || {
        Request::get("/broken").status(port) == Some(502) && status_of(port) == "healthy"
    });
}

#[test]
fn a_monitor_that_stands_still_goes_stale() {
    let _machine = shared_machine();
    // A look takes half an interval, so half is left to stand still in.
    let look = Duration::from_millis(250);
    let app = App::start(scripts::slow(look));
    let port = free_port();
    let check = "healthCheck: {interval: 500ms, timeout: 2s}";
    let tree = Tree::with(&[("shop/cart", &file(port, app.port(), check))]);
    let daemon = Setup::new(&tree).start();
    let mut seen = false;
    for _ in 0..10 {
        wait_for_status(port, "healthy");
        let asked = app.count();
        wait_until("the next look began", SOON, || app.count() > asked);
        // The whole process stands still in the middle of a pause: an answer
        // that came meanwhile would be no old one.
        pause(look + Duration::from_millis(50));
        daemon.signal("STOP");
        pause(Duration::from_millis(1600));
        daemon.signal("CONT");
        let (status, document) = health(port);
        seen = document["message"] == "the app is stale";
        if seen {
            assert_eq!((status, &document["checks"]["http"]), (503, &false.into()));
            break;
        }
    }
    assert!(seen, "an old result was always taken for good");
    wait_for_status(port, "healthy");
}

#[test]
fn a_reload_keeps_monitors_and_what_they_found() {
    let _machine = shared_machine();
    let check = "healthCheck: {interval: 60s}";
    let one = One::start(Moody::start(200), check);
    let other = Moody::start(500);
    let ports = free_ports(2);
    let caller = |more: &str| {
        format!(
            "{}dependencies:\n  - {{name: billing, address: \"127.0.0.1:{}\", required: true, \
             healthCheck: {{path: /, interval: 60s}}{more}}}\n",
            file(ports[0], one.app.port(), check),
            other.port()
        )
    };
    one.tree.write("shop/orders", caller(""));
    one.daemon.reload();
    wait_until("it was looked at", SOON, || {
        health(ports[0]).1["message"] == "billing is down"
    });
    wait_for_status(one.port, "healthy");
    let looks = (one.app.probes(), other.probes());
    // Another version, the same app and dependency: nothing is forgotten and
    // nothing looked at anew.
    for version in 2..5 {
        let more = format!("{check}\nversion: \"{version}\"");
        one.tree
            .write("shop/cart", file(one.port, one.app.port(), &more));
        one.tree.write(
            "shop/orders",
            format!("{}version: \"{version}\"\n", caller("")),
        );
        one.tree.write(
            "shop/third",
            file(free_port(), one.app.port(), "healthCheck: false"),
        );
        one.daemon.reload();
        let (status, document) = health(one.port);
        assert_eq!(
            (status, &document["version"]),
            (200, &format!("{version}").into())
        );
        let (status, document) = health(ports[0]);
        assert_eq!(
            (status, &document["message"]),
            (503, &"billing is down".into())
        );
    }
    assert_eq!(looks.0, one.app.probes(), "of the apps");
    let dependency = other.probes() - looks.1;
    // It is down, so it is looked at every second; none more than that.
    assert!(dependency <= 4, "{dependency}");
    assert_eq!(one.lines("is up"), 1);
    // How it is called changes, not what is watched.
    one.tree.write("shop/orders", caller(", timeout: 7s"));
    one.daemon.reload();
    assert_eq!(health(ports[0]).1["message"], "billing is down");
    let told = one.daemon.output().matches("is down").count();
    assert_eq!(told, 1, "{}", one.daemon.output());
}

#[test]
fn a_check_that_is_changed_is_no_moment_of_doubt() {
    let _machine = shared_machine();
    let app = App::start(scripts::slow(Duration::from_millis(300)));
    let other = App::start(scripts::slow(Duration::from_millis(300)));
    let ports = free_ports(2);
    let text = |timeout: u32, addresses: &str| {
        format!(
            "{}dependencies:\n  - {{name: far, required: true, address: [{addresses}], \
             healthCheck: {{path: /, timeout: {timeout}s}}}}\n",
            file(
                ports[0],
                app.port(),
                &format!("healthCheck: {{path: /, timeout: {timeout}s}}")
            )
        )
    };
    let (one, two) = (
        format!("\"127.0.0.1:{}\"", other.port()),
        format!("\"127.0.0.1:{}\", \"127.0.0.1:{}\"", other.port(), ports[1]),
    );
    let tree = Tree::with(&[("shop/cart", &text(2, &one))]);
    let daemon = Setup::new(&tree).start();
    wait_for_status(ports[0], "healthy");
    let ready = || Request::get("/readyz").status(daemon.observe);
    for (timeout, addresses) in [(3, &one), (4, &one), (4, &two)] {
        let looks = (app.count(), other.count());
        tree.write("shop/cart", text(timeout, addresses));
        daemon.reload();
        wait_until("the changed check was made", SOON, || {
            let (status, document) = health(ports[0]);
            assert_eq!((status, ready()), (200, Some(200)), "{document}");
            other.count() > looks.1 && (addresses == &two || app.count() > looks.0)
        });
    }
    holds_for("still well", Duration::from_millis(600), || {
        status_of(ports[0]) == "healthy" && ready() == Some(200)
    });
    // Nothing turned, so nothing is told.
    assert_eq!(daemon.output().matches("is up").count(), 2);
}

#[test]
fn times_and_thresholds_come_from_the_environment_too() {
    let _machine = shared_machine();
    let app = Moody::start(200);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &file(port, app.port(), ""))]);
    let _daemon = Setup::new(&tree)
        .env("SERVICE_HEALTH_CHECK_INTERVAL", "100")
        .env("SERVICE_HEALTH_CHECK_TIMEOUT", "300")
        .env("SERVICE_UNHEALTHY_THRESHOLD", "5")
        .env("SERVICE_HEALTHY_THRESHOLD", "1")
        .start();
    wait_until("looks come by the interval", SOON, || app.probes() > 10);
    let before = app.probes();
    app.becomes(500);
    wait_for_status(port, "unhealthy");
    assert!(app.probes() - before >= 5);
    app.becomes(200);
    wait_for_status(port, "healthy");
}
