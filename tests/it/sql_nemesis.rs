//! A database that dies, freezes, moves or refuses: the door says which, soon,
//! and never answers wrongly.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::client::{Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::load::{Load, Work};
use crate::support::pki::{Authority, Dates};
use crate::support::ports::free_port;
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::sql::{SERVICE, post, query, request, service_as, tenant};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_for, wait_until, whole_machine};

/// The default `connectionTimeoutMillis`.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(2);

fn ask(daemon: &Daemon) -> Response {
    post(
        daemon,
        "/sql",
        &json!({"query": "select 1 as one", "params": []}),
    )
}

fn reason(response: &Response) -> String {
    let document: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    document["reason"].as_str().unwrap_or_default().to_owned()
}

/// What `/health` of the service says.
fn health(tree: &Tree) -> (u16, serde_json::Value) {
    let text = std::fs::read_to_string(tree.file(SERVICE)).expect("the file is ours");
    let port = text.lines().find_map(|line| line.strip_prefix("port: "));
    let port = port.and_then(|port| port.parse().ok()).expect("a port");
    let response = Request::get("/health").send(port);
    (response.status, response.json())
}

/// Waits until door and health both give the cause; checks that the door took
/// no longer than connecting may take.
#[track_caller]
fn says(tree: &Tree, daemon: &Daemon, expected: &str) {
    wait_until("the door opens", SOON, || {
        Request::get("/users/db")
            .header("Host", "localhost")
            .status(daemon.sql)
            == Some(200)
    });
    let (took, _) = wait_for(expected, SOON, || {
        let started = Instant::now();
        let response = ask(daemon);
        let took = started.elapsed();
        (reason(&response) == expected && response.status == 503).then_some(took)
    });
    assert!(took < CONNECTION_TIMEOUT + SLACK, "{expected}: {took:?}");
    assert_eq!(ask(daemon).cause(), "database_unavailable");
    wait_until(&format!("health says {expected}"), SOON, || {
        let (status, document) = health(tree);
        let message = document["message"].as_str().unwrap_or_default().to_owned();
        status == 503 && document["checks"]["database"] == false && message.contains(expected)
    });
}

/// A daemon that need not be started: its database is not as it should be.
fn spawn(file: &str) -> (Tree, Daemon) {
    let tree = Tree::with(&[(SERVICE, file)]);
    let daemon = Setup::new(&tree).spawn();
    (tree, daemon)
}

#[test]
fn what_is_wrong_from_the_start_is_named() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let name = tenant(cluster, "wrong");
    let good = service_as(cluster, &name, PASSWORD, &name, "");
    let host = format!("host: {}", cluster.host);
    let refused = format!("port: {}", free_port());
    let (silent, _held) = black_hole();
    let stripper = strips_tls();
    let port = format!("  port: {}\n", cluster.port);
    let read_only = tenant(cluster, "wrong");
    let set = format!("alter database {read_only} set default_transaction_read_only = on");
    cluster.sql("postgres", &set);
    let no_login = tenant(cluster, "wrong");
    cluster.sql("postgres", &format!("alter role {no_login} nologin"));
    let file = |user: &str, password: &str, database: &str, more: &str| {
        service_as(cluster, user, password, database, more)
    };
    let at = |from: &str, to: &str| good.replacen(from, to, 1);
    let tls = "  tls: {mode: require}\n";
    for (expected, file) in [
        (
            "no_answer",
            at(&port, &format!("  port: {}\n", says_nothing())),
        ),
        ("wrong_password", file(&name, "not-the-password", &name, "")),
        (
            "unknown_database",
            file(&name, PASSWORD, "no_such_database", ""),
        ),
        ("not_authorized", file(&no_login, PASSWORD, &name, "")),
        ("read_only", file(&read_only, PASSWORD, &read_only, "")),
        (
            "unknown_host",
            at(&host, "host: no-such-host.invalid") + "  tls: {mode: disable}\n",
        ),
        ("connect_refused", at(&port, &format!("  {refused}\n"))),
        ("connect_timeout", at(&port, &format!("  port: {silent}\n"))),
        ("tls_refused", file(&name, PASSWORD, &name, tls)),
        (
            "tls_refused",
            at(&port, &format!("  port: {stripper}\n")) + tls,
        ),
    ] {
        // As it is, and with a database that is prepared first.
        let prepared = file.replace("  provision: false\n  migrations: false\n", "");
        for (file, is_prepared) in [(&file, false), (&prepared, true)] {
            let (tree, daemon) = spawn(file);
            says(&tree, &daemon, expected);
            daemon.wait_for_line(&["the database cannot be reached", expected]);
            // The read-only one can be prepared as far as there is anything to do.
            if is_prepared && expected != "read_only" {
                daemon.wait_for_line(&["the database is not ready yet"]);
                let ready = Request::get("/readyz/users").send(daemon.observe);
                let said = ready.text();
                assert!(
                    said.contains("the database of shop/users: "),
                    "{expected}: {said}"
                );
            }
        }
    }
}

/// Accepts connections and leaves it at that.
fn says_nothing() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    port
}

/// A port whose queue is full: the kernel drops whoever asks.
fn black_hole() -> (u16, (Socket, Vec<Socket>)) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("a free port");
    listener.listen(0).expect("listens");
    let address = listener.local_addr().expect("bound");
    let port = address.as_socket().expect("an address").port();
    let mut held = Vec::new();
    for _ in 0..4 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("a socket");
        // Under way, or dropped.
        let _ = client.connect(&address);
        held.push(client);
    }
    (port, (listener, held))
}

/// Says no to every request for TLS, as somebody in between could.
fn strips_tls() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let mut request = [0; 8];
            if stream.read_exact(&mut request).is_ok() {
                let _ = stream.write_all(b"N");
                // Whatever came now would be in clear text.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                assert_eq!(rest, b"", "something was sent without TLS");
            }
        }
    });
    port
}

/// Asks for numbers; while the database is away, only that may be said.
struct Steadfast {
    next: AtomicU64,
    good: AtomicU64,
}

impl Work for std::sync::Arc<Steadfast> {
    fn request(&self) -> (Request, u64) {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let body = json!({"query": "select $1::int8 as n", "params": [number]});
        (request("/sql", &body), number)
    }

    fn check(&self, number: u64, response: &Response) -> Result<(), String> {
        if response.status == 503 && response.cause() == "database_unavailable" {
            return Ok(());
        }
        if response.status == 200 && response.json()["rows"][0]["n"] == json!(number.to_string()) {
            self.good.fetch_add(1, Ordering::AcqRel);
            return Ok(());
        }
        Err(format!("{} {}", response.status, response.text()))
    }
}

#[test]
fn a_killed_server_is_used_again_soon_after_it_is_back() {
    let _machine = whole_machine();
    let mut cluster = Cluster::private(&[]);
    let name = tenant(&cluster, "killed");
    let file = service_as(&cluster, &name, PASSWORD, &name, "  max: 8\n");
    let tree = Tree::with(&[(SERVICE, &file)]);
    let daemon = Setup::new(&tree).start();
    let work = std::sync::Arc::new(Steadfast {
        next: AtomicU64::new(1),
        good: AtomicU64::new(0),
    });
    let load = Load::start(
        daemon.sql,
        16,
        Duration::from_millis(1),
        std::sync::Arc::clone(&work),
    );
    let good = || work.good.load(Ordering::Acquire);
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let before = good();
        wait_until("queries succeed", SOON, || good() > before + 500);
        cluster.kill();
        wait_until("the door says so", SOON, || ask(&daemon).status == 503);
        cluster.start();
        let before = good();
        let took = wait_until("queries succeed again", SOON, || good() > before + 16);
        slowest = slowest.max(took);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let report = load.stop();
    assert_eq!(report.failures, 0, "{:?}", report.words);
    wait_until("health is well", SOON, || {
        health(&tree).1["checks"]["database"] == true
    });
    figure!(
        "database killed three times under load: back within {slowest:?} of accepting, \
         {} requests, none answered wrongly",
        report.requests
    );
}

#[test]
fn a_frozen_server_is_named_and_forgiven() {
    let _machine = shared_machine();
    let cluster = Cluster::private(&[]);
    let name = tenant(&cluster, "frozen");
    let file = service_as(&cluster, &name, PASSWORD, &name, "");
    let tree = Tree::with(&[(SERVICE, &file)]);
    let daemon = Setup::new(&tree).start();
    assert_eq!(ask(&daemon).status, 200);
    cluster.signal_all("STOP");
    let started = Instant::now();
    let response = ask(&daemon);
    let took = started.elapsed();
    assert_eq!(
        (response.status, reason(&response)),
        (503, "no_answer".to_owned())
    );
    // Silent for as long as connecting may take, and then asked anew.
    assert!(took < 2 * CONNECTION_TIMEOUT + SLACK, "{took:?}");
    let started = Instant::now();
    assert_eq!(reason(&ask(&daemon)), "no_answer");
    assert!(started.elapsed() < SLACK, "the second one need not wait");
    says(&tree, &daemon, "no_answer");
    cluster.signal_all("CONT");
    wait_until("it is used again", SOON, || ask(&daemon).status == 200);
    wait_until("health is well", SOON, || {
        health(&tree).1["checks"]["database"] == true
    });
}

#[test]
fn a_standby_is_named() {
    let _machine = shared_machine();
    let mut cluster = Cluster::private(&[]);
    let name = tenant(&cluster, "standby");
    let file = service_as(&cluster, &name, PASSWORD, &name, "");
    let tree = Tree::with(&[(SERVICE, &file)]);
    let daemon = Setup::new(&tree).start();
    query(&daemon, "create table t (x int)", &json!([]));
    cluster.kill();
    let signal = cluster.folder().join("data/standby.signal");
    std::fs::write(&signal, "").expect("the folder is ours");
    cluster.own(&signal);
    cluster.start();
    says(&tree, &daemon, "standby");
    let promoted = cluster.sql("postgres", "select pg_promote()");
    assert_eq!(promoted, "t");
    wait_until("it is used again", SOON, || ask(&daemon).status == 200);
    query(&daemon, "insert into t values (1)", &json!([]));
}

/// Certificates made by `openssl`, for tests only.
fn project_file(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/tests");
    std::fs::read(folder.join(name)).expect("the file is there")
}

/// A cluster that speaks TLS and knows clients of this authority.
fn with_tls(clients: &Authority) -> Cluster {
    let cluster = Cluster::private(&[]);
    for (bytes, to) in [
        (project_file("server.pem"), "server.crt"),
        (project_file("server.key.pem"), "server.key"),
        (clients.pem().as_bytes().to_vec(), "clients.crt"),
    ] {
        let target = cluster.folder().join("data").join(to);
        std::fs::write(&target, bytes).expect("the folder is ours");
        cluster.own(&target);
    }
    cluster.sql("postgres", "alter system set ssl = on");
    cluster.sql("postgres", "alter system set ssl_ca_file = 'clients.crt'");
    cluster.sql("postgres", "select pg_reload_conf()");
    let on = "select setting from pg_settings where name = 'ssl'";
    wait_until("TLS is on", SOON, || cluster.sql("postgres", on) == "on");
    cluster
}

#[test]
fn a_client_certificate_is_replaced_while_up() {
    let _machine = shared_machine();
    let authority = Authority::new("clients");
    let cluster = with_tls(&authority);
    let name = tenant(&cluster, "rotated");
    let tls = "  tls: {mode: require, cert: client.pem, key: client.key}\n";
    let tree = Tree::with(&[(SERVICE, &service_as(&cluster, &name, PASSWORD, &name, tls))]);
    let issue = || authority.issue(&["users.shop"], Dates::Now);
    issue().write(&tree.folder(SERVICE), "client");
    let daemon = Setup::new(&tree).start();
    let shown = || {
        let serial =
            "select client_serial::text as it from pg_stat_ssl where pid = pg_backend_pid()";
        query(&daemon, serial, &json!([]))["rows"][0]["it"].to_string()
    };
    let before = shown();
    assert_ne!(before, "null");
    issue().write(&tree.folder(SERVICE), "client");
    daemon.reload();
    wait_until("the new certificate is shown", SOON, || shown() != before);
    // Nothing about it was a reason to doubt.
    assert_eq!(Request::get("/startupz").status(daemon.observe), Some(200));
}

#[test]
fn tls_is_verified_and_bound_to_the_login() {
    let _machine = shared_machine();
    let cluster = with_tls(&Authority::new("clients"));
    let name = tenant(&cluster, "tls");
    let tls = |mode: &str, ca: &str| {
        let tree = Tree::new();
        let path = tree.folder(SERVICE).join("ca.pem");
        std::fs::create_dir_all(tree.folder(SERVICE)).expect("the folder is ours");
        std::fs::write(path, project_file(ca)).expect("the folder is ours");
        let ca = if mode == "require" {
            ""
        } else {
            ", ca: ca.pem"
        };
        let more = format!("  tls: {{mode: {mode}{ca}}}\n");
        let file = service_as(&cluster, &name, PASSWORD, &name, &more);
        tree.write(SERVICE, file.replace("host: 127.0.0.1", "host: localhost"));
        tree
    };
    let used = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for mode in ["verify-full", "require"] {
        let tree = tls(mode, "ca.pem");
        let daemon = Setup::new(&tree).start();
        assert_eq!(
            query(&daemon, used, &json!([]))["rows"],
            json!([{"ssl": true}]),
            "{mode}"
        );
    }
    let tree = tls("verify-full", "other-ca.pem");
    let daemon = Setup::new(&tree).spawn();
    says(&tree, &daemon, "tls_failed");
}
