//! The breaker's life, and what retries do to a chain.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::{free_port, free_ports};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

fn caller(port: u16, app: u16, dependency: &str) -> String {
    format!(
        "port: {port}\nupstream: {app}\nhealthCheck: false\nauth: {{strategy: none}}\n\
         dependencies:\n  - {{{dependency}}}\n"
    )
}

fn circuit(daemon: &Daemon) -> (String, f64) {
    let service = daemon.service("shop/orders");
    let state = service["dependencies"][0]["circuit"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let labels = [("service", "shop/orders"), ("peer", "payments")];
    (
        state,
        daemon.metrics().count("outrigger_circuit_state", &labels),
    )
}

#[test]
fn it_opens_after_five_lets_one_probe_through_and_closes() {
    let _machine = shared_machine();
    let failing = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&failing);
    let app = App::start(
        move |_: &Received, stream: &mut Connection| -> io::Result<Next> {
            if now.load(Ordering::Acquire) {
                stream.respond(500, "", b"broken")?;
            } else {
                // Long enough for others to come while the probe is under way.
                stream.wait(Duration::from_millis(500));
                stream.respond(200, "", b"ok")?;
            }
            Ok(Next::KeepAlive)
        },
    );
    let local = free_port();
    let ports = free_ports(2);
    let dependency = format!(
        "name: payments, address: \"127.0.0.1:{}\", localPort: {local}, healthCheck: false, \
         breaker: {{failures: 5, open: 2s}}",
        app.port()
    );
    let tree = Tree::with(&[("shop/orders", &caller(ports[0], ports[1], &dependency))]);
    let daemon = Setup::new(&tree).start();
    for _ in 0..5 {
        assert_eq!(Request::get("/").send(local).text(), "broken");
    }
    for _ in 0..20 {
        let refused = Request::get("/").send(local);
        assert_eq!(
            (refused.status, refused.cause().as_str()),
            (503, "circuit_open")
        );
        assert!(refused.header("retry-after").is_some());
        let status = refused.header("proxy-status").unwrap();
        assert!(status.contains("next-hop=\"payments\""), "{status}");
    }
    assert_eq!(app.count(), 5, "nothing reaches the app while it is open");
    assert_eq!(circuit(&daemon), ("open".to_owned(), 2.0));

    // The probe fails: open again for as long.
    wait_until("the time is over", SOON, || {
        circuit(&daemon).0 == "half-open"
    });
    assert_eq!(Request::get("/").send(local).text(), "broken");
    assert_eq!(Request::get("/").send(local).cause(), "circuit_open");
    assert_eq!(app.count(), 6);

    failing.store(false, Ordering::Release);
    wait_until("the time is over", SOON, || {
        circuit(&daemon).0 == "half-open"
    });
    let callers: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || Request::get("/").send(local).status))
        .collect();
    let mut statuses: Vec<u16> = callers.into_iter().map(|one| one.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 503, 503, 503, 503, 503, 503, 503],
        "one probe"
    );
    assert_eq!(app.count(), 7);
    assert_eq!(circuit(&daemon), ("closed".to_owned(), 0.0));
    assert_eq!(Request::get("/").send(local).status, 200);
    println!("opened after 5, 20 refused, probes let through: 2, closed on success");
}

/// Calls a local port for each request and passes the answer's status and body
/// on, as a simple app does.
fn passes_on(port: u16) -> impl Script {
    move |request: &Received, stream: &mut Connection| {
        let answer = Request::new(&request.method, &request.target).send(port);
        stream.respond(answer.status, "", &answer.body)?;
        Ok(Next::KeepAlive)
    }
}

/// Requests through a → b → leaf, all of which are told to retry; gives what
/// came through to the leaf.
fn chain(leaf_behind_sidecar: bool, requests: usize) -> usize {
    let leaf = App::start(|_: &Received, stream: &mut Connection| {
        stream.respond(503, "", b"overloaded")?;
        Ok(Next::KeepAlive)
    });
    let local = free_ports(2);
    let public = free_ports(3);
    let first = App::start(passes_on(local[0]));
    let second = App::start(passes_on(local[1]));
    let calls = |name: &str, port: u16, more: &str| {
        format!(
            "name: {name}, localPort: {port}, retries: 3, breaker: false, healthCheck: false{more}"
        )
    };
    let outside = format!(", address: \"127.0.0.1:{}\"", leaf.port());
    let tree = Tree::with(&[
        (
            "shop/a",
            &caller(public[0], first.port(), &calls("b", local[0], "")),
        ),
        (
            "shop/b",
            &caller(
                public[1],
                second.port(),
                &calls(
                    "leaf",
                    local[1],
                    if leaf_behind_sidecar { "" } else { &outside },
                ),
            ),
        ),
    ]);
    if leaf_behind_sidecar {
        let text = format!(
            "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n",
            public[2],
            leaf.port()
        );
        tree.write("shop/leaf", text);
    }
    let door = free_port();
    let _daemon = Setup::new(&tree)
        .env("SERVICE_CALL_RETRY_DELAY", "1")
        .env("OUTRIGGER_OUTBOUND_LISTEN", &format!("127.0.0.1:{door}"))
        .start();
    for _ in 0..requests {
        let answer = Request::get("/").send(public[0]);
        assert_eq!((answer.status, answer.text().as_str()), (503, "overloaded"));
    }
    leaf.count()
}

#[test]
fn a_failing_leaf_sees_at_most_a_fifth_more() {
    let _machine = shared_machine();
    const REQUESTS: usize = 500;
    for behind in [true, false] {
        let seen = chain(behind, REQUESTS);
        let times = seen as f64 / REQUESTS as f64;
        println!(
            "leaf behind a sidecar: {behind}: {seen} of {REQUESTS} requests, {times:.3} times"
        );
        assert!(seen >= REQUESTS && times <= 1.2, "{times}");
    }
}

#[test]
fn configured_retries_help_where_they_are_safe() {
    let _machine = shared_machine();
    let flaky = App::start(|request: &Received, stream: &mut Connection| {
        match request.connection % 2 {
            0 => stream.respond(503, "Connection: close\r\n", b"no")?,
            _ => stream.respond(200, "Connection: close\r\n", b"ok")?,
        }
        Ok(Next::Close)
    });
    let local = free_port();
    let ports = free_ports(2);
    let dependency = format!(
        "name: payments, address: \"127.0.0.1:{}\", localPort: {local}, retries: 1, healthCheck: false",
        flaky.port()
    );
    let tree = Tree::with(&[("shop/orders", &caller(ports[0], ports[1], &dependency))]);
    let daemon = Setup::new(&tree).start();
    assert_eq!(Request::get("/").send(local).status, 200, "asked twice");
    assert_eq!(flaky.count(), 2);
    assert_eq!(
        Request::post("/", "x").send(local).status,
        503,
        "asked once"
    );
    assert_eq!(flaky.count(), 3);
    let retries = daemon
        .metrics()
        .count("outrigger_retries_total", &[("reason", "status")]);
    assert_eq!(retries, 1.0);
}
