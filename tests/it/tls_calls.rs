//! TLS as a client: toward apps, other sidecars, hooks and key sets; and two
//! sidecars that know each other by certificate.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::auth_tokens::seconds;
use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::collector::Collector;
use crate::support::daemon::{Daemon, Setup};
use crate::support::pki::{Authority, Dates, Secure};
use crate::support::ports::free_ports;
use crate::support::runtimes::run;
use crate::support::scripts::{self, Routes};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

const ORDERS: &str = "spiffe://shop/orders";
const SERVER: &str = "tls: {cert: server.pem, key: server.key}\n";

/// A service whose folder has the authority, a server's pair, and a client's
/// pair for `names`.
fn service(tree: &Tree, authority: &Authority, name: &str, names: &[&str], text: &str) {
    let folder = tree.folder(name);
    authority.server().write(&folder, "server");
    authority.issue(names, Dates::Now).write(&folder, "client");
    tree.put(&format!("services/{name}/ca.pem"), authority.pem());
    tree.write(name, text);
}

/// Payments beside its sidecar, which admits orders by its certificate, and
/// callers of several kinds beside another.
struct Shop {
    payments: App,
    _callee: (Tree, Daemon),
    caller: Daemon,
    _tree: Tree,
    /// Local ports of the callers toward payments.
    local: Vec<u16>,
}

fn shop() -> Shop {
    let (payments, app) = (App::start(scripts::echo), App::start(scripts::ok));
    let (authority, stranger) = (Authority::new("shop"), Authority::new("stranger"));
    let ports = free_ports(6);
    let callee = Tree::new();
    let text = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\n\
         tls: {{cert: server.pem, key: server.key, clientCa: ca.pem}}\n\
         auth:\n  strategy: mtls\n  mtls: {{allow: ['{ORDERS}']}}\n  \
         apiKey: {{keys: [{{id: web, key: the-key-of-web-0000000000000}}]}}\n  rules:\n    \
         - {{paths: [/key/**], strategy: api-key}}\n    - {{paths: [/both/**], allOf: [api-key, mtls]}}\n",
        ports[0],
        payments.port()
    );
    service(&callee, &authority, "shop/payments", &["x"], &text);
    let tree = Tree::new();
    let callers = [
        (
            "orders",
            ORDERS,
            "cert: client.pem, key: client.key, ca: ca.pem",
        ),
        (
            "other",
            "spiffe://shop/other",
            "cert: client.pem, key: client.key, ca: ca.pem",
        ),
        ("nobody", "x", "ca: ca.pem"),
        (
            "misled",
            ORDERS,
            "cert: client.pem, key: client.key, ca: ca.pem, serverName: ledger.shop",
        ),
        (
            "fooled",
            ORDERS,
            "cert: client.pem, key: client.key, ca: stranger.pem",
        ),
    ];
    let local = free_ports(5);
    for (index, (name, identity, tls)) in callers.iter().enumerate() {
        let text = format!(
            "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n  \
             - {{name: payments, address: \"https://localhost:{}\", localPort: {}, \
             healthCheck: false, breaker: false, tls: {{{tls}}}}}\n",
            ports[index + 1],
            app.port(),
            ports[0],
            local[index]
        );
        let name = format!("shop/{name}");
        service(&tree, &authority, &name, &[identity], &text);
        tree.put(&format!("services/{name}/stranger.pem"), stranger.pem());
    }
    let daemon = Setup::new(&callee).start();
    Shop {
        payments,
        _callee: (callee, daemon),
        caller: Setup::new(&tree).start(),
        _tree: tree,
        local,
    }
}

#[test]
fn only_the_named_peer_gets_in_and_the_app_sees_who() {
    let _machine = shared_machine();
    let shop = shop();
    let ask = |index: usize, request: Request| request.send(shop.local[index]);
    for _ in 0..3 {
        let answer = ask(0, Request::get("/a").header("x-service-name", "admin"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        for (name, value) in [
            ("x-auth-strategy", "mtls"),
            ("x-auth-subject", ORDERS),
            ("x-service-name", ORDERS),
            ("x-service-call", "true"),
            ("x-forwarded-proto", "https"),
        ] {
            assert_eq!(
                scripts::seen(&answer, name).as_deref(),
                Some(value),
                "{name}"
            );
        }
    }
    // gRPC goes in HTTP/2, agreed on by ALPN.
    let url = format!("http://127.0.0.1:{}/pay.Pay/Do", shop.local[0]);
    let curl = run(
        "curl",
        &[
            "-sS",
            "--http2-prior-knowledge",
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            "--data-binary",
            "x",
            &url,
        ],
    );
    assert!(curl.unwrap().contains(ORDERS));
    let count = shop.payments.count();
    assert_eq!(ask(1, Request::get("/a")).status, 403);
    // A certificate alone is no key, and a key alone no certificate.
    let key = |request: Request| request.key("the-key-of-web-0000000000000");
    assert_eq!(ask(0, Request::get("/key/a")).status, 401);
    assert_eq!(ask(0, Request::get("/both/a")).status, 401);
    assert_eq!(ask(1, key(Request::get("/both/a"))).status, 403);
    for index in [2, 3, 4] {
        let answer = ask(index, Request::get("/a"));
        assert_eq!(answer.status, 502, "{index}: {}", answer.text());
        assert!(answer.header("proxy-status").is_some(), "{index}");
    }
    assert_eq!(shop.payments.count(), count, "payments was reached");
    assert_eq!(ask(1, key(Request::get("/key/a"))).status, 200);
    assert_eq!(ask(0, key(Request::get("/both/a"))).status, 200);
    shop.caller
        .wait_for_line(&["shop/misled", "502", "not valid for name"]);
    shop.caller
        .wait_for_line(&["shop/fooled", "502", "UnknownIssuer"]);
    let expiry = "outrigger_tls_certificate_expiry_timestamp_seconds";
    let labels = [
        ("service", "shop/orders"),
        ("certificate", "dependencies.payments.tls.cert"),
    ];
    assert!(shop.caller.metrics().count(expiry, &labels) > 1e9);
}

const DOWNLOAD: u64 = 20 * 1024 * 1024;

/// An app that switches to a protocol of its own and says everything back.
fn tunnel_app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut bytes = vec![0; 64 * 1024];
                let count = stream.read(&mut bytes).unwrap_or(0);
                let upgrade = String::from_utf8_lossy(&bytes[..count]).contains("websocket");
                let head: &[u8] = match upgrade {
                    true => b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                    false => b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
                };
                let _ = stream.write_all(head);
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..count]);
                }
            });
        }
    });
    port
}

#[test]
fn an_app_under_tls_is_an_app_like_any_other() {
    let _machine = shared_machine();
    let app = App::start(Routes(vec![
        ("/download", Box::new(scripts::download(DOWNLOAD))),
        ("/", Box::new(scripts::echo)),
    ]));
    let (tunnel, authority, ports) = (tunnel_app(), Authority::new("shop"), free_ports(3));
    let tree = Tree::new();
    let open = "healthCheck: false\nauth: {strategy: none}\n";
    // What the front takes for its app under TLS is another port of ours.
    let inner = format!(
        "port: {}\nupstream: {}\n{open}{SERVER}",
        ports[0],
        app.port()
    );
    let echo = format!("port: {}\nupstream: {tunnel}\n{open}{SERVER}", ports[1]);
    // Unoptimised handshakes on a busy machine: nothing of this is about time.
    let tls = "connectTimeout: 5s, tls: {ca: ca.pem}";
    let front = format!(
        "port: {}\nupstream: {{url: \"https://localhost:{}\", {tls}}}\nhealthCheck: /\n\
         auth:\n  strategy: none\n  rules:\n    - {{paths: [/chat], strategy: none, upstream: \
         {{url: \"https://127.0.0.1:{}\", {tls}}}}}\n{SERVER}",
        ports[2], ports[0], ports[1]
    );
    service(&tree, &authority, "shop/inner", &["x"], &inner);
    service(&tree, &authority, "shop/echo", &["x"], &echo);
    service(&tree, &authority, "shop/front", &["x"], &front);
    let _daemon = Setup::new(&tree).start();
    let secure = Secure::new(&[&authority], None);
    let mut client = Client::connect_secure(ports[2], &secure).unwrap();
    // Both ways, larger than every buffer on the way.
    for _ in 0..2 {
        let body = client.exchange(&Request::get("/download")).unwrap().body;
        assert_eq!(body.len() as u64, DOWNLOAD);
        let intact = (0..)
            .zip(&body)
            .all(|(at, byte)| scripts::pattern(at) == *byte);
        assert!(intact, "the download was damaged");
        let sent: String = (0..300_000)
            .map(|n| char::from(b'a' + (n % 26) as u8))
            .collect();
        let answer = client
            .exchange(&Request::post("/echo", sent.clone()))
            .unwrap();
        assert_eq!(answer.json()["body"].as_str(), Some(&*sent));
    }
    // Connections are kept where nothing is wrong with them.
    let before = app.connections();
    for _ in 0..5 {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    assert_eq!(app.connections(), before);
    let upgrade = Request::get("/chat")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    client.send(&upgrade.bytes()).unwrap();
    assert_eq!(client.head().unwrap().0, 101);
    for size in [1, 100, 200_000] {
        let bytes = vec![b'x'; size];
        client.send(&bytes).unwrap();
        assert_eq!(client.exactly(size as u64).unwrap(), bytes);
    }
    // Its monitor speaks TLS, too.
    wait_until("the app is up", SOON, || {
        let answer = Client::connect_secure(ports[2], &secure)
            .map(|mut client| client.exchange(&Request::get("/health")).unwrap());
        answer.is_ok_and(|answer| answer.json()["checks"]["http"] == true)
    });
}

#[test]
fn spans_of_calls_under_tls_name_who_was_asked() {
    let _machine = shared_machine();
    let (app, collector) = (App::start(scripts::ok), Collector::start());
    let (tree, authority, ports) = (Tree::new(), Authority::new("shop"), free_ports(4));
    let at = |port: u16, more: &str| {
        let app = app.port();
        format!("port: {port}\nupstream: {app}\nhealthCheck: false\n{more}")
    };
    let server = at(ports[0], &format!("auth: {{strategy: none}}\n{SERVER}"));
    service(&tree, &authority, "shop/server", &["x"], &server);
    let url = format!("https://localhost:{}", ports[0]);
    // The first address is not there.
    let front = format!(
        "auth: {{hook: {{url: \"{url}/check\", timeout: 5s, tls: {{ca: ca.pem}}}}}}\n\
         tracing: true\ndependencies:\n  - {{name: far, localPort: {}, healthCheck: false, \
         address: [\"http://127.0.0.1:{}\", \"{url}\"], tls: {{ca: ca.pem}}}}\n",
        ports[2], ports[3]
    );
    let front = at(ports[1], &front);
    service(&tree, &authority, "shop/front", &["x"], &front);
    let _daemon = Setup::new(&tree).process(&collector.settings("")).start();
    for port in [ports[1], ports[2], ports[2], ports[2], ports[2]] {
        assert_eq!(Request::get("/x").status(port), Some(200));
    }
    let spans = collector.take(6);
    for span in spans.iter().filter(|span| !span.is_server()) {
        let path = match span.get("peer.service") {
            "" => "/check",
            _ => "/x",
        };
        assert_eq!(span.get("url.full"), format!("{url}{path}"), "{span:?}");
        assert_eq!(span.get("server.address"), "localhost");
        assert_eq!(span.get("server.port"), ports[0].to_string());
        assert_eq!(span.get("network.peer.port"), ports[0].to_string());
    }
}

fn signing_key() -> EncodingKey {
    let pem = include_str!("../../src/auth/tests/keys/ec-P-256.pem");
    EncodingKey::from_ec_pem(pem.as_bytes()).unwrap()
}

fn key_set(_: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    let mut jwk = Jwk::from_encoding_key(&signing_key(), Algorithm::ES256).unwrap();
    jwk.common.key_id = Some("one".to_owned());
    let body = json!({ "keys": [jwk] }).to_string();
    stream.respond(200, "Content-Type: application/json\r\n", body.as_bytes())?;
    Ok(Next::KeepAlive)
}

#[test]
fn hooks_and_key_sets_are_asked_under_tls() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let asked = App::start(Routes(vec![
        ("/jwks", Box::new(key_set)),
        ("/", Box::new(scripts::ok)),
    ]));
    let (authority, stranger) = (Authority::new("shop"), Authority::new("stranger"));
    let (tree, ports) = (Tree::new(), free_ports(4));
    let server = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n{SERVER}",
        ports[0],
        asked.port()
    );
    service(&tree, &authority, "shop/server", &["x"], &server);
    let url = format!("https://localhost:{}", ports[0]);
    let with = |port: u16, auth: &str| {
        format!(
            "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  {auth}\n",
            app.port()
        )
    };
    let hook = |ca: &str| format!("hook: {{url: \"{url}/auth\", timeout: 5s, tls: {{ca: {ca}}}}}");
    let jwt = format!(
        "jwt: {{jwks: {{url: \"{url}/jwks\", ca: ca.pem}}, issuer: us, algorithms: [ES256]}}"
    );
    service(
        &tree,
        &authority,
        "shop/hooked",
        &["x"],
        &with(ports[1], &hook("ca.pem")),
    );
    service(
        &tree,
        &authority,
        "shop/fooled",
        &["x"],
        &with(ports[2], &hook("stranger.pem")),
    );
    tree.put("services/shop/fooled/stranger.pem", stranger.pem());
    service(
        &tree,
        &authority,
        "shop/tokens",
        &["x"],
        &with(ports[3], &jwt),
    );
    let _daemon = Setup::new(&tree).start();
    assert_eq!(Request::get("/").send(ports[1]).status, 200);
    let questions = asked.take();
    assert!(questions.iter().any(|one| one.target == "/auth"));
    assert_eq!(Request::get("/").send(ports[2]).status, 503);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("one".to_owned());
    let claims = json!({"sub": "ann", "iss": "us", "exp": seconds() + 600});
    let token = jsonwebtoken::encode(&header, &claims, &signing_key()).unwrap();
    let request = Request::get("/").header("Authorization", &format!("Bearer {token}"));
    wait_until("the key set is there", SOON, || {
        request.status(ports[3]) == Some(200)
    });
}
