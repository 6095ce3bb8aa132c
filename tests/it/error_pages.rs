//! `docs/errors.md`: every cause is there, and its sample line is what the
//! daemon writes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use outrigger::model::Cause;
use serde_json::Value;

use crate::support::app::{App, Next};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::manifests::project;
use crate::support::ports::free_ports;
use crate::support::scripts::{self, Routes};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// Set to write the sample lines of the page anew.
const UPDATE: &str = "OUTRIGGER_TEST_UPDATE_DOCS";

/// What cannot be provoked from outside: a fault of the sidecar itself, a
/// service in the moment of its removal, and what needs a database.
const NOT_PROVOKED: [&str; 4] = [
    "internal",
    "app_unavailable",
    "database_unavailable",
    "tx_expired",
];

/// The sample line of each cause.
fn samples() -> BTreeMap<String, String> {
    let page = fs::read_to_string(project("docs/errors.md")).unwrap();
    let sections = page.split("\n## `").skip(1);
    sections
        .map(|section| {
            let (cause, rest) = section.split_once('`').unwrap();
            let sample = rest
                .split("```json\n")
                .nth(1)
                .unwrap()
                .lines()
                .next()
                .unwrap();
            for part in ["\nStatus ", "\n**Meaning.** ", "\n**Cure.** "] {
                assert!(rest.contains(part), "{cause}: no {part}");
            }
            (cause.to_owned(), sample.to_owned())
        })
        .collect()
}

#[test]
fn every_cause_has_a_section() {
    let samples = samples();
    assert_eq!(samples.len(), Cause::ALL.len(), "{:?}", samples.keys());
    for cause in Cause::ALL {
        let sample: Value = serde_json::from_str(&samples[cause.as_str()]).unwrap();
        assert_eq!(sample["cause"], cause.as_str());
        assert_eq!(sample["message"], "request failed");
        let page = fs::read_to_string(project("docs/errors.md")).unwrap();
        let section = page
            .split(&format!("\n## `{}`", cause.as_str()))
            .nth(1)
            .unwrap();
        let line = section
            .lines()
            .find(|line| line.starts_with("Status "))
            .unwrap();
        assert!(
            line.contains(&sample["status"].to_string()),
            "{line}: {sample}"
        );
    }
}

/// A line with what differs from run to run replaced.
fn steady(line: &str) -> String {
    let mut line = line.to_owned();
    for (name, value) in [
        ("timestamp", "\"2031-01-01T00:00:00.000Z\""),
        ("request_id", "\"2535858ca551d9d4079e7e866321bbab\""),
        ("trace_id", "\"4bf92f3577b34da6a3ce929d0e0e4736\""),
        ("service", "\"shop/users\""),
        ("peer", "\"10.0.0.7\""),
        ("upstream_address", "\"127.0.0.1:13001\""),
        ("generation", "1"),
        ("connect_ms", "0.1"),
        ("wait_ms", "0.3"),
        ("total_ms", "0.4"),
    ] {
        let name = format!("\"{name}\":");
        if let Some((before, rest)) = line.split_once(&name) {
            let end = rest.find(",\"").unwrap_or(rest.len() - 1);
            line = format!("{before}{name}{value}{}", &rest[end..]);
        }
    }
    line
}

/// A listener whose accept queue is full: further connections are not answered.
fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let patience = Duration::from_millis(200);
    let fillers = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok());
    let fillers = fillers.collect();
    (listener, fillers)
}

/// Public ports by the service's name.
type Ports = BTreeMap<&'static str, u16>;

/// Services that fail, each in its way.
struct House {
    daemon: Daemon,
    _tree: Tree,
    users: u16,
    others: Ports,
    nowhere: u16,
    broken: u16,
    door: u16,
    _apps: (App, App),
    _full: (TcpListener, Vec<TcpStream>),
}

/// The files of the services beside `users`.
fn failing(tree: &Tree, ports: &[u16], app: u16, silent: u16, full: u16) -> Ports {
    let gone = ports[4];
    let files = [
        ("gone", format!("upstream: {gone}\nauth: none\n")),
        (
            "hooked",
            format!("upstream: {app}\nauth: {{hook: {{url: \"http://127.0.0.1:{gone}/\"}}}}\n"),
        ),
        (
            "small",
            format!("upstream: {silent}\nauth: none\nlimits: {{inFlight: 1}}\n"),
        ),
        (
            "full",
            format!(
                "upstream: {{url: \"http://127.0.0.1:{full}\", connectTimeout: 200ms}}\nauth: none\n"
            ),
        ),
        ("bad", "auth: {strategy: jwt}\n".to_owned()),
    ];
    let mut others = BTreeMap::new();
    for ((name, rest), port) in files.into_iter().zip(&ports[5..]) {
        let text = format!("port: {port}\nhealthCheck: false\n{rest}");
        tree.write(&format!("shop/{name}"), text);
        others.insert(name, *port);
    }
    others
}

fn house() -> House {
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
    let app = App::start(Routes(vec![
        ("/closed", Box::new(scripts::closes_after(0))),
        ("/garbage", Box::new(scripts::garbage())),
        ("/switch", Box::new(scripts::bytes(*switch, Next::Close))),
        ("/slow", Box::new(scripts::silent)),
    ]));
    let silent = App::start(scripts::silent);
    let full = full();
    let full_port = full.0.local_addr().unwrap().port();
    let ports = free_ports(10);
    let (users, nowhere, broken, door) = (ports[0], ports[1], ports[2], ports[3]);
    let tree = Tree::new();
    let text = format!(
        "port: {users}\nupstream: {{url: \"http://127.0.0.1:{}\", responseTimeout: 300ms}}\n\
         healthCheck: false\ntracing: {{enabled: true}}\n\
         limits: {{headerTimeout: 400ms, bodyBytes: 10B}}\n\
         auth:\n  apiKey: {{keys: [{{id: web, key: web-key-change-me-0123456789}}]}}\n  rules:\n    \
         - {{paths: [/closed, /garbage, /switch, /slow], strategy: none}}\ndependencies:\n  \
         - {{name: nowhere, address: \"no-such-host.invalid:80\", localPort: {nowhere}, healthCheck: false}}\n  \
         - {{name: broken, address: \"127.0.0.1:{}\", localPort: {broken}, healthCheck: false, \
         breaker: {{failures: 1, open: 60s}}}}\n",
        app.port(),
        ports[4],
    );
    tree.write("shop/users", text);
    let others = failing(&tree, &ports, app.port(), silent.port(), full_port);
    let daemon = Setup::new(&tree)
        .process("log: {level: debug, format: json}")
        .env("OUTRIGGER_OUTBOUND_LISTEN", &format!("127.0.0.1:{door}"))
        .start();
    House {
        daemon,
        _tree: tree,
        users,
        others,
        nowhere,
        broken,
        door,
        _apps: (app, silent),
        _full: full,
    }
}

impl House {
    /// Has every cause written once.
    fn provoke(&self) {
        let get = |target: &str, port: u16| Request::get(target).send(port).status;
        let post = Request::post("/closed", "more than ten bytes").send(self.users);
        assert_eq!(post.status, 413);
        assert_eq!(get("/", self.users), 401);
        assert_eq!(get("/closed", self.users), 502);
        assert_eq!(get("/garbage", self.users), 502);
        assert_eq!(get("/slow", self.users), 504);
        let upgrade = Request::get("/switch").header("Connection", "Upgrade");
        assert_eq!(
            upgrade
                .header("Upgrade", "websocket")
                .send(self.users)
                .status,
            502
        );
        for (name, status) in [("gone", 502), ("hooked", 503), ("full", 504), ("bad", 503)] {
            assert_eq!(get("/", self.others[name]), status, "{name}");
        }
        assert_eq!(get("/", self.nowhere), 502);
        let deep = Request::get("/").header("x-trace-depth", "64");
        assert_eq!(deep.send(self.nowhere).status, 508);
        assert_eq!((get("/", self.broken), get("/", self.broken)), (502, 503));
        let unknown = Request::get("/").header("x-outrigger-service", "nobody");
        assert_eq!(unknown.send(self.door).status, 404);
        // One request is held by an app that does not answer, the next is too many;
        // then the first one's client goes away.
        let mut held = Client::connect(self.others["small"]).unwrap();
        held.send(&Request::get("/").bytes()).unwrap();
        wait_until("the first is in flight", SOON, || {
            let labels = [("service", "shop/small")];
            let metrics = self.daemon.metrics();
            metrics.count("outrigger_http_requests_in_flight", &labels) == 1.0
        });
        assert_eq!(get("/", self.others["small"]), 503);
        drop(held);
        // A head that does not come to its end.
        let mut slow = Client::connect(self.users).unwrap();
        slow.send(b"GET / HTTP/1.1\r\nHost: a").unwrap();
        self.daemon.wait_for_line(&["\"cause\":\"client_timeout\""]);
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "settings of the tests themselves"
)]
fn sample_lines_are_what_the_daemon_writes() {
    let _machine = shared_machine();
    let house = house();
    house.provoke();
    let samples = samples();
    let path = project("docs/errors.md");
    let mut page = fs::read_to_string(&path).unwrap();
    let mut wrong = Vec::new();
    for cause in Cause::ALL.map(Cause::as_str) {
        if NOT_PROVOKED.contains(&cause) {
            continue;
        }
        let line = house
            .daemon
            .wait_for_line(&["request failed", &format!("\"cause\":\"{cause}\"")]);
        let line = steady(&line);
        if samples.get(cause) != Some(&line) {
            wrong.push(format!("{cause}: {line}"));
            let (before, after) = page.split_once(&format!("\n## `{cause}`")).unwrap();
            let (head, rest) = after.split_once("```json\n").unwrap();
            let (_, rest) = rest.split_once('\n').unwrap();
            page = format!("{before}\n## `{cause}`{head}```json\n{line}\n{rest}");
        }
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, page).unwrap();
        return;
    }
    assert!(
        wrong.is_empty(),
        "docs/errors.md differs; look at each line and run once with {UPDATE}=1:\n{}",
        wrong.join("\n")
    );
}
