//! What an answer, a silence or a break says about a dependency, and what is
//! repeated because of it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::protocol::grpc_app::runtime;
use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::files::key;
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// Orders, which calls payments at `address`.
struct House {
    daemon: Daemon,
    tree: Tree,
    public: u16,
    /// Leads to payments.
    local: u16,
    address: u16,
}

impl House {
    fn calling(address: u16, more: &str) -> Self {
        let tree = Tree::new();
        let (public, local) = (free_ports(2)[0], free_port());
        tree.write("shop/orders", Self::file(public, local, address, more));
        Self {
            daemon: Setup::new(&tree).start(),
            tree,
            public,
            local,
            address,
        }
    }

    fn file(public: u16, local: u16, address: u16, more: &str) -> String {
        format!(
            "port: {public}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n  - \
             {{name: payments, address: \"127.0.0.1:{address}\", localPort: {local}, healthCheck: false{more}}}\n",
            public + 1
        )
    }

    /// Other words for the same dependency.
    fn rewrite(&self, more: &str) {
        let text = Self::file(self.public, self.local, self.address, more);
        self.tree.write("shop/orders", text);
        let answer = self.daemon.reload();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn get(&self) -> (u16, String) {
        let answer = Request::get("/").send(self.local);
        (answer.status, answer.cause())
    }

    /// As `/services` and as the metrics have it.
    fn circuit(&self) -> (String, f64) {
        let service = self.daemon.service("shop/orders");
        let state = service["dependencies"][0]["circuit"].as_str();
        let shown = self
            .daemon
            .metrics()
            .count("outrigger_circuit_state", &[("peer", "payments")]);
        (state.unwrap_or_default().to_owned(), shown)
    }
}

/// Says 503 to everything, and how often each path was asked for.
#[derive(Default, Clone)]
struct Unwilling(Arc<Mutex<HashMap<String, u32>>>);

impl Script for Unwilling {
    fn answer(&self, request: &Received, stream: &mut Connection) -> io::Result<Next> {
        let mut asked = self.0.lock().unwrap();
        *asked.entry(request.target.clone()).or_default() += 1;
        drop(asked);
        stream.respond(503, "", b"no")?;
        Ok(Next::KeepAlive)
    }
}

/// Over HTTP/2 a method without a body has no length either.
fn over_http2(port: u16, method: &str, path: &str) -> u16 {
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        let (sender, connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://payments{path}"))
            .body(())
            .unwrap();
        let mut sender: h2::client::SendRequest<bytes::Bytes> = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let status = response.await.unwrap().status().as_u16();
        driver.abort();
        status
    })
}

#[test]
fn a_post_without_a_body_is_executed_once() {
    let _machine = shared_machine();
    let asked = Unwilling::default();
    let app = App::start(asked.clone());
    let house = House::calling(app.port(), ", retries: 3, breaker: false");
    // Earns more retries than could be made.
    for _ in 0..30 {
        Request::post("/earn", "x").send(house.local);
    }
    for method in ["POST", "PATCH"] {
        let path = format!("/{method}");
        assert_eq!(Request::new(method, &path).send(house.local).status, 503);
        assert_eq!(over_http2(house.local, method, &format!("{path}/h2")), 503);
    }
    let asked = |path: &str| asked.0.lock().unwrap()[path];
    for path in ["/POST", "/PATCH", "/POST/h2", "/PATCH/h2"] {
        assert_eq!(asked(path), 1, "{path}");
    }
    Request::get("/GET").send(house.local);
    assert!(asked("/GET") > 1, "what is idempotent is repeated");
}

/// Sends a byte now and then until there is an answer.
fn trickle(port: u16) -> (u16, String) {
    let mut client = Client::connect(port).unwrap();
    client
        .send(b"POST /up HTTP/1.1\r\nHost: payments\r\nContent-Length: 100000\r\n\r\n")
        .unwrap();
    client.patience(Duration::from_millis(50));
    for _ in 0..200 {
        if let Ok(answer) = client.response_to("POST") {
            return (answer.status, answer.cause());
        }
        // What is not taken any more is about to be answered.
        let _ = client.send(b"x");
    }
    panic!("no answer");
}

#[test]
fn slow_uploads_say_nothing_about_the_dependency() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let house = House::calling(app.port(), ", timeout: 700ms");
    let local = house.local;
    let uploads: Vec<_> = (0..6)
        .map(|_| thread::spawn(move || trickle(local)))
        .collect();
    for upload in uploads {
        let (status, cause) = upload.join().unwrap();
        assert_eq!((status, &*cause), (504, "upstream_response_timeout"));
    }
    assert_eq!(house.circuit(), ("closed".to_owned(), 0.0));
    assert_eq!(house.get().0, 200);
    let address = format!("127.0.0.1:{}", app.port());
    house
        .daemon
        .wait_for_line(&["upstream_response_timeout", &address]);
}

#[test]
fn silence_for_the_whole_of_the_timeout_does() {
    let _machine = shared_machine();
    let app = App::start(scripts::silent);
    let house = House::calling(app.port(), ", timeout: 300ms");
    for _ in 0..5 {
        assert_eq!(house.get(), (504, "upstream_response_timeout".to_owned()));
    }
    assert_eq!(house.get(), (503, "circuit_open".to_owned()));
}

#[test]
fn an_upload_that_stalls_is_no_probe_for_long() {
    let _machine = shared_machine();
    let port = free_port();
    let more = ", timeout: 60s, breaker: {failures: 2, open: 1s}";
    let house = House::calling(port, more);
    for _ in 0..2 {
        assert_eq!(house.get(), (502, "upstream_connect_refused".to_owned()));
    }
    assert_eq!(house.get(), (503, "circuit_open".to_owned()));
    let app = App::start_on(port, scripts::ok);
    wait_until("the time is over", SOON, || {
        house.circuit().0 == "half-open"
    });
    let mut stalled = Client::connect(house.local).unwrap();
    stalled
        .send(b"POST /up HTTP/1.1\r\nHost: payments\r\nContent-Length: 100\r\n\r\nx")
        .unwrap();
    wait_until("the upload is under way", SOON, || app.connections() == 1);
    assert_eq!(house.get(), (503, "circuit_open".to_owned()));
    wait_until("another call finds out", SOON, || house.get().0 == 200);
    assert_eq!(house.circuit(), ("closed".to_owned(), 0.0));
}

#[test]
fn a_call_counts_once_and_a_new_version_begins_closed() {
    let _machine = shared_machine();
    let house = House::calling(free_port(), "");
    for turn in 0..5 {
        assert_eq!(house.circuit().0, "closed", "after {turn} calls");
        // Each is tried twice: nobody listens.
        assert_eq!(house.get(), (502, "upstream_connect_refused".to_owned()));
    }
    assert_eq!(house.circuit(), ("open".to_owned(), 2.0));
    house.rewrite(", timeout: 9s");
    wait_until("the new version is shown", SOON, || {
        house.circuit() == ("closed".to_owned(), 0.0)
    });
    assert_eq!(house.get(), (502, "upstream_connect_refused".to_owned()));
}

/// The circuit opens after five calls of an app like this.
fn opens_the_circuit(script: impl Script) {
    let app = App::start(script);
    let house = House::calling(app.port(), "");
    for turn in 0..5 {
        assert_eq!(house.circuit().0, "closed", "after {turn} calls");
        let answer = Request::get("/").try_send(house.local);
        assert!(answer.map_or(true, |answer| answer.status == 500));
        assert_eq!(app.count(), turn + 1, "asked once for each call");
    }
    wait_until("the circuit is open", SOON, || {
        house.circuit() == ("open".to_owned(), 2.0)
    });
    assert_eq!(house.get(), (503, "circuit_open".to_owned()));
}

#[test]
fn bodies_that_break_off_open_the_circuit() {
    let _machine = shared_machine();
    opens_the_circuit(scripts::half_body_then_reset());
}

#[test]
fn errors_through_a_gateway_open_the_circuit() {
    let _machine = shared_machine();
    opens_the_circuit(|_: &Received, stream: &mut Connection| {
        stream.respond(500, "Proxy-Status: gateway.example\r\n", b"broken")?;
        Ok(Next::KeepAlive)
    });
}

#[test]
fn nothing_of_the_apps_stands_beside_what_is_added() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let credential = format!(", credential: {{apiKey: {}}}", key(3));
    let house = House::calling(app.port(), &credential);
    let mut client = Client::connect(house.local).unwrap();
    client
        .send(
            b"POST / HTTP/1.1\r\nHost: payments\r\nX-Api-Key: mine\r\nx_api_key: mine\r\n\
              Transfer-Encoding: chunked\r\nTE: trailers\r\nConnection: x-named, TE\r\n\
              Trailer: x-sum, x-named, x_api_key, x-auth-subject\r\n\r\n\
              3\r\nabc\r\n0\r\nx-sum: 1\r\nx-named: 1\r\nx_api_key: t\r\nx-auth-subject: evil\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.response_to("POST").unwrap().status, 200);
    let seen = app.last();
    let keys: Vec<&(String, String)> = seen
        .head
        .headers
        .iter()
        .filter(|(name, _)| name.to_ascii_lowercase().replace('_', "-") == "x-api-key")
        .collect();
    assert_eq!(keys, [&("x-api-key".to_owned(), key(3))]);
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

/// What the log says of a call is known before there is an answer.
#[test]
fn the_line_of_a_call_says_who_was_asked_and_how_long_connecting_took() {
    let _machine = shared_machine();
    let app = App::start(scripts::silent);
    let house = House::calling(app.port(), ", timeout: 700ms");
    let address = format!("\"upstream_address\":\"127.0.0.1:{}\"", app.port());
    let level = Request::new("PUT", "/log-level").body("debug");
    let answer = level.header("Host", "127.0.0.1").send(house.daemon.admin);
    assert_eq!(answer.status, 200);
    // A client that does not wait.
    let mut client = Client::connect(house.local).unwrap();
    client.send(&Request::get("/left").bytes()).unwrap();
    wait_until("payments is asked", SOON, || app.count() == 1);
    drop(client);
    let line = house.daemon.wait_for_line(&["client_closed"]);
    assert!(
        line.contains(&address) && line.contains("\"attempt\":1"),
        "{line}"
    );
    // One that does: its connection is new, and closed by the other side.
    let closing = App::start(scripts::bytes("", Next::Close));
    let house = House::calling(closing.port(), "");
    assert_eq!(house.get(), (502, "upstream_closed".to_owned()));
    let line = house.daemon.wait_for_line(&["upstream_closed"]);
    assert!(line.contains("\"connect_ms\":"), "{line}");
}

/// Where nothing of an answer can be told, nothing is: half of one would look
/// begun to a caller that asks again only what was not.
#[test]
fn an_answer_that_is_broken_from_its_first_byte_is_none() {
    let broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n";
    let begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nno chunk\r\n";
    for (bytes, said) in [(&broken[..], false), (begun, true)] {
        let app = App::start(scripts::bytes(bytes, Next::Close));
        let house = House::calling(app.port(), "");
        let mut client = Client::connect(house.local).unwrap();
        client.send(&Request::post("/", "x").bytes()).unwrap();
        let text = String::from_utf8(client.until_close()).unwrap();
        assert_eq!(!text.is_empty(), said, "{text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    }
}
