//! A session that goes straight from one request to the next one waiting: its
//! reset goes before the next one's work, in the same flight.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::daemon::Daemon;
use crate::support::postgres::Cluster;
use crate::support::sql::{begin, body, daemon_with, post, query, request, rows, sessions};
use crate::support::wait::{SOON, pause, shared_machine, wait_until};

/// One session, for which everybody waits as long as it takes.
const ONE: &str = "  max: 1\n  connectionTimeoutMillis: 20000\n";

/// A figure of the pool.
fn pool(daemon: &Daemon, name: &str) -> u64 {
    let pools = daemon.admin_get("/pools").json();
    let figure = &pools["services"][0]["database"][name];
    figure.as_u64().expect("a number")
}

fn send(daemon: &Daemon, path: &str, body: &Value) -> JoinHandle<Response> {
    let (request, port) = (request(path, body), daemon.sql);
    thread::spawn(move || request.send(port))
}

/// Answers to requests that waited, in this order, while another one had the
/// only session. That one's reset was sent with it, as nobody waited yet.
#[track_caller]
fn waiting(daemon: &Daemon, list: &[(&str, Value)]) -> Vec<Response> {
    wait_until("nobody has a session", SOON, || {
        pool(daemon, "activeConnections") == 0
    });
    let holder = send(daemon, "/sql", &body("select pg_sleep(1)"));
    wait_until("the session is taken", SOON, || {
        pool(daemon, "activeConnections") == 1
    });
    let mut threads = Vec::new();
    for (path, body) in list {
        threads.push(send(daemon, path, body));
        let count = threads.len() as u64;
        wait_until("it waits", SOON, || {
            pool(daemon, "waitingRequests") == count
        });
    }
    assert_eq!(holder.join().expect("no panic").status, 200);
    let answers = threads.into_iter().map(|one| one.join().expect("no panic"));
    answers.collect()
}

/// What a SELECT can leave behind, by way of a function.
const LEAVE: &str = "create function leave() returns void language plpgsql as $$ begin \
     perform set_config('app.user', '7', false), set_config('search_path', 'pg_catalog', false), \
         set_config('statement_timeout', '1h', false), pg_advisory_lock(4711), nextval('s'); \
     execute 'create temp table left_behind (x int)'; \
     execute 'listen somewhere'; execute 'prepare kept_plan as select 1'; end $$";

/// What the next one must not see of it.
fn seen() -> Value {
    let sql = "select current_setting('app.user', true), current_setting('search_path'), \
         current_setting('statement_timeout'), \
         (select count(*) from pg_class where relname = 'left_behind'), \
         (select count(*) from pg_locks where locktype = 'advisory'), \
         (select count(*) from pg_listening_channels()), \
         (select count(*) from pg_prepared_statements where name <> '')";
    json!({"query": sql, "arrayMode": true})
}

#[track_caller]
fn clean(row: &Value) {
    assert!(row[0].is_null() || row[0] == "", "{row}");
    assert_eq!(row[1], "\"public\"", "{row}");
    assert_eq!(row[2], "30s", "{row}");
    for index in 3..=6 {
        assert_eq!(row[index], "0", "{index}: {row}");
    }
}

#[test]
fn nothing_is_seen_by_who_waited() {
    let _machine = shared_machine();
    let cluster = Cluster::private(&["log_statement=all"]);
    let (_tree, daemon, _) = daemon_with(&cluster, "handed", ONE);
    for sql in ["create table t (x int)", "create sequence s", LEAVE] {
        query(&daemon, sql, &json!([]));
    }
    let batch = json!({"queries": [seen(), {"query": "insert into t values (1)"}]});
    // Every way in, and what cannot run in a transaction.
    let answers = waiting(
        &daemon,
        &[
            ("/sql", body("select leave()")),
            ("/sql", seen()),
            ("/sql", body("select leave(), 1 as one")),
            ("/sql", batch),
            ("/sql", body("select leave()")),
            ("/sql", body("vacuum t")),
            ("/sql", body("select leave()")),
            ("/sql", body("select nonsense")),
            ("/sql", body("select currval('s')")),
            ("/sql", body("select leave()")),
            ("/users/tx", json!({"isolation": "Serializable"})),
        ],
    );
    let [
        _,
        one,
        left,
        both,
        _,
        vacuum,
        _,
        nonsense,
        current,
        _,
        begun,
    ] = &answers[..]
    else {
        panic!("an answer to each");
    };
    clean(&one.json()["rows"][0]);
    assert_eq!(left.json()["rows"][0]["one"], 1, "{}", left.text());
    clean(&both.json()["results"][0]["rows"][0]);
    assert_eq!(vacuum.json()["command"], "VACUUM", "{}", vacuum.text());
    for (failed, code) in [(nonsense, "42703"), (current, "55000")] {
        assert_eq!(failed.status, 400, "{}", failed.text());
        assert_eq!(failed.json()["code"], code);
    }
    assert_eq!(nonsense.json()["position"], "8");
    let place = begun.header("location").expect("a place").to_owned();
    let within = post(&daemon, &format!("{place}/sql"), &seen());
    clean(&within.json()["rows"][0]);
    let level = body("show transaction_isolation");
    let level = post(&daemon, &format!("{place}/sql"), &level).json();
    assert_eq!(level["rows"][0]["transaction_isolation"], "serializable");
    assert_eq!(
        post(&daemon, &format!("{place}/commit"), &json!({})).status,
        200
    );
    assert_eq!(rows(&daemon, "select count(*) from t"), json!([["1"]]));
    // The reset did go before the work: of all but the first, and the one after
    // the command that may have changed the session.
    let count = cluster
        .log()
        .matches("execute <unnamed>: DISCARD ALL")
        .count();
    assert_eq!(count, answers.len() - 2);
}

/// Leaves so many temporary tables that they are not dropped in the one
/// millisecond that it leaves for a statement.
const STUBBORN: &str = "create function stubborn() returns void language plpgsql as $$ begin \
     for n in 1..300 loop execute 'create temp table left_' || n || ' (x int)'; end loop; \
     perform pg_advisory_lock(4712), set_config('statement_timeout', '1', false); end $$";

#[test]
fn work_behind_a_reset_that_fails_runs_once_elsewhere() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let (_tree, daemon, name) = daemon_with(cluster, "stubborn", ONE);
    for sql in ["create table t (x int)", STUBBORN] {
        query(&daemon, sql, &json!([]));
    }
    let session = || rows(&daemon, "select pg_backend_pid()");
    let before = session();
    let insert = || body("insert into t values (1)");
    let batch = json!({"queries": [insert(), insert()]});
    let stubborn = || body("select stubborn()");
    let answers = waiting(
        &daemon,
        &[
            ("/sql", stubborn()),
            ("/sql", insert()),
            ("/sql", stubborn()),
            ("/sql", batch),
        ],
    );
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(rows(&daemon, "select count(*) from t"), json!([["3"]]));
    assert_ne!(session(), before);
    let answers = waiting(&daemon, &[("/sql", stubborn()), ("/users/tx", json!({}))]);
    assert_eq!(answers[1].status, 201, "{}", answers[1].text());
    wait_until("the sessions that failed are gone", SOON, || {
        sessions(&name) == 1
    });
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and database = \
                 (select oid from pg_database where datname = current_database())";
    assert_eq!(cluster.sql(&name, locks), "0");
    let temporary = "select count(*) from pg_class where relpersistence = 't'";
    assert_eq!(cluster.sql(&name, temporary), "0");
}

#[test]
fn who_waits_and_vanishes_leaves_nothing() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let (_tree, daemon, name) = daemon_with(cluster, "waiters", ONE);
    query(&daemon, "create sequence s", &json!([]));
    query(&daemon, LEAVE, &json!([]));
    let leave = request("/sql", &body("select leave(), pg_sleep(0.003)")).bytes();
    // They go while they wait, as they get the session, and while they use it.
    for round in 0..100 {
        let mut clients: Vec<Client> = (0..4)
            .map(|_| {
                let mut client = Client::connect(daemon.sql).expect("the door accepts");
                client.send(&leave).expect("sent");
                client
            })
            .collect();
        pause(Duration::from_millis(round % 10));
        while let Some(client) = clients.pop() {
            client.reset();
        }
    }
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and database = \
                 (select oid from pg_database where datname = current_database())";
    wait_until("nothing is left", SOON, || cluster.sql(&name, locks) == "0");
    wait_until("nobody has the session", SOON, || {
        pool(&daemon, "activeConnections") == 0 && pool(&daemon, "waitingRequests") == 0
    });
    assert_eq!(
        rows(&daemon, "select count(*) from pg_listening_channels()"),
        json!([["0"]])
    );
    assert!(sessions(&name) <= 1);
    let place = begin(&daemon);
    assert_eq!(
        post(&daemon, &format!("{place}/rollback"), &json!({})).status,
        200
    );
}

/// A session that the server ends while it is handed on: whoever got it is
/// served by another one, and their work is done once.
#[test]
fn a_session_that_ends_on_the_way_is_nobodys_failure() {
    let _machine = shared_machine();
    let cluster = Cluster::private(&[]);
    let few = "  max: 3\n  connectionTimeoutMillis: 20000\n";
    let (_tree, daemon, _) = daemon_with(&cluster, "ending", few);
    let ending = "create function ending() returns text language sql as \
         $$ select set_config('idle_session_timeout', '1ms', false) $$";
    for sql in [ending, "create table t (x int)"] {
        query(&daemon, sql, &json!([]));
    }
    let daemon = &daemon;
    let insert = || {
        let answer = post(daemon, "/sql", &body("insert into t values (1)"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| (0..60).for_each(|_| insert()));
        }
        for _ in 0..12 {
            // Theirs may fail: it is their own setting.
            let end = || drop(post(daemon, "/sql", &body("select ending()")));
            scope.spawn(move || (0..60).for_each(|_| end()));
        }
    });
    let count = post(daemon, "/sql", &body("select count(*)::int as n from t"));
    assert_eq!(count.json()["rows"][0]["n"], 1440);
}
