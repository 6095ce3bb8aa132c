//! Key-set servers that come, go and change, behind real workers.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::auth_tokens::seconds;
use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

fn key(kid: &str) -> EncodingKey {
    let pem = match kid {
        "one" => include_str!("../../src/auth/tests/keys/ec-P-256.pem"),
        _ => include_str!("../../src/auth/tests/keys/other-ec-P-256.pem"),
    };
    EncodingKey::from_ec_pem(pem.as_bytes()).unwrap()
}

fn token(kid: &str, signer: &str) -> Request {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(kid.to_owned());
    let claims = json!({"sub": "ann", "iss": "us", "exp": seconds() + 600});
    let token = jsonwebtoken::encode(&header, &claims, &key(signer)).unwrap();
    Request::get("/").header("Authorization", &format!("Bearer {token}"))
}

/// The kids that the key-set server publishes now.
type Published = Arc<Mutex<Vec<&'static str>>>;

fn publish(published: &Published, kids: &[&'static str]) {
    *published.lock().unwrap() = kids.to_vec();
}

fn key_server(port: u16, kids: &[&'static str]) -> (App, Published) {
    let published: Published = Arc::new(Mutex::new(kids.to_vec()));
    let shared = Arc::clone(&published);
    let app = App::start_on(port, move |_: &Received, stream: &mut Connection| {
        let keys: Vec<_> = shared
            .lock()
            .unwrap()
            .iter()
            .map(|kid| {
                let mut jwk = Jwk::from_encoding_key(&key(kid), Algorithm::ES256).unwrap();
                jwk.common.key_id = Some((*kid).to_owned());
                jwk
            })
            .collect();
        let body = json!({ "keys": keys }).to_string();
        stream.respond(200, "Content-Type: application/json\r\n", body.as_bytes())?;
        Ok(Next::KeepAlive)
    });
    (app, published)
}

fn start(app: &App, port: u16, keys: u16) -> (Tree, Daemon) {
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  \
         jwt: {{jwks: {{url: \"http://127.0.0.1:{keys}/jwks\"}}, issuer: us, algorithms: [ES256]}}\n",
        app.port()
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree).process("workers: 2").start();
    (tree, daemon)
}

#[test]
fn no_keys_yet_is_unavailable_not_unauthorized() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (port, keys) = (free_port(), free_port());
    let (_tree, daemon) = start(&app, port, keys);
    let response = token("one", "one").send(port);
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.cause(), "auth_unavailable");
    assert!(response.header("retry-after").is_some());
    let ready = daemon.admin_get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("key set"), "{}", ready.text());

    let (_server, _) = key_server(keys, &["one"]);
    wait_until("the keys are there", SOON * 2, || {
        token("one", "one").status(port) == Some(200)
    });
    assert_eq!(token("one", "two").status(port), Some(401));
    let metrics = daemon.metrics();
    assert!(metrics.count("outrigger_jwks_fetches_total", &[("result", "failed")]) > 0.0);
    assert_eq!(
        metrics.count("outrigger_jwks_keys", &[("service", "shop/cart")]),
        1.0
    );
}

#[test]
fn a_rotation_refuses_nobody() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (port, keys) = (free_port(), free_port());
    let (server, published) = key_server(keys, &["one"]);
    let (tree, daemon) = start(&app, port, keys);
    wait_until("the keys are there", SOON, || {
        token("one", "one").status(port) == Some(200)
    });
    publish(&published, &["one", "two"]);
    for _ in 0..8 {
        assert_eq!(token("two", "two").status(port), Some(200));
        assert_eq!(token("one", "one").status(port), Some(200));
    }
    assert_eq!(server.count(), 2, "one fetch at start, one for the new key");

    // A change of the service that leaves the source alone fetches nothing.
    let text = std::fs::read_to_string(tree.file("shop/cart")).unwrap();
    tree.replace("shop/cart", format!("{text}limits: {{inFlight: 99}}\n"));
    let before = daemon.generation();
    assert!(daemon.reload().status < 300);
    assert!(daemon.generation() > before);
    assert_eq!(token("two", "two").status(port), Some(200));
    assert_eq!(server.count(), 2);
}

#[test]
fn a_dropped_key_is_refused_by_all_workers_within_a_second() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (port, keys) = (free_port(), free_port());
    let (_server, published) = key_server(keys, &["one", "two"]);
    let (_tree, _daemon) = start(&app, port, keys);
    let old = token("one", "one");
    wait_until("the keys are there", SOON, || old.status(port) == Some(200));
    // Enough connections that both workers have some; every cache is hot.
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(port).unwrap()).collect();
    for client in &mut clients {
        for _ in 0..3 {
            assert_eq!(client.exchange(&old).unwrap().status, 200);
        }
    }
    publish(&published, &["two"]);
    let noticed = Instant::now();
    assert_eq!(token("three", "two").status(port), Some(401));
    for client in &mut clients {
        assert_eq!(client.exchange(&old).unwrap().status, 401);
    }
    assert!(
        noticed.elapsed() < Duration::from_secs(1),
        "{:?}",
        noticed.elapsed()
    );
    assert_eq!(token("two", "two").status(port), Some(200));
}

#[test]
fn a_flood_of_unknown_kids_is_one_fetch() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (port, keys) = (free_port(), free_port());
    let (server, _) = key_server(keys, &["one"]);
    let (_tree, _daemon) = start(&app, port, keys);
    wait_until("the keys are there", SOON, || {
        token("one", "one").status(port) == Some(200)
    });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let mut client = Client::connect(port).unwrap();
                for number in 0..100 {
                    let request = token(&format!("unknown-{thread}-{number}"), "two");
                    let response = client.exchange(&request).unwrap();
                    assert_eq!(response.status, 401);
                    if response.closes() {
                        client = Client::connect(port).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(server.count(), 2);
    assert_eq!(app.count(), 1);
}

#[test]
fn a_server_that_hangs_holds_up_nobody_it_does_not_concern() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    // Accepts into its queue and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let keys = silent.local_addr().unwrap().port();
    let (_tree, _daemon) = start(&app, port, keys);
    let asked = Instant::now();
    assert_eq!(token("one", "one").status(port), Some(503));
    assert_eq!(Request::get("/").status(port), Some(401));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}
