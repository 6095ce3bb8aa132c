//! What is left behind by clients, transactions, services and processes that
//! go: nothing.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Client;
use crate::support::postgres::Cluster;
use crate::support::sql::{
    SERVICE, begin, body, daemon_with, post, query, request, rows, sessions,
};
use crate::support::wait::{SOON, shared_machine, wait_until};

#[test]
fn a_transaction_ends_with_its_process_or_its_service() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let (tree, mut daemon, name) = daemon_with(cluster, "ending", "  max: 4\n");
    query(&daemon, "create table t (x int)", &json!([]));
    let open = format!(
        "select count(*) from pg_stat_activity where usename = '{name}' and state like 'idle in%'"
    );
    let insert = body("insert into t values (1)");
    // The database is taken from the service while a transaction is open and a
    // query runs.
    let place = begin(&daemon);
    assert_eq!(post(&daemon, &format!("{place}/sql"), &insert).status, 200);
    let text = std::fs::read_to_string(tree.file(SERVICE)).expect("the file is ours");
    let bare = text
        .split("database:")
        .next()
        .expect("what comes before")
        .to_owned();
    let port = daemon.sql;
    let slow = request("/sql", &body("select pg_sleep(2)::text as s, 5 as five"));
    let slow = thread::spawn(move || slow.send(port));
    wait_until("the query runs", SOON, || {
        let runs = format!(
            "select count(*) from pg_stat_activity where usename = '{name}' and state = 'active'"
        );
        cluster.sql("postgres", &runs) == "1"
    });
    tree.replace(SERVICE, &bare);
    assert_eq!(daemon.reload().status, 200);
    wait_until("the transaction was rolled back", SOON, || {
        cluster.sql("postgres", &open) == "0"
    });
    assert_eq!(
        post(&daemon, &format!("{place}/commit"), &json!({})).status,
        404
    );
    let answer = slow.join().expect("no panic");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["rows"][0]["five"], 5);
    wait_until("every session was closed", SOON, || sessions(&name) == 0);
    // It comes back, and the process ends with a transaction open.
    tree.replace(SERVICE, &text);
    assert_eq!(daemon.reload().status, 200);
    wait_until("it is served again", SOON, || {
        post(&daemon, "/sql", &body("select 1")).status == 200
    });
    let place = begin(&daemon);
    assert_eq!(post(&daemon, &format!("{place}/sql"), &insert).status, 200);
    let started = Instant::now();
    daemon.signal("TERM");
    let (status, output) = daemon.wait_for_exit(2 * SOON);
    assert!(status.success(), "{status}: {output}");
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
    wait_until("nothing is left", SOON, || sessions(&name) == 0);
    assert_eq!(cluster.sql(&name, "select count(*) from t"), "0");
}

#[test]
fn a_transaction_that_nobody_uses_is_rolled_back() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let (_tree, daemon, name) = daemon_with(cluster, "idle", "  max: 4\n");
    query(&daemon, "create table t (x int)", &json!([]));
    let (idle, busy) = (begin(&daemon), begin(&daemon));
    let insert = body("insert into t values (1)");
    for place in [&idle, &busy] {
        assert_eq!(post(&daemon, &format!("{place}/sql"), &insert).status, 200);
    }
    let open = format!(
        "select count(*) from pg_stat_activity where usename = '{name}' and state like 'idle in%'"
    );
    // One that is used lives on meanwhile.
    let mut used = Instant::now();
    let took = wait_until("the idle one is over", 3 * SOON, || {
        if used.elapsed() > Duration::from_secs(10) {
            used = Instant::now();
            assert_eq!(
                post(&daemon, &format!("{busy}/sql"), &body("select 1")).status,
                200
            );
        }
        cluster.sql("postgres", &open) == "1"
    });
    assert!(took > Duration::from_secs(25), "{took:?}");
    let gone = post(&daemon, &format!("{idle}/commit"), &json!({}));
    assert_eq!((gone.status, gone.cause()), (410, "tx_expired".to_owned()));
    assert_eq!(
        post(&daemon, &format!("{busy}/commit"), &json!({})).status,
        200
    );
    assert_eq!(rows(&daemon, "select count(*) from t"), json!([["1"]]));
}

#[test]
fn a_client_that_reads_slowly_holds_no_session() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "slow", "  max: 1\n");
    query(&daemon, "select 1", &json!([]));
    let large = body("select repeat('x', 1024 * 1024) as v from generate_series(1, 9)");
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(daemon.sql).expect("the door accepts");
        client.send(&request("/sql", &large).bytes()).expect("sent");
        slow.push(client);
    }
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(post(&daemon, "/sql", &body("select 1")).status, 200);
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    for client in &mut slow {
        let answer = client.response().expect("it was written down");
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 9 * 1024 * 1024);
    }
}

#[test]
fn clients_that_vanish_in_every_phase_leave_nothing() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let (_tree, daemon, name) = daemon_with(cluster, "phases", "  max: 2\n");
    query(&daemon, "create table t (x int)", &json!([]));
    let insert = body("insert into t select generate_series(1, 1000)");
    let bytes = request("/sql", &insert).bytes();
    let head = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    // In the head, after it, in the body: never run.
    for end in [1, head / 2, head + 4, bytes.len() - 1] {
        let mut client = Client::connect(daemon.sql).expect("the door accepts");
        client.send(&bytes[..end]).expect("sent");
        client.reset();
    }
    assert_eq!(rows(&daemon, "select count(*) from t"), json!([["0"]]));
    // While it runs, while the answer is written, while a transaction begins.
    for (path, sql) in [
        ("/sql", "select pg_sleep(60)"),
        (
            "/sql",
            "select repeat('x', 1000) from generate_series(1, 9000)",
        ),
        ("/users/tx", ""),
    ] {
        for _ in 0..5 {
            let mut client = Client::connect(daemon.sql).expect("the door accepts");
            let what = if sql.is_empty() { json!({}) } else { body(sql) };
            client.send(&request(path, &what).bytes()).expect("sent");
            client.reset();
        }
    }
    let open = format!(
        "select count(*) from pg_stat_activity where usename = '{name}' and state <> 'idle'"
    );
    // A transaction that began for nobody is over when it has idled: it holds
    // half of the pool until then, and no more.
    wait_until("no query runs", SOON, || {
        let running = format!("{open} and state = 'active'");
        cluster.sql("postgres", &running) == "0"
    });
    assert_eq!(post(&daemon, "/sql", &body("select 1")).status, 200);
    assert!(sessions(&name) <= 2);
}
