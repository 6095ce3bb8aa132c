//! An app calls others with the clients people use, knowing no address, key or
//! trace header.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::Value;

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::files::key;
use crate::support::ports::{free_port, free_ports};
use crate::support::runtimes::{Server, run};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

const SECRET: &str = "a-secret-that-two-services-share-0001";

/// Orders beside its sidecar, and what it calls beside theirs.
struct Shop {
    _callee: Daemon,
    caller: Daemon,
    /// Local ports: payments (key), ledger (token), quotes (gRPC), chat (WebSocket).
    ports: Vec<u16>,
    door: u16,
    app: App,
    public: u16,
    _orders: App,
}

fn shop(quotes: u16, chat: u16) -> Shop {
    let app = App::start(scripts::echo);
    let orders = App::start(scripts::echo);
    let public = free_ports(5);
    let keys = format!(
        "healthCheck: false\nauth: {{apiKey: {{keys: [{{id: orders, key: {}}}]}}}}\n",
        key(7)
    );
    let jwt =
        format!("healthCheck: false\nauth: {{jwt: {{secret: {SECRET}, audience: ledger}}}}\n");
    let callee = Tree::with(&[
        (
            "shop/payments",
            &format!(
                "port: {}\nupstream: {}\ntracing: {{enabled: true}}\n{keys}",
                public[0],
                app.port()
            ),
        ),
        (
            "shop/ledger",
            &format!("port: {}\nupstream: {}\n{jwt}", public[1], app.port()),
        ),
        (
            "shop/quotes",
            &format!(
                "port: {}\nupstream: {{url: \"http://127.0.0.1:{quotes}\", protocol: h2c}}\n{keys}",
                public[2]
            ),
        ),
        (
            "shop/chat",
            &format!("port: {}\nupstream: {chat}\n{keys}", public[3]),
        ),
    ]);
    let ports = free_ports(4);
    let mut text = format!(
        "port: {}\nupstream: {}\nauth: {{strategy: none}}\ntracing: {{samplingRate: 1}}\ndependencies:\n",
        public[4],
        orders.port()
    );
    for (index, name) in ["payments", "ledger", "quotes", "chat"].iter().enumerate() {
        let credential = match *name {
            "ledger" => format!("jwt: {{secret: {SECRET}}}"),
            _ => format!("apiKey: {}", key(7)),
        };
        text.push_str(&format!(
            "  - {{name: {name}, localPort: {}, credential: {{{credential}}}}}\n",
            ports[index]
        ));
    }
    let caller = Tree::with(&[("shop/orders", &text)]);
    for name in ["payments", "ledger", "quotes", "chat"] {
        let file = std::fs::read(callee.file(&format!("shop/{name}"))).unwrap();
        caller.write(&format!("shop/{name}"), file);
    }
    let door = free_port();
    Shop {
        _callee: Setup::new(&callee).start(),
        caller: Setup::new(&caller)
            .env("SERVICES", "orders")
            .env("OUTRIGGER_OUTBOUND_LISTEN", &format!("127.0.0.1:{door}"))
            .process("accessLog: all")
            .start(),
        ports,
        door,
        app,
        public: public[4],
        _orders: orders,
    }
}

/// The header of a request as the called app saw it.
fn seen(document: &Value, name: &str) -> String {
    let headers = document["headers"].as_array().cloned().unwrap_or_default();
    let values: Vec<String> = headers
        .iter()
        .filter(|pair| {
            pair[0]
                .as_str()
                .is_some_and(|found| found.eq_ignore_ascii_case(name))
        })
        .filter_map(|pair| pair[1].as_str().map(str::to_owned))
        .collect();
    values.join("|")
}

#[track_caller]
fn assert_from_orders(who: &str, answer: &str) {
    let document: Value =
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{who}: {error}: {answer}"));
    for (name, expected) in [
        ("x-service-name", "orders"),
        ("x-service-call", "true"),
        ("x-auth-subject", "orders"),
        ("x-trace-depth", "1"),
        ("x-parent-service-id", "shop/orders"),
    ] {
        assert_eq!(
            seen(&document, name),
            expected,
            "{who}: {name} in {document:#}"
        );
    }
    let parent = seen(&document, "traceparent");
    assert!(
        parent.ends_with("-01") && parent.len() == 55,
        "{who}: {parent}"
    );
    assert_eq!(seen(&document, "x-trace-id"), parent[3..35], "{who}");
    println!("{who}: payments saw `orders` and trace {}", &parent[3..35]);
}

#[test]
fn curl_requests_and_fetch_need_no_address_key_or_trace() {
    let _machine = shared_machine();
    let shop = shop(1, 1);
    let (port, door) = (shop.ports[0], shop.door);
    let direct = format!("http://127.0.0.1:{port}/charge?amount=7");
    let proxy = format!("http://127.0.0.1:{door}");
    let fetch = format!("fetch('{direct}').then(r => r.text()).then(t => console.log(t))");
    let named = format!("http://127.0.0.1:{door}/charge");
    let resolve = format!("payments.shop:{door}:127.0.0.1");
    let by_name = format!("http://payments.shop:{door}/charge");
    for (who, program, arguments) in [
        (
            "curl, localPort",
            "curl",
            vec!["-sS", "--noproxy", "*", &direct],
        ),
        (
            "python, localPort",
            "python3",
            vec!["-c", PYTHON, &direct, ""],
        ),
        ("node fetch, localPort", "node", vec!["-e", &fetch]),
        (
            "curl, proxy",
            "curl",
            vec!["-sS", "-x", &proxy, "http://payments/charge"],
        ),
        (
            "curl, proxy, full name",
            "curl",
            vec!["-sS", "-x", &proxy, "http://payments.shop:80/c"],
        ),
        (
            "python, proxy",
            "python3",
            vec!["-c", PYTHON, "http://payments/charge", &proxy],
        ),
        (
            "curl, header",
            "curl",
            vec!["-sS", "-H", "x-outrigger-service: payments", &named],
        ),
        (
            "curl, Host",
            "curl",
            vec!["-sS", "-H", "Host: payments", &named],
        ),
        (
            "curl, a name that resolves here",
            "curl",
            vec!["-sS", "--resolve", &resolve, &by_name],
        ),
    ] {
        if let Some(answer) = run(program, &arguments) {
            assert_from_orders(who, &answer);
        }
    }
}

#[test]
fn a_token_does_as_well_and_calls_are_counted() {
    let _machine = shared_machine();
    let shop = shop(1, 1);
    assert_from_orders("localPort", &Request::get("/").send(shop.ports[0]).text());
    let token = Request::get("/entries").send(shop.ports[1]).json();
    assert_eq!(seen(&token, "x-service-name"), "orders");
    assert_eq!(seen(&token, "x-auth-strategy"), "jwt");
    println!("token: ledger saw `orders`");
    let metrics = shop.caller.metrics();
    let labels = [
        ("service", "shop/orders"),
        ("direction", "outbound"),
        ("peer", "shop/payments"),
        ("code", "200"),
    ];
    let count = metrics.count("outrigger_http_requests_total", &labels);
    assert!(count >= 1.0, "{count}");
    shop.caller
        .wait_for_line(&["\"dependency\":\"shop/payments\""]);
}

#[test]
fn a_call_goes_on_with_the_trace_the_app_was_given() {
    let _machine = shared_machine();
    let shop = shop(1, 1);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let inbound = Request::get("/")
        .header("traceparent", &parent)
        .send(shop.public);
    assert_eq!(inbound.header("x-trace-id"), Some(trace));
    assert_eq!(inbound.header("x-trace-service"), Some("shop/orders"));
    assert_eq!(inbound.header("x-trace-depth"), Some("0"));
    let given = seen(&inbound.json(), "traceparent");
    assert!(
        given.starts_with(&format!("00-{trace}-")) && given != parent,
        "{given}"
    );
    let call = Request::get("/")
        .header("traceparent", &given)
        .header("x-service-name", "root")
        .header("x-auth-subject", "root")
        .send(shop.ports[0]);
    let document = call.json();
    let onward = seen(&document, "traceparent");
    assert!(
        onward.starts_with(&format!("00-{trace}-")) && onward != given,
        "{onward}"
    );
    assert_eq!(
        seen(&document, "x-service-name"),
        "orders",
        "what the app forged is gone"
    );
    let deep = Request::get("/")
        .header("x-trace-depth", "64")
        .send(shop.ports[0]);
    assert_eq!((deep.status, deep.cause().as_str()), (508, "loop"));
    assert_eq!(shop.app.count(), 1);
}

/// A GET with `requests` where it is installed, else with the standard library:
/// the URL, then the proxy or nothing.
const PYTHON: &str = "
import sys, urllib.request
url, proxy = sys.argv[1], sys.argv[2]
proxies = {'http': proxy} if proxy else {}
try:
    import requests
    session = requests.Session()
    session.trust_env = False
    print(session.get(url, proxies=proxies).text)
except ImportError:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    print(opener.open(url).read().decode())
";

const GRPC_SERVER: &str = "
const http2 = require('http2');
const server = http2.createServer();
server.on('stream', (stream, headers) => {
  const chunks = [];
  stream.on('data', chunk => chunks.push(chunk));
  stream.on('end', () => {
    stream.respond({':status': 200, 'content-type': 'application/grpc',
      'x-saw': String(headers['x-service-name'])}, {waitForTrailers: true});
    stream.on('wantTrailers', () => stream.sendTrailers({'grpc-status': '0'}));
    stream.end(Buffer.concat(chunks));
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
";

const GRPC_CLIENT: &str = "
const http2 = require('http2');
const session = http2.connect('http://127.0.0.1:' + process.argv[1]);
const call = session.request({':method': 'POST', ':path': '/quotes.Quotes/Ask',
  'content-type': 'application/grpc', te: 'trailers'});
const message = Buffer.from([0, 0, 0, 0, 3, 97, 98, 99]);
let head, body = Buffer.alloc(0);
call.on('response', headers => { head = headers; });
call.on('data', chunk => { body = Buffer.concat([body, chunk]); });
call.on('trailers', trailers => {
  console.log(head[':status'], trailers['grpc-status'], head['x-saw'], body.equals(message));
});
call.on('end', () => session.close());
call.end(message);
";

#[test]
fn a_grpc_client_calls_through_its_local_port() {
    let _machine = shared_machine();
    let Some(server) = Server::start("node", &["-e", GRPC_SERVER]) else {
        return;
    };
    let shop = shop(server.port, 1);
    let port = shop.ports[2].to_string();
    let answer = run("node", &["-e", GRPC_CLIENT, &port]).unwrap();
    assert_eq!(answer.trim(), "200 0 orders true");
    drop(server);
    let failed = run(
        "node",
        &[
            "-e",
            &GRPC_CLIENT.replace(
                "call.on('trailers', trailers",
                "call.on('response', trailers",
            ),
            &port,
        ],
    );
    assert_eq!(
        failed.unwrap().trim(),
        "200 14 undefined false",
        "unavailable, in gRPC's words"
    );
}

#[test]
fn a_websocket_goes_through_its_local_port() {
    let _machine = shared_machine();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let chat = listener.local_addr().unwrap().port();
    let app = thread::spawn(move || {
        // The monitor of `healthCheck` asks too.
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            if !head.contains("upgrade: websocket") {
                continue;
            }
            assert!(head.contains("x-service-name: orders"), "{head}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            let mut frame = [0; 5];
            stream.read_exact(&mut frame).unwrap();
            stream.write_all(&frame).unwrap();
            return;
        }
    });
    let shop = shop(1, chat);
    let mut client = Client::connect(shop.ports[3]).unwrap();
    let ask = Request::get("/room")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(client.exchange(&ask).unwrap().status, 101);
    client.send(b"hello").unwrap();
    assert_eq!(client.exactly(5).unwrap(), b"hello");
    app.join().unwrap();
}
