//! Hostile ground: no descriptors, and an output nobody takes (SPEC §11).

use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::{STEP, guarded, open};
use crate::support::isolation::Wrapper;
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// Descriptors the process may have, of which 64 are kept.
const LIMIT: usize = 128;

#[test]
fn a_flood_of_connections_leaves_the_doors_alone() {
    let _machine = shared_machine();
    let app = App::start(scripts::say_header(STEP));
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let daemon = Setup::new(&tree)
        .within(Wrapper::after(&format!("ulimit -n {LIMIT}")))
        .start();
    let before = daemon.descriptors();
    let mut idle = Vec::new();
    let mut answered = 0;
    // Each asks once and stays; those not accepted wait in the kernel's queue.
    for _ in 0..400 {
        let mut client = Client::connect(port).unwrap();
        client.patience(Duration::from_millis(30));
        if client.exchange(&Request::get("/")).is_ok() {
            answered += 1;
        }
        idle.push(client);
    }
    let most = daemon.descriptors();
    assert!(
        most <= LIMIT - 40,
        "{most} descriptors: the reserve was used"
    );
    assert!(answered >= 10, "only {answered} were served");
    for step in 1..=5 {
        assert_eq!(Request::get("/livez").status(daemon.observe), Some(200));
        assert_eq!(Request::get("/readyz").status(daemon.observe), Some(200));
        assert_eq!(daemon.admin_get("/services").status, 200);
        assert!(daemon.metrics().count("process_open_fds", &[]) > 0.0);
        tree.replace("shop/cart", open(port, app.port(), step));
        let reloaded = daemon.reload();
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    }
    drop(idle);
    wait_until("it serves again", SOON, || {
        let mut client = Client::connect(port).unwrap();
        client.patience(Duration::from_millis(500));
        let response = client.exchange(&Request::get("/"));
        response.is_ok_and(|response| response.text() == "5")
    });
    wait_until("descriptors are given back", SOON, || {
        daemon.descriptors() <= before + 10
    });
    figure!("ulimit -n {LIMIT}, 400 connections: {answered} served, {most} descriptors at most");
}

#[test]
fn a_drain_without_descriptors_serves_what_waits() {
    let _machine = shared_machine();
    let app = App::start(scripts::slow(Duration::from_millis(20)));
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let mut daemon = Setup::new(&tree)
        .process("shutdown: {accept: 300ms, deadline: 40s}")
        .within(Wrapper::after(&format!("ulimit -n {LIMIT}")))
        .start();
    // Kept without a request: they hold what the others need.
    let idle: Vec<Client> = (0..8).map(|_| Client::connect(port).unwrap()).collect();
    let mut clients: Vec<Client> = (0..250).map(|_| Client::connect(port).unwrap()).collect();
    for client in &mut clients {
        client.patience(Duration::from_secs(40));
        client.send(&Request::get("/").bytes()).unwrap();
    }
    daemon.signal("TERM");
    let mut most = 0;
    for client in &mut clients {
        assert_eq!(client.response().unwrap().status, 200);
        most = most.max(daemon.descriptors());
    }
    assert!(
        most <= LIMIT - 40,
        "{most} descriptors: the reserve was used"
    );
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    drop(idle);
}

/// A flood of requests with a log line each; everything goes on.
fn keeps_going(daemon: &mut Daemon, port: u16, until_dropped: bool) {
    let dropped = |daemon: &Daemon| {
        daemon
            .metrics()
            .count("outrigger_log_lines_dropped_total", &[])
    };
    let mut client = Client::connect(port).unwrap();
    let mut slowest = Duration::ZERO;
    let mut requests = 0;
    let begun = Instant::now();
    let target = format!("/{}", "p".repeat(900));
    while requests < 300 || (until_dropped && dropped(daemon) == 0.0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing dropped");
        for _ in 0..100 {
            let sent = Instant::now();
            let response = client.exchange(&Request::get(&target)).unwrap();
            assert_eq!(response.status, 200);
            slowest = slowest.max(sent.elapsed());
            requests += 1;
        }
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(Request::get("/livez").status(daemon.observe), Some(200));
    assert_eq!(daemon.reload().status, 200);
    let lost = dropped(daemon);
    drop(client);
    daemon.signal("TERM");
    let begun = Instant::now();
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    // The log is given two seconds at the end, and not more.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    println!("{requests} requests, slowest {slowest:?}, {lost} lines dropped");
}

fn with_output(script: &str) -> (App, Tree, Daemon, u16) {
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let daemon = Setup::new(&tree)
        .process("accessLog: all\nshutdown: {accept: 100ms, deadline: 5s}")
        .within(Wrapper::after(script))
        .start();
    (app, tree, daemon, port)
}

#[test]
fn a_closed_output_costs_lines_and_nothing_else() {
    let _machine = shared_machine();
    let (_app, _tree, mut daemon, port) = with_output("exec >&- 2>&-");
    keeps_going(&mut daemon, port, false);
}

#[test]
fn a_full_output_costs_lines_and_nothing_else() {
    let _machine = shared_machine();
    let (_app, _tree, mut daemon, port) = with_output("exec >/dev/full 2>/dev/full");
    keeps_going(&mut daemon, port, true);
}

#[test]
fn a_blocked_output_costs_lines_and_nothing_else() {
    let _machine = shared_machine();
    // Somebody has the pipe open and never reads.
    let script = "mkfifo pipe && { sleep 120 <pipe >/dev/null 2>&1 & } && exec >pipe 2>&1";
    let (_app, _tree, mut daemon, port) = with_output(script);
    keeps_going(&mut daemon, port, true);
}

#[test]
fn a_blocked_output_does_not_outlast_the_deadline() {
    let _machine = shared_machine();
    let app = App::start(scripts::hung_stream);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let script = "mkfifo pipe && { sleep 120 <pipe >/dev/null 2>&1 & } && exec >pipe 2>&1";
    let mut daemon = Setup::new(&tree)
        .process("accessLog: all\nshutdown: {accept: 100ms, deadline: 3s}")
        .within(Wrapper::after(script))
        .start();
    let target = format!("/{}", "p".repeat(8000));
    // Each leaves a line when its client goes: more than a pipe holds.
    for _ in 0..40 {
        let mut client = Client::connect(port).unwrap();
        client.send(&Request::get(&target).bytes()).unwrap();
        client.head().unwrap();
    }
    let mut stream = Client::connect(port).unwrap();
    stream.send(&Request::get("/").bytes()).unwrap();
    stream.head().unwrap();
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(3600), "{took:?}");
}

#[test]
fn a_flood_of_refusals_becomes_a_summary() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &guarded(port, app.port()))]);
    let daemon = Setup::new(&tree).start();
    let mut client = Client::connect(port).unwrap();
    let begun = Instant::now();
    let wrong = Request::get("/").key("wrong");
    for _ in 0..1000 {
        assert_eq!(client.exchange(&wrong).unwrap().status, 401);
    }
    let seconds = begun.elapsed().as_secs() as usize + 2;
    let count = |line: &str| -> usize {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        line["count"].as_u64().unwrap_or_default() as usize
    };
    let told = || {
        let output = daemon.output();
        let lines = output.lines().filter(|line| line.contains("auth_denied"));
        let (summaries, single): (Vec<_>, Vec<_>) =
            lines.partition(|line| line.contains("not logged one by one"));
        // Reasons go to the log.
        assert!(single.iter().all(|line| line.contains("\"detail\":\"")));
        let summed: usize = summaries.into_iter().map(count).sum();
        (single.len(), summed)
    };
    wait_until("every refusal is in the log", SOON, || {
        let (single, summed) = told();
        single + summed == 1000
    });
    let (single, _) = told();
    assert!(single <= 100 * seconds, "{single} lines in {seconds} s");
}
