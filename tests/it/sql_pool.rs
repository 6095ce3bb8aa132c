//! The pool under pressure: nobody starves, `max` holds, nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request, Response};
use crate::support::daemon::Daemon;
use crate::support::figures::figure;
use crate::support::load::{Load, Work};
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::sql::{SERVICE, daemon_with, post, query, request, service_as, sessions};
use crate::support::wait::{SOON, pause, shared_machine, wait_until, whole_machine};

/// Each request asks for a number of its own, and must get it.
struct Numbers(AtomicU64);

impl Numbers {
    fn new() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Work for Numbers {
    fn request(&self) -> (Request, u64) {
        let number = self.0.fetch_add(1, Ordering::AcqRel);
        let body = json!({"query": "select $1::int8 as n", "params": [number]});
        (request("/sql", &body), number)
    }

    fn check(&self, number: u64, response: &Response) -> Result<(), String> {
        if response.status != 200 {
            return Err(format!("{} {}", response.status, response.text()));
        }
        match response.json()["rows"][0]["n"] == json!(number.to_string()) {
            true => Ok(()),
            false => Err(format!("a wrong answer to {number}: {}", response.text())),
        }
    }
}

/// Counts a role's sessions again and again; the most there ever were.
struct Census {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Census {
    fn start(role: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, role) = (Arc::clone(&stop), role.to_owned());
        let thread = thread::spawn(move || {
            let sql = format!("select count(*) from pg_stat_activity where usename = '{role}'");
            let mut most = 0;
            while !stopped.load(Ordering::Acquire) {
                let count = Cluster::shared().sql("postgres", &sql);
                most = most.max(count.parse().expect("a number"));
            }
            most
        });
        Self { stop, thread }
    }

    fn most(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("counting does not panic")
    }
}

#[test]
fn two_hundred_clients_share_ten_connections_and_a_reload() {
    let _machine = whole_machine();
    let cluster = Cluster::shared();
    let (tree, daemon, name) = daemon_with(cluster, "crowd", "  max: 10\n");
    let file = |max: u32, more: &str| {
        let text = std::fs::read_to_string(tree.file(SERVICE)).expect("the file is ours");
        let kept = text
            .lines()
            .filter(|line| !line.contains("max:") && !line.contains("idle"));
        let kept: Vec<&str> = kept.collect();
        format!("{}\n  max: {max}\n{more}", kept.join("\n"))
    };
    let census = Census::start(&name);
    let load = Load::start(daemon.sql, 200, Duration::ZERO, Numbers::new());
    wait_until("the load runs", SOON, || load.requests() > 2000);
    let swaps = [
        (6, ""),
        (10, "  idleTimeoutMillis: 5000\n"),
        (3, ""),
        (10, ""),
        (1, ""),
        (10, ""),
        (2, ""),
        (10, ""),
        (1, ""),
        (10, ""),
    ];
    for (max, more) in swaps {
        let before = load.requests();
        tree.replace(SERVICE, file(max, more));
        let outcome = daemon.reload();
        assert_eq!(outcome.status, 200, "{}", outcome.text());
        wait_until("it goes on", SOON, || load.requests() > before + 1000);
    }
    tree.replace(SERVICE, file(2, ""));
    assert_eq!(daemon.reload().status, 200);
    wait_until("the others are gone", SOON, || sessions(&name) <= 2);
    let (few, before) = (Census::start(&name), load.requests());
    wait_until("it goes on with two", SOON, || {
        load.requests() > before + 1000
    });
    let few = few.most();
    assert!(few <= 2, "{few} sessions of two");
    let report = load.stop();
    let most = census.most();
    assert_eq!(report.failures, 0, "{:?}", report.words);
    assert!(most <= 10, "{most} sessions at once");
    assert!(
        report.slowest < Duration::from_secs(2),
        "{:?}",
        report.slowest
    );
    figure!(
        "SQL door: 200 clients on a pool of 10, {} pool swaps: {} queries, 0 failed, \
         longest wait {:?}, at most {most} sessions",
        swaps.len(),
        report.requests,
        report.slowest
    );
}

#[test]
fn waiting_in_vain_is_answered_with_the_cause() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "hog", "  max: 1\n");
    query(&daemon, "select 1", &json!([]));
    let sleep = json!({"query": "select pg_sleep(6)", "params": []});
    let port = daemon.sql;
    let hog = thread::spawn(move || request("/sql", &sleep).send(port));
    wait_until("the only connection is taken", SOON, || {
        active(&daemon) == 1
    });
    let started = Instant::now();
    let response = post(&daemon, "/sql", &json!({"query": "select 1", "params": []}));
    let took = started.elapsed();
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.cause(), "database_unavailable");
    assert_eq!(response.json()["reason"], "pool_exhausted");
    assert!(response.header("retry-after").is_some());
    assert!(
        took > Duration::from_millis(1800) && took < Duration::from_secs(4),
        "{took:?}"
    );
    let metrics = daemon.metrics();
    assert_eq!(
        metrics.sum("outrigger_db_pool_timeouts_total", &[]),
        Some(1.0)
    );
    assert_eq!(hog.join().expect("no panic").status, 200);
    query(&daemon, "select 1", &json!([]));
}

fn active(daemon: &Daemon) -> u64 {
    let pools = daemon.admin_get("/pools").json();
    let active = &pools["services"][0]["database"]["activeConnections"];
    active.as_u64().expect("a number")
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let (_tree, daemon, name) = daemon_with(cluster, "vanish", "  max: 2\n");
    query(&daemon, "create table t (x int)", &json!([]));
    let busy = format!(
        "select count(*) from pg_stat_activity where usename = '{name}' \
         and (state <> 'idle' or query like '%pg_sleep%' and state = 'active')"
    );
    let locks = "select count(*) from pg_locks where locktype = 'advisory'";
    let hang = "select pg_advisory_lock(99), set_config('app.gone', '1', false), pg_sleep(60)";
    for path in ["/sql", "/users/tx"] {
        let path = match path {
            "/sql" => path.to_owned(),
            begin => {
                let begun = post(&daemon, begin, &json!({}));
                let place = begun.header("location").expect("a place").to_owned();
                let insert = json!({"query": "insert into t values (1)", "params": []});
                assert_eq!(post(&daemon, &format!("{place}/sql"), &insert).status, 200);
                format!("{place}/sql")
            }
        };
        let mut client = Client::connect(daemon.sql).expect("the door accepts");
        let body = json!({"query": hang, "params": []});
        client.send(&request(&path, &body).bytes()).expect("sent");
        wait_until("the query runs", SOON, || cluster.sql(&name, locks) == "1");
        drop(client);
        let took = wait_until("nothing is left", SOON, || {
            cluster.sql(&name, locks) == "0" && cluster.sql("postgres", &busy) == "0"
        });
        assert!(took < Duration::from_secs(5), "{took:?}");
        if path != "/sql" {
            let again = post(&daemon, &path, &body);
            assert_eq!(
                (again.status, again.cause()),
                (410, "tx_expired".to_owned())
            );
        }
    }
    let sql = "select (select count(*) from t)::int, current_setting('app.gone', true)";
    for _ in 0..4 {
        let row = query(&daemon, sql, &json!([]))["rows"][0].clone();
        assert_eq!(row["count"], 0);
        assert!(row["current_setting"].is_null() || row["current_setting"] == "");
    }
}

#[test]
fn our_own_clock_ends_what_a_tenant_lets_run() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(
        Cluster::shared(),
        "clock",
        "  max: 2\n  statementTimeout: 1s\n",
    );
    for sql in [
        "select pg_sleep(20)",
        "do $$ begin perform set_config('statement_timeout', '0', false); perform pg_sleep(20); end $$",
    ] {
        let started = Instant::now();
        let response = post(&daemon, "/sql", &json!({"query": sql, "params": []}));
        assert_eq!(response.status, 400, "{}", response.text());
        assert_eq!(response.json()["code"], "57014");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
    assert_eq!(
        query(&daemon, "select 1 as a", &json!([]))["rows"][0]["a"],
        1
    );
}

#[test]
fn the_door_at_its_limit_delays_nobody_else() {
    let _machine = whole_machine();
    let cluster = Cluster::shared();
    let (tree, daemon, name) = daemon_with(cluster, "saturated", "  max: 10\n");
    let load = Load::start(daemon.sql, 64, Duration::ZERO, Numbers::new());
    wait_until("the load runs", SOON, || load.requests() > 1000);
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        assert_eq!(Request::get("/livez").status(daemon.observe), Some(200));
        times.push(started.elapsed());
        pause(Duration::from_millis(5));
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    let file = service_as(cluster, &name, PASSWORD, &name, "  max: 9\n");
    tree.replace(SERVICE, file);
    let started = Instant::now();
    assert_eq!(daemon.reload().status, 200);
    let reload = started.elapsed();
    let report = load.stop();
    assert_eq!(report.failures, 0, "{:?}", report.words);
    assert!(p99 < Duration::from_millis(50), "{p99:?}");
    assert!(reload < Duration::from_secs(1), "{reload:?}");
    figure!("SQL door saturated by 64 clients: /livez p99 {p99:?}, a reload {reload:?}");
}
