//! Requests that nobody should send, and what becomes of everybody else's.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::daemon::Daemon;
use crate::support::postgres::Cluster;
use crate::support::sql::{
    SERVICE, daemon_with, error_code, post, query, request, rows, service_as,
};
use crate::support::wait::{SOON, shared_machine, wait_until};

fn body(sql: &str) -> Value {
    json!({"query": sql, "params": []})
}

/// Sessions of a role, whatever they do.
fn sessions(name: &str) -> u64 {
    let sql = format!("select count(*) from pg_stat_activity where usename = '{name}'");
    let count = Cluster::shared().sql("postgres", &sql);
    count.parse().expect("a number")
}

fn begin(daemon: &Daemon) -> String {
    let begun = post(daemon, "/users/tx", &json!({}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    begun.header("location").expect("a place").to_owned()
}

#[test]
fn copy_holds_no_session_and_ends_its_transaction() {
    let _machine = shared_machine();
    let (_tree, daemon, name) = daemon_with(Cluster::shared(), "copies", "  max: 1\n");
    query(&daemon, "create table t (x int)", &json!([]));
    query(&daemon, "insert into t values (1)", &json!([]));
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(error_code(&daemon, "copy t from stdin"), "0A000");
        assert_eq!(error_code(&daemon, "copy t to stdout"), "0A000");
        let endless = "copy (select generate_series(1, 100000000)) to stdout";
        assert_eq!(error_code(&daemon, endless), "0A000");
    }
    assert_eq!(rows(&daemon, "select x from t"), json!([[1]]));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let batch = json!({"queries": [body("insert into t values (2)"), body("copy t from stdin")]});
    let answer = post(&daemon, "/sql", &batch);
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (400, &json!("0A000"))
    );
    let place = begin(&daemon);
    let sql = format!("{place}/sql");
    assert_eq!(
        post(&daemon, &sql, &body("insert into t values (3)")).status,
        200
    );
    assert_eq!(post(&daemon, &sql, &body("copy t to stdout")).status, 400);
    assert_eq!(post(&daemon, &sql, &body("select 1")).status, 410);
    assert_eq!(rows(&daemon, "select x from t"), json!([[1]]));
    wait_until("no session is left over", SOON, || sessions(&name) <= 1);
}

#[test]
fn more_sessions_than_the_limit_are_never_open() {
    let _machine = shared_machine();
    let (_tree, daemon, name) = daemon_with(Cluster::shared(), "limit", "  max: 2\n");
    let port = daemon.sql;
    let sleep = body("select pg_sleep(7)");
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let request = request("/sql", &sleep);
            thread::spawn(move || request.send(port).status)
        })
        .collect();
    // Long enough for whoever asks after a busy server to have asked twice.
    let mut most = 0;
    while !busy.iter().all(thread::JoinHandle::is_finished) {
        most = most.max(sessions(&name));
    }
    for one in busy {
        assert_eq!(one.join().expect("no panic"), 200, "it was let finish");
    }
    assert_eq!(most, 2);
    assert_eq!(
        daemon.admin_get("/pools").json()["services"][0]["database"]["max"],
        2
    );
}

#[test]
fn hostile_texts_are_answered_and_leave_nothing() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "hostile", "  max: 1\n");
    query(&daemon, "create table t (x text)", &json!([]));
    for (sql, code) in [
        ("select 1; drop table t", "42601"),
        ("select 1;;drop table t", "42601"),
        ("select '; drop table t", "42601"),
        ("/* drop table t", "42601"),
        ("select $1::int", "22P02"),
        ("select $1, $2", "08P01"),
        ("\u{feff}select 1", "42601"),
        ("select \u{a0}1", "42703"),
        ("select '\u{0}'", "22021"),
        ("select chr(0)", "54000"),
        ("select E'\\x00'", "22021"),
        ("fetch all from c", "34000"),
        ("execute nothing", "26000"),
        ("select pg_cancel_backend(pg_backend_pid())", "57014"),
        (
            "do $$ begin raise exception using errcode = 'P0001', message = repeat('x', 100000); end $$",
            "P0001",
        ),
    ] {
        let request = json!({"query": sql, "params": ["x"]});
        let answer = post(&daemon, "/sql", &request);
        let shown: String = sql.chars().take(40).collect();
        let got = answer.json()["code"].clone();
        // A parameter that is not used has no type, or too many are there.
        let fits = [json!(code), json!("42P18"), json!("08P01")].contains(&got);
        assert!(answer.status == 400 && fits, "{shown}: {}", answer.text());
        assert_eq!(
            rows(&daemon, "select count(*) from t"),
            json!([["0"]]),
            "{shown}"
        );
    }
    // A parameter is only ever a value.
    let sly = "'; drop table t; --";
    for value in [
        json!(sly),
        json!("x".repeat(1024 * 1024)),
        json!("\u{1f980}\u{202e}"),
    ] {
        let answer = query(&daemon, "select $1::text as v", &json!([value]));
        assert_eq!(answer["rows"][0]["v"], value);
    }
    let nul = post(
        &daemon,
        "/sql",
        &json!({"query": "select $1::text", "params": ["a\u{0}b"]}),
    );
    assert_eq!(nul.json()["code"], "22021");
    let many: Vec<u32> = (0..65_536).collect();
    let many = post(
        &daemon,
        "/sql",
        &json!({"query": "select 1", "params": many}),
    );
    assert_eq!((many.status, &many.json()["code"]), (400, &json!("54000")));
    // A row too long for a pool, many columns, and a deep array.
    let columns: Vec<String> = (0..1600)
        .map(|index| format!("{index} as c{index}"))
        .collect();
    let wide = query(
        &daemon,
        &format!("select {}", columns.join(", ")),
        &json!([]),
    );
    assert_eq!(wide["rows"][0]["c1599"], 1599);
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let raw = format!("{{\"query\":\"select $1\",\"params\":[{nested}]}}");
    let deep = Request::post("/sql", raw)
        .header("Content-Type", "application/json")
        .header("Host", "127.0.0.1")
        .send(daemon.sql);
    assert_eq!(deep.status, 400);
    assert_eq!(rows(&daemon, "select count(*) from t"), json!([["0"]]));
}

#[test]
fn encodings_and_shapes_a_session_was_left_in_are_undone() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "shapes", "  max: 1\n");
    for sql in [
        "set client_encoding = 'LATIN1'",
        "set datestyle = 'SQL, DMY'",
        "set bytea_output = 'escape'",
        "set intervalstyle = 'iso_8601'",
        "set extra_float_digits = -15",
        "set default_transaction_read_only = on",
        "set session characteristics as transaction isolation level serializable",
        "set lock_timeout = 1",
        "set statement_timeout = 1",
        "set row_security = off",
    ] {
        query(&daemon, sql, &json!([]));
        let seen = query(
            &daemon,
            "select 'ä€' as t, '\\x00ff'::bytea as b, date '2026-02-28' as d, 0.1::float8 as f, \
             current_setting('transaction_isolation') as i, \
             current_setting('transaction_read_only') as r, \
             current_setting('statement_timeout') as s",
            &json!([]),
        );
        let expected = json!({"t": "ä€", "b": "\\x00ff", "d": "2026-02-28", "f": 0.1,
            "i": "read committed", "r": "off", "s": "30s"});
        assert_eq!(seen["rows"][0], expected, "{sql}");
    }
}

#[test]
fn what_is_large_does_not_add_up() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "large", "  max: 8\n");
    query(&daemon, "select 1", &json!([]));
    let port = daemon.sql;
    let flood = |rounds: usize| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                thread::spawn(move || {
                    let sent = "x".repeat(4 * 1024 * 1024);
                    let sql = "select $1::text as v, repeat('y', 4 * 1024 * 1024) as w";
                    let body = json!({"query": sql, "params": [sent]});
                    for _ in 0..rounds {
                        assert_eq!(request("/sql", &body).send(port).status, 200);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().expect("no panic");
        }
    };
    for _ in 0..3 {
        flood(1);
    }
    // What 24 such queries would add up to is a quarter of a gigabyte; what eight
    // need at once, the allocator may keep for the next ones.
    let resident = daemon.resident_kib();
    assert!(resident < 320 * 1024, "{resident} KiB");
}

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

#[test]
fn secrets_are_on_no_page_and_in_no_line() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let token = "a-door-token-of-many-letters";
    let more = format!("  doorToken: {token}\n  rolePassword: a-role-password\n");
    let (tree, daemon, name) = daemon_with(cluster, "silent", &more);
    let ask = |sql: &str| {
        request("/sql", &json!({"query": sql, "params": ["swordfish"]}))
            .header("Authorization", &format!("Bearer {token}"))
            .send(daemon.sql)
    };
    ask("select $1::text as v");
    ask("select $1::int");
    ask("select 'swordfish' || nope || $1");
    ask("select pg_terminate_backend(pg_backend_pid()), $1::text, 'swordfish'");
    // A version that cannot log in, and one that cannot be read.
    tree.replace(
        SERVICE,
        service_as(cluster, &name, "another-swordfish", &name, &more),
    );
    daemon.reload();
    daemon.wait_for_line(&["cannot be reached"]);
    let pages: String = ["/services", "/pools", "/health/services"]
        .map(|page| daemon.admin_get(page).text())
        .concat();
    let metrics = Request::get("/metrics").send(daemon.observe).text();
    let described = Request::get("/users/db")
        .header("Host", "localhost")
        .header("Authorization", &format!("Bearer {token}"))
        .send(daemon.sql)
        .text();
    let everything = [daemon.output(), pages, metrics, described].concat();
    let password = crate::support::postgres::PASSWORD;
    for secret in [token, "a-role-password", "swordfish", password] {
        assert!(!everything.contains(secret), "{secret} is in {everything}");
    }
}
