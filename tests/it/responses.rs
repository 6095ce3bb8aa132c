//! What clients get: the app's responses as they are, and errors of the sidecar
//! that say so.

use std::time::Duration;

use crate::support::app::{App, Next};
use crate::support::client::{Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::files::{guarded, key, open};
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts::{self, Routes};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// What the sidecar adds to every response.
const ADDED: [&str; 1] = ["x-request-id"];

fn house(app: u16, more: &str) -> (u16, Tree, Daemon) {
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &format!("{}{more}", guarded(port, app)))]);
    let daemon = Setup::new(&tree).start();
    (port, tree, daemon)
}

#[test]
fn an_answer_of_the_app_passes_as_it_is() {
    let _machine = shared_machine();
    let answer = "HTTP/1.1 201 Made\r\nServer: app\r\nX-One: a\r\nX-One: b\r\nSet-Cookie: c=d\r\n\
                  Set-Cookie: e=f\r\nVia: 1.1 inner\r\nProxy-Status: inner; error=x\r\n\
                  Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi";
    let app = App::start(scripts::bytes(answer, Next::KeepAlive));
    let (port, _tree, _daemon) = house(app.port(), "");
    let response = Request::get("/").key(&key(1)).send(port);
    assert_eq!(
        (response.status, response.body.as_slice()),
        (201, &b"hi"[..])
    );
    let own = [
        "server",
        "x-one",
        "set-cookie",
        "via",
        "proxy-status",
        "content-length",
        "date",
    ];
    response.assert_only_headers(&[&own[..], &ADDED].concat());
    assert_eq!(response.head.all("x-one").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        response.head.all("set-cookie").collect::<Vec<_>>(),
        ["c=d", "e=f"]
    );
    assert_eq!(response.header("proxy-status"), Some("inner; error=x"));
}

#[track_caller]
fn assert_ours(response: &Response, status: u16, cause: &str) {
    let document = response.json();
    assert_eq!(
        (response.status, response.cause().as_str()),
        (status, cause),
        "{document:#}"
    );
    assert_eq!(
        response.header("content-type"),
        Some("application/problem+json")
    );
    response.assert_only_headers(&[
        "content-type",
        "content-length",
        "cache-control",
        "proxy-status",
        "x-request-id",
        "date",
        "connection",
        "retry-after",
        "www-authenticate",
    ]);
    let token = response.header("proxy-status").unwrap_or_default();
    assert!(token.starts_with("cart.shop; error="), "{token}");
    assert_eq!(document["status"], status);
    assert_eq!(
        document["requestId"].as_str(),
        response.header("x-request-id")
    );
    for member in ["type", "title", "detail", "error"] {
        assert!(
            document[member].is_string(),
            "no `{member}` in {document:#}"
        );
    }
}

#[test]
fn errors_of_the_sidecar_say_so() {
    let _machine = shared_machine();
    let app = App::start(Routes(vec![
        ("/garbage", Box::new(scripts::garbage())),
        ("/nothing", Box::new(scripts::closes_after(0))),
        ("/half-a-head", Box::new(scripts::closes_after(30))),
        ("/endless", Box::new(scripts::endless_headers)),
        ("/slow", Box::new(scripts::slow(Duration::from_secs(60)))),
    ]));
    let upstream = format!(
        "upstream: {{url: \"127.0.0.1:{}\", responseTimeout: 300ms}}\n",
        app.port()
    );
    let port = free_port();
    let text = guarded(port, 1).replace("upstream: 1\n", &upstream);
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree).start();
    let ask = |target: &str| Request::get(target).key(&key(1)).send(port);
    assert_ours(&Request::get("/").send(port), 401, "auth_denied");
    assert_ours(&ask("/garbage"), 502, "upstream_protocol");
    assert_ours(&ask("/nothing"), 502, "upstream_closed");
    assert_ours(&ask("/half-a-head"), 502, "upstream_closed");
    assert_ours(&ask("/endless"), 502, "upstream_protocol");
    assert_ours(&ask("/slow"), 504, "upstream_response_timeout");
    drop(app);
    assert_ours(&ask("/"), 502, "upstream_connect_refused");
    let metrics = daemon.metrics();
    for cause in [
        "auth_denied",
        "upstream_protocol",
        "upstream_closed",
        "upstream_response_timeout",
    ] {
        let labels = [("service", "shop/cart"), ("cause", cause)];
        assert!(
            metrics.count("outrigger_proxy_errors_total", &labels) > 0.0,
            "{cause} is not counted"
        );
    }
    // HEAD has the headers and no body.
    let head = Request::new("HEAD", "/").send(port);
    assert_eq!((head.status, head.body.len()), (401, 0));
}

#[test]
fn a_body_cut_by_the_app_is_cut_for_the_client() {
    let _machine = shared_machine();
    let app = App::start(scripts::half_body_then_reset());
    let (port, _tree, _daemon) = house(app.port(), "");
    let answer = Request::get("/").key(&key(1)).try_send(port);
    assert!(
        matches!(answer, Err(crate::support::message::Unread::Cut(_))),
        "{answer:?}"
    );
}

#[test]
fn what_asks_for_tls_is_never_plain_text() {
    let _machine = shared_machine();
    let (app, ports) = (App::start(scripts::ok), free_ports(3));
    let secure_app = open(ports[2], 1, 1).replace(
        "upstream: 1\n",
        &format!("upstream: \"https://127.0.0.1:{}\"\n", app.port()),
    );
    let secure_port = format!(
        "{}tls: {{cert: cert.pem, key: key.pem}}\n",
        open(ports[1], app.port(), 1)
    );
    let tree = Tree::with(&[
        ("shop/plain", &open(ports[0], app.port(), 1)),
        ("shop/port", &secure_port),
        ("shop/app", &secure_app),
    ]);
    let daemon = Setup::new(&tree).start();
    assert_eq!(Request::get("/").status(ports[0]), Some(200));
    let before = app.count();
    for port in &ports[1..] {
        let status = Request::get("/").status(*port);
        assert!(!matches!(status, Some(200..400)), "{status:?}");
    }
    assert_eq!(app.count(), before, "the app was reached in plain text");
    // Nor does a change take TLS away from what is asked for.
    tree.replace(
        "shop/plain",
        open(ports[0], app.port(), 1) + "tls: {cert: c, key: k}\n",
    );
    wait_until("the change is noticed", SOON, || {
        daemon.service("shop/plain")["state"] != "serving"
    });
}
