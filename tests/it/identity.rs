//! A client can never make the app see an identity it was not given, and no
//! spelling of a path dodges a rule.

use crate::support::app::{App, Received};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::key;
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

/// Names that only the sidecar may send to the app.
const RESERVED: [&str; 8] = [
    "x-auth-strategy",
    "x-auth-subject",
    "x-auth-failed-open",
    "x-service-name",
    "x-service-call",
    "x-outrigger-anything",
    "x-app-token",
    "x-outrigger-service",
];

struct House {
    app: App,
    port: u16,
    _tree: Tree,
    _daemon: Daemon,
}

fn house() -> House {
    let app = App::start(scripts::echo);
    let port = free_port();
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  apiKey:\n    keys:\n      \
         - {{id: web, key: {}}}\n      - {{id: ops, key: {}}}\n  rules:\n    \
         - {{paths: [\"/public/**\"], strategy: none}}\n    \
         - {{paths: [\"/admin/**\"], allow: {{keys: [ops]}}}}\n    \
         - {{paths: [\"/closed\"], deny: true}}\n  \
         appToken: {{header: X-App-Token, value: the-real-token}}\n",
        app.port(),
        key(1),
        key(2),
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree).start();
    House {
        app,
        port,
        _tree: tree,
        _daemon: daemon,
    }
}

/// As SPEC ID-1 compares names.
fn folded(name: &str) -> String {
    let fold = |character: char| {
        if character.is_ascii_alphanumeric() {
            character.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(fold).collect()
}

/// Other spellings that some server or framework reads as the same name.
fn spellings(name: &str) -> Vec<String> {
    let title: String = name
        .split('-')
        .map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..]))
        .collect::<Vec<_>>()
        .join("-");
    let mut spellings = vec![
        name.to_owned(),
        name.to_uppercase(),
        title.clone(),
        name.replace('-', "_"),
        title.replace('-', "_"),
        name.replacen('-', "_", 1),
        name.to_uppercase().replace('-', "_"),
    ];
    // Every other byte a name may hold.
    for byte in "!#$%&'*+.^`|~".chars() {
        spellings.push(name.replace('-', &byte.to_string()));
    }
    spellings
}

/// What the app saw under a reserved name, however spelled.
fn identity_of(request: &Received) -> Vec<(String, String)> {
    let mut seen: Vec<(String, String)> = request
        .head
        .headers
        .iter()
        .chain(&request.trailers)
        .filter(|(name, _)| {
            let name = folded(name);
            RESERVED.contains(&name.as_str()) || name.starts_with("x-outrigger-")
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    seen.sort();
    seen
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = list
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    pairs.sort();
    pairs
}

/// What the app sees of a caller with key 1, and of one without any.
fn given(with_key: bool) -> Vec<(String, String)> {
    if with_key {
        pairs(&[
            ("x-app-token", "the-real-token"),
            ("x-auth-strategy", "api-key"),
            ("x-auth-subject", "web"),
            ("x-service-call", "true"),
            ("x-service-name", "web"),
        ])
    } else {
        // The strategy that let the request pass may be told; no identity is.
        pairs(&[("x-app-token", "the-real-token")])
    }
}

/// Sends a request and returns what the app saw; the app must have seen it.
#[track_caller]
fn seen(house: &House, request: &Request) -> Received {
    let response = request.send(house.port);
    assert_eq!(
        response.status,
        200,
        "{} for {}",
        response.text(),
        String::from_utf8_lossy(&request.bytes())
    );
    house.app.last()
}

#[track_caller]
fn assert_identity(request: &Received, with_key: bool, why: &str) {
    let mut identity = identity_of(request);
    identity.retain(|(name, value)| !(name == "x-auth-strategy" && value == "none"));
    assert_eq!(
        identity,
        given(with_key),
        "{why}: {:?}",
        String::from_utf8_lossy(&request.raw)
    );
}

#[test]
fn reserved_names_are_removed_in_every_spelling() {
    let _machine = shared_machine();
    let house = house();
    let mut sent = 0;
    for name in RESERVED {
        for spelling in spellings(name) {
            // With a key on a guarded path, without one on an exempt path.
            let guarded = Request::get("/cart")
                .key(&key(1))
                .header(&spelling, "admin");
            assert_identity(&seen(&house, &guarded), true, &spelling);
            let exempt = Request::get("/public/x").header(&spelling, "admin");
            assert_identity(&seen(&house, &exempt), false, &spelling);
            sent += 2;
        }
        // Doubled, and in pieces.
        let doubled = Request::get("/public/x")
            .header(name, "admin")
            .header(name, "root");
        assert_identity(&seen(&house, &doubled), false, name);
        let mixed = Request::get("/cart")
            .key(&key(1))
            .header(&name.replace('-', "_"), "admin")
            .header(&name.to_uppercase(), "root");
        assert_identity(&seen(&house, &mixed), true, name);
    }
    figure!("{sent} spellings, none reached the app");
    assert_eq!(house.app.faults(), [""; 0]);
}

#[test]
fn connection_cannot_remove_what_the_sidecar_adds() {
    let _machine = shared_machine();
    let house = house();
    let all = RESERVED.join(", ");
    for value in [
        all.as_str(),
        "X-Auth-Subject",
        "close, x-service-name",
        "x-auth-subject,,x-app-token",
    ] {
        let request = Request::get("/cart")
            .key(&key(1))
            .header("Connection", value);
        assert_identity(&seen(&house, &request), true, value);
        let request = Request::get("/cart")
            .key(&key(1))
            .header("Connection", "keep-alive")
            .header("x-auth-subject", "admin")
            .header("Connection", value);
        assert_identity(&seen(&house, &request), true, value);
    }
    // Nor the credential, so that another hop would see none.
    let request = Request::get("/cart")
        .key(&key(1))
        .header("Connection", "x-api-key");
    let status = request.status(house.port);
    assert!(matches!(status, Some(200 | 400 | 401)), "{status:?}");
    for name in ["host", "content-length"] {
        let request = Request::post("/cart", "x")
            .key(&key(1))
            .header("Connection", name);
        assert_eq!(request.status(house.port), Some(400), "HOP-4 {name}");
    }
}

#[test]
fn trailers_carry_no_identity() {
    let _machine = shared_machine();
    let house = house();
    for path in ["/cart", "/public/x"] {
        let mut client = Client::connect(house.port).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {}\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-auth-subject, x_auth_subject, x-harmless\r\n\r\n\
             2\r\nhi\r\n0\r\nx-auth-subject: admin\r\nX_Auth_Subject: admin\r\nx-harmless: 1\r\n\r\n",
            key(1)
        );
        client.send(head.as_bytes()).unwrap();
        assert_eq!(client.response().unwrap().status, 200);
        let request = house.app.last();
        assert_eq!(request.body, b"hi");
        let names: Vec<String> = request
            .trailers
            .iter()
            .map(|(name, _)| folded(name))
            .collect();
        assert!(!names.contains(&"x-auth-subject".to_owned()), "{names:?}");
    }
}

#[test]
fn refused_requests_never_reach_the_app() {
    let _machine = shared_machine();
    let house = house();
    let cases = [
        (Request::get("/cart"), 401),
        (Request::get("/cart").key("wrong"), 401),
        (Request::get("/cart").key(""), 401),
        (Request::get("/cart").key(&key(1).to_uppercase()), 401),
        (
            Request::get("/cart")
                .key(&format!("{} ", key(1)))
                .header("x-api-key", "other"),
            401,
        ),
        (Request::get("/admin/x").key(&key(1)), 403),
        (Request::get("/closed").key(&key(2)), 403),
        (Request::get("/cart").header("Authorization", "Bearer"), 400),
        (
            Request::get("/cart").header("Authorization", "Basic eDp5"),
            401,
        ),
        (
            Request::get("/cart")
                .header("x-auth-subject", "web")
                .header("x-auth-strategy", "api-key"),
            401,
        ),
    ];
    for (request, status) in cases {
        let answer = request.send(house.port);
        let sent = String::from_utf8_lossy(&request.bytes()).into_owned();
        assert!(
            answer.status == status || (status == 401 && answer.status == 400),
            "{sent}: {answer:?}"
        );
        if answer.status == 401 {
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(
                challenge.starts_with("Bearer realm=\"cart\"") || challenge.contains("realm="),
                "{challenge}"
            );
        }
    }
    assert_eq!(house.app.count(), 0);
}

/// Spellings of `/closed`, `/admin/x` and of paths that leave `/public`.
fn dodges() -> Vec<String> {
    let mut dodges: Vec<String> = [
        "/public/../cart",
        "/public/./../cart",
        "/public/%2e%2e/cart",
        "/public/%2E%2E/cart",
        "/public/.%2e/cart",
        "/public/..%2fcart",
        "/public/..%5ccart",
        "/public\\..\\cart",
        "/public/..;/cart",
        "/public;x/../cart",
        "/public/x/../../cart",
        "//public/x",
        "/public//x",
        "/public/%00",
        "/public/x%2f..%2f..%2fcart",
        "/public/%",
        "/public/%zz",
        "/public/%2",
        "/./public/x",
        "/public/.",
        "/public/..",
        "/admin;x/y",
        "/admin/%2e/x",
        "//admin/x",
        "/%61dmin/../admin/x",
        "/admin%2fx",
        "/closed/.",
        "/closed;",
        "/closed%00",
        "/closed%20/..",
        "/.",
        "/..",
        "/../admin/x",
        "/%2e%2e/admin/x",
        "/public/\u{7f}",
        "/public/%c0%ae%c0%ae/cart",
        "/public/%252e%252e/cart",
        "/PUBLIC/x",
        "/Public/x",
        "/publi%63/x",
        "/public%2fx",
        "/publicx",
        "/public?/../cart",
        "/closed?x=1",
        "/closed/",
        "/CLOSED",
        "/Closed",
        "/clos%65d",
        "/%63losed",
        "/ADMIN/x",
        "/Admin",
        "/admin",
        "/admin/",
        "/adm%69n/x",
        "/%61%64%6d%69%6e/x",
        "/admin/x#f",
    ]
    .map(str::to_owned)
    .to_vec();
    let full = |path: &str| {
        path.bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    dodges.push(format!("/{}", full("closed")));
    dodges.push(format!("/{}/x", full("admin")));
    dodges
}

/// The path an app sees that decodes once, folds case, drops parameters and
/// empty segments, and resolves dots: the most generous reading there is.
fn most_generous(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let pair = (byte == b'%').then(|| rest.clone().take(2).collect::<Vec<u8>>());
        let decoded = pair
            .and_then(|pair| String::from_utf8(pair).ok())
            .filter(|pair| pair.len() == 2)
            .and_then(|pair| u8::from_str_radix(&pair, 16).ok());
        if let Some(decoded) = decoded {
            bytes.push(decoded);
            rest.nth(1);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8_lossy(&bytes)
        .to_lowercase()
        .replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split([';', '\0']).next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[test]
fn no_spelling_of_a_path_dodges_a_rule() {
    let _machine = shared_machine();
    let house = house();
    let mut tally = std::collections::BTreeMap::<u16, u32>::new();
    for target in dodges() {
        for with_key in [false, true] {
            let mut request = Request::get(&target);
            if with_key {
                request = request.key(&key(1));
            }
            let before = house.app.count();
            let Some(status) = request.status(house.port) else {
                continue;
            };
            *tally.entry(status).or_default() += 1;
            if house.app.count() == before {
                assert!(
                    matches!(status, 400 | 401 | 403 | 404),
                    "{target}: {status}"
                );
                continue;
            }
            let meant = most_generous(&house.app.last().target);
            let closed = meant == "/closed";
            let admin = meant == "/admin" || meant.starts_with("/admin/");
            let public = meant == "/public" || meant.starts_with("/public/");
            assert!(!closed, "{target} reached {meant}");
            assert!(!admin, "{target} reached {meant} with the wrong key");
            assert!(with_key || public, "{target} reached {meant} without a key");
        }
    }
    figure!("{} spellings, by status: {tally:?}", dodges().len());
    // The plain ones work, or the above would show nothing.
    assert_eq!(Request::get("/public/x").status(house.port), Some(200));
    assert_eq!(Request::get("/public").status(house.port), Some(200));
    assert_eq!(
        Request::get("/admin/x").key(&key(2)).status(house.port),
        Some(200)
    );
    assert_eq!(house.app.faults(), [""; 0]);
}
