//! Requests that nobody should send, and what becomes of everybody else's.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Request;
use crate::support::postgres::Cluster;
use crate::support::sql::{
    SERVICE, begin, body, daemon_with, error_code, post, query, request, rows, service_as, sessions,
};
use crate::support::wait::{SOON, shared_machine, wait_until};

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
