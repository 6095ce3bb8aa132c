//! Keys and tokens through the public port.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::client::{Request, Response};
use crate::support::daemon::{Daemon, Setup, run_to_end};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "the-key-of-web-0000000000000";
const ORDERS_KEY: &str = "the-key-of-orders-0000000000";

pub(crate) fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_secs()
}

fn token(claims: &Value) -> String {
    let mut all = json!({"sub": "ann", "exp": seconds() + 600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &all, &key).unwrap()
}

fn bearer(request: Request, credential: &str) -> Request {
    request.header("Authorization", &format!("Bearer {credential}"))
}

/// A service with both strategies' blocks and this `auth` beside them.
fn service(port: u16, app: &App, auth: &str) -> String {
    format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  apiKey:\n    keys:\n      \
         - {{id: web, key: {KEY}}}\n      - {{id: orders, key: {ORDERS_KEY}}}\n  \
         jwt: {{secret: {SECRET}, algorithms: [HS256], claims: {{email: X-Email}}}}\n{auth}",
        app.port(),
    )
}

fn start(services: &[(&str, String)]) -> (Tree, Daemon) {
    let tree = Tree::new();
    for (name, text) in services {
        tree.write(name, text);
    }
    // A client's mistakes are told at debug.
    let settings = "workers: 2\nlog: {level: debug}";
    let daemon = Setup::new(&tree).process(settings).start();
    (tree, daemon)
}

/// Status and what `WWW-Authenticate` says.
fn outcome(response: &Response) -> (u16, &'static str) {
    let challenge = response.header("www-authenticate").unwrap_or_default();
    let error = ["invalid_token", "invalid_request", "insufficient_scope"]
        .into_iter()
        .find(|error| challenge.contains(error));
    (response.status, error.unwrap_or(""))
}

const ABSENT: (u16, &str) = (401, "");
const WRONG: (u16, &str) = (401, "invalid_token");
const WEB: (u16, &str) = (200, "web");
const ANN: (u16, &str) = (200, "ann");

/// `x-api-key`, Bearer, then what any(key, jwt), any(jwt, key), all(key, jwt) and
/// all(jwt, key) make of them.
type Row<'a> = (&'a str, &'a str, [(u16, &'static str); 4]);

fn truth_table<'a>(good: &'a str, expired: &'a str) -> [Row<'a>; 15] {
    [
        ("", "", [ABSENT, ABSENT, ABSENT, ABSENT]),
        ("", "wrong", [WRONG, WRONG, WRONG, WRONG]),
        ("", KEY, [WEB, WEB, ABSENT, ABSENT]),
        ("", expired, [WRONG, WRONG, WRONG, WRONG]),
        ("", good, [ANN, ANN, ABSENT, ABSENT]),
        ("wrong", "", [WRONG, WRONG, WRONG, WRONG]),
        ("wrong", "wrong", [WRONG, WRONG, WRONG, WRONG]),
        ("wrong", KEY, [WRONG, WRONG, WRONG, WRONG]),
        ("wrong", expired, [WRONG, WRONG, WRONG, WRONG]),
        ("wrong", good, [WRONG, WRONG, WRONG, WRONG]),
        (KEY, "", [WEB, WEB, ABSENT, ABSENT]),
        (KEY, "wrong", [WRONG, WRONG, WRONG, WRONG]),
        (KEY, KEY, [WEB, WEB, ABSENT, ABSENT]),
        (KEY, expired, [WRONG, WRONG, WRONG, WRONG]),
        (KEY, good, [WEB, ANN, ANN, WEB]),
    ]
}

#[test]
fn truth_table_of_any_and_all_over_the_carriers() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let lists = [
        ("any", "anyOf: [api-key, jwt]"),
        ("any-turned", "anyOf: [jwt, api-key]"),
        ("all", "allOf: [api-key, jwt]"),
        ("all-turned", "allOf: [jwt, api-key]"),
    ];
    let ports = crate::support::ports::free_ports(4);
    let services: Vec<(String, String)> = lists
        .iter()
        .zip(&ports)
        .map(|((name, list), port)| {
            let text = service(*port, &app, &format!("  {list}\n"));
            (format!("shop/{name}"), text)
        })
        .collect();
    let named: Vec<(&str, String)> = services
        .iter()
        .map(|(name, text)| (name.as_str(), text.clone()))
        .collect();
    let (_tree, daemon) = start(&named);
    let good = token(&json!({}));
    let expired = token(&json!({"exp": seconds() - 3600}));
    for (key, credential, expected) in truth_table(&good, &expired) {
        for (((name, _), port), expected) in lists.iter().zip(&ports).zip(expected) {
            let mut request = Request::get("/");
            if !key.is_empty() {
                request = request.key(key);
            }
            if !credential.is_empty() {
                request = bearer(request, credential);
            }
            let response = request.send(*port);
            let seen = match response.status {
                200 => {
                    let received = app.last();
                    let subject = received.header("x-auth-subject").unwrap_or_default();
                    (200, if subject == "web" { "web" } else { "ann" })
                }
                _ => outcome(&response),
            };
            assert_eq!(seen, expected, "{name}: {key:?} {credential:?}");
        }
    }
    let metrics = daemon.metrics();
    let count = |labels: &[(&str, &str)]| metrics.count("outrigger_auth_decisions_total", labels);
    assert!(
        count(&[
            ("strategy", "jwt"),
            ("result", "denied"),
            ("reason", "expired")
        ]) > 0.0
    );
    assert!(count(&[("strategy", "api-key"), ("reason", "unknown_key")]) > 0.0);
    assert!(
        count(&[
            ("strategy", "api-key"),
            ("result", "allowed"),
            ("reason", "good")
        ]) > 0.0
    );
}

#[test]
fn refusals_say_what_the_rfc_says_and_no_more() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let port = free_port();
    let auth = "  strategy: jwt\n  allow: {claims: {scope: [orders:write]}}\n";
    let text = service(port, &app, auth).replace(
        &format!(
            "  apiKey:\n    keys:\n      - {{id: web, key: {KEY}}}\n      - {{id: orders, key: {ORDERS_KEY}}}\n"
        ),
        "",
    );
    let (_tree, daemon) = start(&[("shop/cart", text)]);
    let good = token(&json!({"scope": "orders:read orders:write"}));
    let narrow = token(&json!({"scope": "orders:read"}));
    let two = bearer(bearer(Request::get("/"), &good), &good);
    for (request, expected) in [
        (Request::get("/"), (401, "")),
        (
            Request::get("/").header("Authorization", "Basic YTpi"),
            (401, ""),
        ),
        (
            Request::get("/").header("Authorization", "Bearer"),
            (400, "invalid_request"),
        ),
        (two, (400, "invalid_request")),
        (bearer(Request::get("/"), "garbage"), (401, "invalid_token")),
        (bearer(Request::get("/"), "a.b.c"), (401, "invalid_token")),
        (
            bearer(Request::get("/"), &format!("{good}x")),
            (401, "invalid_token"),
        ),
        (
            bearer(Request::get("/"), &narrow),
            (403, "insufficient_scope"),
        ),
        (bearer(Request::get("/"), &good), (200, "")),
        (
            Request::get("/").header("Authorization", &format!("bEARER {good}")),
            (200, ""),
        ),
    ] {
        let response = request.send(port);
        assert_eq!(outcome(&response), expected, "{request:?}");
        let text = response.text();
        for word in ["signature", "malformed", "expired", "not_listed", "unknown"] {
            assert!(!text.contains(word), "a reason in {text}");
        }
    }
    daemon.wait_for_line(&["auth_denied", "jwt: signature"]);
    assert_eq!(app.count(), 2);
}

#[test]
fn a_token_counts_for_the_service_it_is_meant_for() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let ports = crate::support::ports::free_ports(2);
    let text = |port: u16, audience: &str| {
        format!(
            "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  \
             jwt: {{secret: {SECRET}, issuer: us, audience: {audience}}}\n",
            app.port()
        )
    };
    let (tree, _daemon) = start(&[
        ("shop/orders", text(ports[0], "orders")),
        ("shop/payments", text(ports[1], "payments")),
    ]);
    let mint = |arguments: &[&str]| {
        let all: Vec<&str> = ["token", "mint"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        run_to_end(tree.root(), &all, &[])
    };
    let (code, token) = mint(&["orders", "--sub", "ann"]);
    assert_eq!(code, 0, "{token}");
    for _ in 0..8 {
        assert_eq!(
            bearer(Request::get("/"), token.trim()).status(ports[0]),
            Some(200)
        );
        assert_eq!(
            bearer(Request::get("/"), token.trim()).status(ports[1]),
            Some(401)
        );
    }
    assert_eq!(app.last().header("x-auth-subject"), Some("ann"));
    assert_eq!(app.last().header("x-service-name"), None);

    let arguments = [
        "shop/payments",
        "--service-name",
        "orders",
        "--claim",
        "n=7",
    ];
    let (code, token) = mint(&arguments);
    assert_eq!(code, 0, "{token}");
    assert_eq!(
        bearer(Request::get("/"), token.trim()).status(ports[1]),
        Some(200)
    );
    assert_eq!(app.last().header("x-service-call"), Some("true"));
    assert_eq!(app.last().header("x-service-name"), Some("orders"));
    let (code, errors) = mint(&["nobody"]);
    assert_eq!(code, 64);
    assert!(errors.contains("no local service `nobody`"), "{errors}");
}

#[test]
fn only_orders_may_call_payments() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let port = free_port();
    let auth = "  anyOf: [api-key, jwt]\n  allow: {services: [orders]}\n";
    let (_tree, _daemon) = start(&[("shop/payments", service(port, &app, auth))]);
    let orders = token(&json!({"serviceName": "orders"}));
    let full = token(&json!({"serviceName": "shop/orders"}));
    let cart = token(&json!({"serviceName": "cart"}));
    for (request, expected) in [
        (Request::get("/").key(ORDERS_KEY), 200),
        (Request::get("/").key(KEY), 403),
        (bearer(Request::get("/"), &orders), 200),
        (bearer(Request::get("/"), &full), 200),
        (bearer(Request::get("/"), &cart), 403),
        (bearer(Request::get("/"), &token(&json!({}))), 403),
        (Request::get("/"), 401),
    ] {
        assert_eq!(request.status(port), Some(expected), "{request:?}");
    }
}

#[test]
fn headers_of_claims_cannot_be_sent() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let port = free_port();
    let auth = "  anyOf: [api-key, jwt]\n  rules:\n    - {paths: [\"/open/**\"], strategy: none}\n";
    let (_tree, _daemon) = start(&[("shop/cart", service(port, &app, auth))]);
    let with = token(&json!({"email": "ann@example"}));
    let without = token(&json!({}));
    let crlf = token(&json!({"email": "x\r\nX-Auth-Subject: root"}));
    for (request, expected) in [
        (bearer(Request::get("/"), &with), Some("ann@example")),
        (bearer(Request::get("/"), &without), None),
        (bearer(Request::get("/"), &crlf), None),
        (Request::get("/").key(KEY), None),
        (Request::get("/open/x"), None),
        (bearer(Request::get("/open/x"), &with), None),
    ] {
        for name in ["X-Email", "x_email", "X-eMAIL"] {
            let forged = request
                .clone()
                .header(name, "root@example")
                .header("Connection", "keep-alive, x-email");
            assert_eq!(forged.status(port), Some(200));
            let received = app.last();
            let seen: Vec<&str> = received
                .head
                .headers
                .iter()
                .filter(|(header, _)| header.to_ascii_lowercase().replace('_', "-") == "x-email")
                .map(|(_, value)| value.as_str())
                .collect();
            assert_eq!(
                seen,
                expected.into_iter().collect::<Vec<_>>(),
                "{request:?}"
            );
        }
    }
}

#[test]
fn explain_tells_why() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let port = free_port();
    let auth = "  anyOf: [api-key, jwt]\n  rules:\n    - {paths: [\"/open/**\"], strategy: none}\n    \
                - {paths: [\"/admin/**\"], allow: {keys: [orders]}}\n";
    let (_tree, daemon) = start(&[("shop/cart", service(port, &app, auth))]);
    let ask = |path: &str, headers: Value| {
        let question = json!({"service": "cart", "path": path, "headers": headers});
        daemon.admin_post("/explain", &question.to_string()).json()
    };
    let told = ask("/open/x", json!({}));
    assert_eq!(told["auth"]["rule"], 0, "{told}");
    assert_eq!(told["auth"]["decision"], "allowed");
    let told = ask("/Admin", json!({"x-api-key": KEY}));
    assert_eq!(told["auth"]["rule"], 1, "{told}");
    assert_eq!(told["auth"]["decision"], "denied");
    assert_eq!(told["auth"]["reason"], "not_listed");
    let expired = token(&json!({"exp": 5}));
    let told = ask("/", json!({"authorization": format!("Bearer {expired}")}));
    assert_eq!(told["auth"]["strategy"], "jwt", "{told}");
    assert_eq!(told["auth"]["reason"], "expired");
    assert!(!told.to_string().contains(&expired));
    assert_eq!(app.count(), 0);
}

/// What would be open by mistake, and what the refusal says.
#[test]
fn openings_by_mistake_are_refused_with_a_hint() {
    for (auth, told) in [
        ("{strategy: api-key}", "key"),
        ("{strategy: jwt}", "strategy jwt has no key"),
        ("{strategy: custom}", "needs `auth.hook`"),
        ("{jwt: {secret: short}}", "shorter than 32 bytes"),
        ("{strategy: jwtt}", "jwt"),
        ("jwtt", "did you mean `jwt`"),
        (
            "{jwt: {jwks: {url: \"https://id.example/jwks\"}}}",
            "issuer",
        ),
        (
            "{jwt: {jwks: {url: \"http://id.example/jwks\"}, issuer: x}}",
            "https",
        ),
        (
            "{anyOf: [api-key, jwt], secretKey: 0123456789abcdef0123456789abcdef}",
            "secretKey",
        ),
        ("{anyOf: []}", "is empty"),
        ("{anyOf: [api-key, none]}", "`none` has no place"),
    ] {
        let tree = Tree::with(&[("shop/cart", &format!("port: 3001\nauth: {auth}\n"))]);
        let (code, errors) = run_to_end(tree.root(), &["check"], &[]);
        assert_eq!(code, 64, "{auth}: {errors}");
        assert!(errors.contains(told), "{auth}: {errors}");
        assert!(errors.contains("hint"), "{auth}: {errors}");
    }
}
