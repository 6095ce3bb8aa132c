//! The doors for calls lead to declared dependencies and nowhere else.

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::files::key;
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

/// Orders calls payments; billing calls payments with another key; a stranger
/// listens who must never be asked.
struct House {
    daemon: Daemon,
    door: u16,
    orders: u16,
    payments: App,
    stranger: App,
}

fn house(services: &[&str]) -> House {
    let payments = App::start(scripts::echo);
    let stranger = App::start(scripts::echo);
    let public = free_ports(2);
    let local = free_ports(2);
    let tree = Tree::new();
    for (index, name) in services.iter().enumerate() {
        let text = format!(
            "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n  - \
             {{name: payments, healthCheck: false, address: \"127.0.0.1:{}\", localPort: {}, credential: {{apiKey: {}}}}}\n",
            public[index],
            stranger.port(),
            payments.port(),
            local[index],
            key(index as u64)
        );
        tree.write(&format!("shop/{name}"), text);
    }
    let door = free_port();
    House {
        daemon: Setup::new(&tree)
            .env("OUTRIGGER_OUTBOUND_LISTEN", &format!("127.0.0.1:{door}"))
            .start(),
        door,
        orders: local[0],
        payments,
        stranger,
    }
}

/// Everything that is not the name of a dependency.
const HOSTS: &[&str] = &[
    "evil.example",
    "unknown",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::]",
    "169.254.169.254",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "10.0.0.1",
    "192.168.0.1",
    "metadata.google.internal",
    "payments.",
    "payments.evil.example",
    "xpayments",
    "payments%00",
    "payments%2eevil",
    "user@payments",
    "user:pass@payments",
    "payments@evil.example",
    "payments:22",
    "payments:5432",
    "payments:99999",
    "payments:",
    "payments:80:80",
    "shop/payments",
    "payments\\evil",
    "orders",
    "orders.shop",
    "payments.other",
];

/// Every way to ask for `host`, and the ports to ask at.
fn attempts(house: &House, host: &str) -> Vec<(Request, u16)> {
    let mut list = Vec::new();
    for target in ["/", "/a?b=c", "//evil.example/"] {
        list.push((Request::get(target).header("Host", host), house.door));
    }
    for scheme in ["http", "https", "ftp", "HTTP", "ws"] {
        let absolute = Request::get(&format!("{scheme}://{host}/"));
        for request in [
            absolute.clone().header("Host", "payments"),
            absolute.clone().header("Host", host),
            absolute
                .header("Host", "x")
                .header("x-outrigger-service", "payments"),
        ] {
            list.push((request.clone(), house.door));
            list.push((request, house.orders));
        }
    }
    if host != "shop/payments" {
        let request = Request::get("/").header("Host", "127.0.0.1");
        list.push((request.header("x-outrigger-service", host), house.door));
    }
    // A port of another makes what the header says no better.
    if host.starts_with("payments:") {
        let request = Request::get("/").header("Host", host);
        list.push((
            request.header("x-outrigger-service", "payments"),
            house.door,
        ));
    }
    for method in ["CONNECT", "TRACE"] {
        for target in [host, "payments", "payments:80"] {
            let request = Request::new(method, target).header("Host", "payments");
            list.push((request.clone(), house.door));
            list.push((request, house.orders));
        }
    }
    list
}

#[test]
fn a_scan_of_the_doors_shows_no_way_out() {
    let _machine = shared_machine();
    let house = house(&["orders"]);
    let other = house.stranger.port();
    let mut scanned = 0;
    for host in HOSTS {
        for host in [(*host).to_owned(), format!("{host}:{other}")] {
            for (request, port) in attempts(&house, &host) {
                assert_refused(&house, &request, port);
                scanned += 1;
            }
        }
    }
    assert_eq!(
        (house.stranger.count(), house.stranger.connections()),
        (0, 0)
    );
    assert_eq!(house.payments.count(), 0, "{:?}", house.payments.take());
    let good = Request::get("/")
        .header("Host", "payments")
        .send(house.door);
    assert_eq!(good.status, 200);
    println!("{scanned} requests refused, none reached anybody");
}

#[track_caller]
fn assert_refused(house: &House, request: &Request, port: u16) {
    let mut client = Client::connect(port).unwrap();
    let method = String::from_utf8_lossy(&request.bytes()).into_owned();
    // What the parser itself refuses may have no body and close.
    let answer = client.exchange(request);
    if let Ok(answer) = answer {
        assert!(
            matches!(answer.status, 400 | 403 | 404 | 405 | 421),
            "{} {}: {method}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(house.payments.count(), 0, "{method}");
}

#[test]
fn each_refusal_has_its_status_and_cause() {
    let _machine = shared_machine();
    let house = house(&["orders"]);
    let get = |host: &str| Request::get("/").header("Host", host);
    for (request, port, status, cause) in [
        (get("unknown"), house.door, 404, "unknown_service"),
        (get("127.0.0.1"), house.door, 404, "unknown_service"),
        (get("localhost"), house.door, 404, "unknown_service"),
        (
            Request::get("http://evil.example/"),
            house.door,
            404,
            "unknown_service",
        ),
        (
            Request::new("CONNECT", "payments:80"),
            house.door,
            405,
            "bad_request",
        ),
        (
            get("payments").header("Origin", "http://evil.example"),
            house.door,
            403,
            "auth_denied",
        ),
        (
            get("payments").header("Origin", "null"),
            house.orders,
            403,
            "auth_denied",
        ),
        (
            get("payments").header("Sec-Fetch-Site", "cross-site"),
            house.door,
            403,
            "auth_denied",
        ),
        (
            get("localhost").header("Sec-Fetch-Site", "same-site"),
            house.orders,
            403,
            "auth_denied",
        ),
        (
            get("rebound.evil.example"),
            house.orders,
            421,
            "bad_request",
        ),
    ] {
        let answer = request.send(port);
        assert_eq!(
            (answer.status, answer.cause().as_str()),
            (status, cause),
            "{request:?}"
        );
    }
    assert_eq!(house.payments.count(), 0);
    for good in ["localhost", "127.0.0.1", "payments", "[::1]"] {
        assert_eq!(get(good).status(house.orders), Some(200), "{good}");
    }
    let errors = house.daemon.metrics().count(
        "outrigger_proxy_errors_total",
        &[("cause", "unknown_service"), ("service", "shop/orders")],
    );
    assert_eq!(errors, 4.0);
}

#[test]
fn nobody_gets_the_credential_of_another() {
    let _machine = shared_machine();
    let house = house(&["billing", "orders"]);
    let keys = |request: &Request, port: u16| {
        request.send(port);
        let seen = house.payments.last();
        seen.head
            .all("x-api-key")
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // Each local port is its service's own.
    assert_eq!(keys(&Request::get("/"), house.orders), [key(0)]);
    // At the shared door nobody can say who calls: no credential.
    for request in [
        Request::get("/").header("Host", "payments"),
        Request::get("http://payments/"),
        Request::get("/")
            .header("Host", "localhost")
            .header("x-outrigger-service", "payments"),
        Request::get("/")
            .header("Host", "payments")
            .header("x-service-name", "orders")
            .header("x-outrigger-caller", "orders"),
    ] {
        assert!(keys(&request, house.door).is_empty(), "{request:?}");
    }
    // Nor is it shown to the app that may use it.
    let traced = Request::new("TRACE", "/").send(house.orders);
    assert_eq!(traced.status, 405);
    let services = house.daemon.admin_get("/services").text();
    assert!(!services.contains(&key(0)) && !house.daemon.output().contains(&key(0)));
}
