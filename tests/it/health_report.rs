//! `/health` and `/health/services` on the ports (SPEC §5).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::isolation::{PUBLIC_ADDRESS, Wrapper, run_test_within};
use crate::support::load::{Load, Plain};
use crate::support::moody::{Moody, QUICK, SILENT, health, status_of, wait_for_status};
use crate::support::ports::{free_port, free_ports};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_for, wait_until};

/// `orders` needs `users` and can do without `payments`.
struct Shop {
    apps: [Moody; 3],
    /// Of orders, users and payments.
    ports: Vec<u16>,
    tree: Tree,
}

const QUICK_TIMES: &str =
    "healthCheck: {interval: 100ms, unhealthyThreshold: 1, healthyThreshold: 1}";

impl Shop {
    fn new(more: &str) -> Self {
        let apps = [(); 3].map(|()| Moody::start(200));
        let ports = free_ports(3);
        let simple = |index: usize| {
            format!(
                "port: {}\nupstream: {}\nhealthCheck: {QUICK}\nauth: {{strategy: none}}\n",
                ports[index],
                apps[index].port()
            )
        };
        let orders = format!(
            "{}version: 1.2.0\nhealth: {{services: true{more}}}\ndependencies:\n  \
             - {{name: users, required: true, {QUICK_TIMES}}}\n  - {{name: payments, {QUICK_TIMES}}}\n",
            simple(0)
        );
        let tree = Tree::with(&[
            ("shop/orders", &orders),
            ("shop/users", &simple(1)),
            ("shop/payments", &simple(2)),
        ]);
        Self { apps, ports, tree }
    }

    fn orders(&self) -> u16 {
        self.ports[0]
    }
}

/// The members of a document, and of its checks.
fn members(document: &Value) -> Vec<&str> {
    let object = document.as_object().expect("an object");
    let mut members: Vec<&str> = object.keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

#[test]
fn every_combination_is_told_with_its_status_and_shape() {
    let _machine = shared_machine();
    let shop = Shop::new("");
    let _daemon = Setup::new(&shop.tree).start();
    for combination in 0..8_u8 {
        let up = [0, 1, 2].map(|bit| combination & (1 << bit) == 0);
        for (app, up) in shop.apps.iter().zip(up) {
            app.becomes(if up { 200 } else { 500 });
        }
        let (word, status) = match up {
            [true, true, true] => ("healthy", 200),
            [true, true, false] => ("degraded", 202),
            _ => ("unhealthy", 503),
        };
        let checks = json!({"http": up[0], "dependencies": {"users": up[1], "payments": up[2]}});
        wait_until(&format!("{checks} is seen"), SOON, || {
            health(shop.orders()).1["checks"] == checks
        });
        let (found, document) = health(shop.orders());
        assert_eq!((found, &document["status"]), (status, &json!(word)));
        let mut expected = vec![
            "checks",
            "domain",
            "port",
            "responseTime",
            "service",
            "status",
            "timestamp",
            "version",
        ];
        if word != "healthy" {
            expected.insert(2, "message");
        }
        assert_eq!(members(&document), expected);
        assert_eq!(document["service"], "orders");
        assert_eq!(document["domain"], "shop");
        assert_eq!(document["port"], shop.orders());
        assert_eq!(document["version"], "1.2.0");
        assert!(document["responseTime"].is_u64());
        let own = Request::get("/health?scope=self").send(shop.orders());
        assert_eq!(own.status, if up[0] { 200 } else { 503 });
        assert_eq!(
            own.json()["checks"],
            json!({"http": up[0], "dependencies": {}})
        );
    }
}

#[test]
fn a_drain_is_told_and_liveness_stays() {
    let _machine = shared_machine();
    let shop = Shop::new("");
    let mut daemon = Setup::new(&shop.tree)
        .process("shutdown: {accept: 4s, deadline: 10s}")
        .start();
    wait_for_status(shop.orders(), "healthy");
    daemon.signal("TERM");
    wait_for_status(shop.orders(), "stopped");
    let (status, document) = health(shop.orders());
    assert_eq!(status, 503);
    // What it needs is in the same process, and may have been seen to leave.
    let message = document["message"].as_str().unwrap();
    assert!(message.starts_with("draining"), "{message}");
    assert_eq!(
        Request::get("/health?scope=self")
            .send(shop.orders())
            .status,
        503,
        "what other sidecars see"
    );
    let all = Request::get("/health/services").send(shop.orders());
    assert_eq!(all.status, 503);
    let all = all.json();
    assert_eq!(all["unhealthy"], 3, "stopped counts as unhealthy: {all}");
    assert_eq!(all["services"][1]["status"], "stopped");
    assert_eq!(daemon.admin_get("/health/services").status, 503);
    // Its app does not matter either.
    shop.apps[0].becomes(500);
    for _ in 0..20 {
        assert_eq!(Request::get("/livez").status(daemon.observe), Some(200));
        pause(Duration::from_millis(20));
    }
    let ready = Request::get("/readyz").send(daemon.observe);
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["pending"], json!(["draining"]));
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_status_of_degraded_can_be_chosen_and_the_path_too() {
    let _machine = shared_machine();
    let shop = Shop::new(", degradedStatus: 299, path: /healthz");
    shop.apps[2].becomes(404);
    let _daemon = Setup::new(&shop.tree).start();
    wait_until("degraded", SOON, || {
        Request::get("/healthz").status(shop.orders()) == Some(299)
    });
    // The page of all keeps its own.
    assert_eq!(
        Request::get("/health/services").status(shop.orders()),
        Some(503)
    );
    // What is not the path is the app's.
    let (count, other) = (
        shop.apps[0].app.count(),
        Request::get("/health").send(shop.orders()),
    );
    assert_eq!(other.status, 200);
    assert!(shop.apps[0].app.count() > count);
}

const AGGREGATE: [&str; 6] = [
    "degraded",
    "healthy",
    "services",
    "timestamp",
    "totalServices",
    "unhealthy",
];

#[test]
fn before_the_first_round_nothing_counts_as_healthy() {
    let _machine = shared_machine();
    let app = Moody::start(SILENT);
    let port = free_port();
    let file = format!(
        "port: {port}\nupstream: {}\nhealthCheck: {{interval: 60s, timeout: 60s}}\n\
         auth: {{strategy: none}}\nhealth: {{services: true}}\n",
        app.port()
    );
    let tree = Tree::with(&[("shop/cart", &file)]);
    let daemon = Setup::new(&tree).start();
    let (status, document) = health(port);
    assert_eq!((status, &document["status"]), (503, &json!("unhealthy")));
    assert_eq!(document["message"], "the app is not checked yet");
    for all in [
        Request::get("/health/services").send(port),
        daemon.admin_get("/health/services"),
    ] {
        assert_eq!(all.status, 503);
        let document = all.json();
        assert_eq!(members(&document), AGGREGATE);
        assert_eq!(document["totalServices"], 1);
        assert_eq!(document["unhealthy"], 1);
    }
    // Nor is there a number that says anything yet.
    let status = daemon.metrics().sum("outrigger_health_status", &[]);
    assert_eq!(status, None);
    app.becomes(200);
    app.app.cut_connections();
    wait_for_status(port, "healthy");
}

#[test]
fn all_services_in_one_page() {
    let _machine = shared_machine();
    let shop = Shop::new("");
    shop.tree.write(
        "shop/broken",
        format!("port: {}\nupstream: [\n", free_port()),
    );
    let daemon = Setup::new(&shop.tree).start();
    let both = |shop: &Shop, daemon: &Daemon| {
        // Between two looks at it a state may change.
        let ((public, admin), _) = wait_for("both doors say the same", SOON, || {
            let public = Request::get("/health/services").send(shop.orders());
            let admin = daemon.admin_get("/health/services");
            (public.status == admin.status).then_some((public, admin))
        });
        assert_eq!(members(&public.json()), members(&admin.json()));
        (public.status, public.json())
    };
    let (_, document) = both(&shop, &daemon);
    assert_eq!(members(&document), AGGREGATE);
    // Down, all of them.
    for app in &shop.apps {
        app.becomes(503);
        app.app.cut_connections();
    }
    wait_until("all are down", SOON, || {
        let document = both(&shop, &daemon).1;
        document["healthy"] == 0
            && document["services"][1]["message"].as_str()
                == Some("the app is down; users is down; payments is down")
    });
    let (status, document) = both(&shop, &daemon);
    assert_eq!((status, &document["healthy"]), (503, &json!(0)));
    // Up; the one without a good version is not.
    for app in &shop.apps {
        app.becomes(200);
    }
    wait_until("three are up", SOON, || {
        both(&shop, &daemon).1["healthy"] == 3
    });
    let (status, document) = both(&shop, &daemon);
    assert_eq!(
        (status, &document["totalServices"], &document["unhealthy"]),
        (503, &json!(4), &json!(1)),
        "{document}"
    );
    assert_eq!(
        document["services"][0]["message"],
        "there is no good configuration"
    );
    shop.tree.remove("shop/broken");
    daemon.admin_post("/reload?confirm=removals", "");
    wait_until("all are up", SOON, || both(&shop, &daemon).0 == 200);
    // One is degraded.
    shop.apps[2].becomes(500);
    wait_until("payments is down", SOON, || both(&shop, &daemon).0 == 503);
    // Only with the key; elsewhere the path is the app's.
    assert_eq!(
        Request::get("/health/services").send(shop.ports[1]).status,
        200
    );
}

#[test]
fn asking_for_health_costs_the_app_nothing() {
    let _machine = shared_machine();
    let app = Moody::start(200);
    let port = free_port();
    let file = format!(
        "port: {port}\nupstream: {}\nhealthCheck: {{path: /well, interval: 1s}}\n\
         auth: {{apiKey: {{keys: [{{id: web, key: {}}}]}}}}\nhealth: {{services: true}}\n",
        app.port(),
        crate::support::files::key(1),
    );
    let tree = Tree::with(&[("shop/cart", &file)]);
    let _daemon = Setup::new(&tree).start();
    wait_for_status(port, "healthy");
    let (began, before) = (Instant::now(), app.app.count());
    let loads = ["/health", "/health?scope=self", "/health/services"]
        .map(|path| Load::start(port, 2, Duration::ZERO, Plain(Request::get(path))));
    pause(Duration::from_secs(3));
    let reports = loads.map(Load::stop);
    let asked: u64 = reports.iter().map(|report| report.requests).sum();
    assert!(
        reports.iter().all(|report| report.failures == 0),
        "{reports:?}"
    );
    let most = began.elapsed().as_secs_f64() / 0.9 + 2.0;
    let seen = app.app.count() - before;
    assert!((seen as f64) <= most, "{seen} > {most}");
    assert_eq!(app.app.count(), app.probes(), "every one a monitor's");
    assert!(asked > 1000, "{asked}");
    println!("{asked} requests for health in 3 s: {seen} reached the app");
}

#[test]
fn strangers_see_no_more_than_the_status() {
    let Some(wrapper) = Wrapper::own_network() else {
        return;
    };
    let _machine = shared_machine();
    run_test_within(&wrapper, "health_report::inside_a_public_network");
}

#[test]
#[ignore = "run by strangers_see_no_more_than_the_status in a network namespace"]
fn inside_a_public_network() {
    let bare = ["service", "status", "timestamp"];
    let all = |port: u16, address: &str, forwarded: bool| {
        let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
        let ask = |path: &str| {
            let mut request = Request::get(path);
            if forwarded {
                request = request.header("X-Forwarded-For", "10.1.2.3");
            }
            request.try_send_to(address).unwrap().json()
        };
        (ask("/health"), ask("/health/services"))
    };
    let strange = |(own, services): &(Value, Value)| {
        assert_eq!(members(own), bare);
        for service in services["services"].as_array().unwrap() {
            assert_eq!(members(service), bare);
        }
        for secret in ["users", "payments", "1.2.0", "message", "checks"] {
            assert!(!own.to_string().contains(secret), "{own}");
        }
    };
    let shop = Shop::new("");
    let daemon = Setup::new(&shop.tree).listen("0.0.0.0").start();
    let port = shop.orders();
    for near in ["127.0.0.1", crate::support::isolation::OTHER_ADDRESS] {
        let (own, services) = all(port, near, false);
        assert!(own["checks"]["dependencies"].is_object(), "{near}: {own}");
        assert!(services["services"][0]["checks"].is_object());
        // Through a proxy it is not known who asks.
        strange(&all(port, near, true));
    }
    strange(&all(port, PUBLIC_ADDRESS, false));
    strange(&all(port, PUBLIC_ADDRESS, true));
    drop(daemon);
    for (details, shown) in [("public", true), ("restricted", false)] {
        let shop = Shop::new(&format!(", details: {details}"));
        let _daemon = Setup::new(&shop.tree).listen("0.0.0.0").start();
        for address in ["127.0.0.1", PUBLIC_ADDRESS] {
            let found = all(shop.orders(), address, false);
            match shown {
                true => assert!(found.0["checks"].is_object()),
                false => strange(&found),
            }
        }
    }
}

#[test]
fn health_needs_no_key_and_one_spelling() {
    let _machine = shared_machine();
    let app = Moody::start(200);
    let port = free_port();
    let file = crate::support::files::guarded(port, app.port());
    let tree = Tree::with(&[("shop/cart", &format!("{file}health: {{services: true}}\n"))]);
    let _daemon = Setup::new(&tree).start();
    assert_eq!(status_of(port), "healthy");
    assert_eq!(Request::get("/health/services").status(port), Some(200));
    let mut client = Client::connect(port).unwrap();
    let head = client.exchange(&Request::new("HEAD", "/health")).unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    for (method, path) in [
        ("GET", "/health/"),
        ("GET", "/Health"),
        ("GET", "/%68ealth"),
        ("POST", "/health"),
        ("GET", "/health/services/"),
    ] {
        assert_eq!(
            Request::new(method, path).status(port),
            Some(401),
            "{method} {path}"
        );
    }
    assert_eq!(app.app.count(), 0);
}
