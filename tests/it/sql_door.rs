//! The SQL door against a real PostgreSQL: what goes in, what comes out, and
//! what the next request cannot see.

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::sql::{
    SERVICE, daemon_with, error_code, post, query, request, rows, service_as, tenant,
};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

#[test]
fn commands_and_counts_are_told() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "counts", "");
    for (sql, command, count) in [
        (
            "create table t (x int primary key)",
            "CREATE TABLE",
            Value::Null,
        ),
        (
            "insert into t select generate_series(1, 3)",
            "INSERT",
            json!(3),
        ),
        ("update t set x = x + 10", "UPDATE", json!(3)),
        ("select * from t", "SELECT", json!(3)),
        ("delete from t", "DELETE", json!(3)),
        ("select * from t", "SELECT", json!(0)),
        ("", "", Value::Null),
    ] {
        let answer = query(&daemon, sql, &json!([]));
        assert_eq!(answer["command"], command, "{sql}");
        assert_eq!(answer["rowCount"], count, "{sql}");
    }
}

#[test]
fn errors_carry_what_the_server_said() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "errors", "");
    query(
        &daemon,
        "create table users (email text constraint one_each unique)",
        &json!([]),
    );
    query(&daemon, "insert into users values ($1)", &json!(["a@b"]));
    let body = json!({"query": "insert into users values ($1)", "params": ["a@b"]});
    let response = post(&daemon, "/sql", &body);
    assert_eq!(response.status, 400);
    let error = response.json();
    assert_eq!(error["code"], "23505");
    assert_eq!(error["constraint"], "one_each");
    assert_eq!(error["table"], "users");
    assert_eq!(error["schema"], "public");
    assert_eq!(error["severity"], "ERROR");
    assert_eq!(error["detail"], "Key (email)=(a@b) already exists.");
    assert_eq!(error["routine"], "_bt_check_unique");
    let response = post(
        &daemon,
        "/sql",
        &json!({"query": "select nope", "params": []}),
    );
    assert_eq!(response.json()["position"], "8");
    for (sql, code) in [
        ("select 1; select 2", "42601"),
        ("copy users to stdout", "0A000"),
        ("copy users from stdin", "0A000"),
        ("select 'a\u{0}b'", "22021"),
        ("select pg_terminate_backend(pg_backend_pid())", "57P01"),
    ] {
        if code == "57P01" {
            let response = post(&daemon, "/sql", &json!({"query": sql, "params": []}));
            assert_eq!(response.status, 503, "{}", response.text());
        } else {
            assert_eq!(error_code(&daemon, sql), code, "{sql}");
        }
    }
    assert_eq!(rows(&daemon, "select count(*) from users"), json!([["1"]]));
    for body in [
        "",
        "{",
        "[]",
        "{}",
        "{\"query\": 1}",
        "{\"query\":\"a\",\"queries\":[]}",
    ] {
        let response = crate::support::client::Request::post("/sql", body)
            .header("Content-Type", "application/json")
            .header("Host", "127.0.0.1")
            .send(daemon.sql);
        assert_eq!(response.status, 400, "{body}");
        assert_eq!(response.cause(), "bad_request", "{body}");
    }
}

#[test]
fn nothing_of_one_request_is_seen_by_the_next() {
    let _machine = shared_machine();
    let (_tree, daemon, name) = daemon_with(Cluster::shared(), "leftovers", "  max: 1\n");
    let cluster = Cluster::shared();
    cluster.sql(
        &name,
        &format!("create role {name}_other; grant {name}_other to {name}"),
    );
    query(&daemon, "create table kept (x int)", &json!([]));
    for sql in [
        "select set_config('app.user', '7', false)",
        "set search_path = pg_catalog",
        "set statement_timeout = '1h'",
        "set time zone 'Asia/Tokyo'",
        &format!("set role {name}_other"),
        "create temp table left_behind (x int)",
        "select pg_advisory_lock(4711)",
        "listen somewhere",
        "prepare kept_plan as select 1",
        "create sequence if not exists s",
        "select nextval('s')",
        "begin",
        "insert into kept values (1)",
    ] {
        query(&daemon, sql, &json!([]));
    }
    // A cursor that outlives its transaction.
    let body =
        json!({"queries": [{"query": "declare c cursor with hold for select 1", "params": []}]});
    assert_eq!(post(&daemon, "/sql", &body).status, 200);
    let seen = "select current_setting('app.user', true), current_setting('search_path'), \
        current_setting('statement_timeout'), current_user, \
        (select count(*) from pg_class where relname = 'left_behind'), \
        (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()), \
        (select count(*) from pg_listening_channels()), \
        (select count(*) from pg_prepared_statements where name <> ''), \
        (select count(*) from pg_cursors where name <> ''), \
        current_setting('TimeZone') = 'Asia/Tokyo'";
    let row = &rows(&daemon, seen)[0];
    assert!(row[0].is_null() || row[0] == "", "{row}");
    assert_eq!(row[1], "\"public\"", "{row}");
    assert_eq!(row[2], "30s");
    assert_eq!(row[3], json!(name));
    for index in 4..=8 {
        assert_eq!(row[index], "0", "{index}: {row}");
    }
    assert_eq!(row[9], false);
    assert_eq!(error_code(&daemon, "select currval('s')"), "55000");
    // `begin` alone left nothing open: what came after it is there.
    assert_eq!(rows(&daemon, "select count(*) from kept"), json!([["1"]]));
    let backends = format!("select count(*) from pg_stat_activity where usename = '{name}'");
    assert_eq!(cluster.sql("postgres", &backends), "1");
}

fn batch(list: &[&str]) -> Value {
    let queries: Vec<Value> = list
        .iter()
        .map(|sql| json!({"query": sql, "params": []}))
        .collect();
    json!({ "queries": queries })
}

#[test]
fn a_batch_is_one_transaction() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "batch", "");
    query(&daemon, "create table t (x int check (x < 10))", &json!([]));
    let body = batch(&[
        "insert into t values (1)",
        "select x from t",
        "select 1 where false",
    ]);
    let answer = post(&daemon, "/sql", &body).json();
    assert_eq!(answer["results"][0]["rowCount"], 1);
    assert_eq!(answer["results"][1]["rows"], json!([{"x": 1}]));
    assert_eq!(answer["results"][2]["rows"], json!([]));
    assert_eq!(
        answer["results"][2]["fields"].as_array().map(Vec::len),
        Some(1)
    );
    let body = batch(&[
        "insert into t values (2)",
        "insert into t values (99)",
        "select 1",
    ]);
    let response = post(&daemon, "/sql", &body);
    assert_eq!(
        (response.status, &response.json()["code"]),
        (400, &json!("23514"))
    );
    assert_eq!(response.json()["queryIndex"], 1);
    for ending in [
        "commit",
        "/* x */ ROLLBACK",
        "prepare transaction 'x'",
        "end",
    ] {
        let body = batch(&[
            "insert into t values (3)",
            ending,
            "insert into t values (4)",
        ]);
        let response = post(&daemon, "/sql", &body);
        assert_eq!(response.status, 400, "{ending}");
        assert!(response.text().contains("query 1 "), "{}", response.text());
    }
    assert_eq!(rows(&daemon, "select x from t"), json!([[1]]));
}

#[test]
fn a_batch_is_begun_as_its_headers_say() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "begun", "");
    let show = batch(&[
        "select current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('transaction_deferrable')",
    ]);
    let response = request("/sql", &show)
        .header("Neon-Batch-Isolation-Level", "Serializable")
        .header("Neon-Batch-Read-Only", "true")
        .header("Neon-Batch-Deferrable", "true")
        .header("Neon-Array-Mode", "true")
        .send(daemon.sql);
    let expected = json!([["serializable", "on", "on"]]);
    assert_eq!(response.json()["results"][0]["rows"], expected);
    let response = request("/sql", &show)
        .header("Neon-Batch-Isolation-Level", "Chaos")
        .send(daemon.sql);
    assert_eq!(response.status, 400);
    let many = vec!["select 1"; 1001];
    assert_eq!(post(&daemon, "/sql", &batch(&many)).status, 400);
    let thousand = post(&daemon, "/sql", &batch(&many[..1000]));
    assert_eq!(
        thousand.json()["results"].as_array().map(Vec::len),
        Some(1000)
    );
}

#[test]
fn transactions_live_over_many_connections() {
    let _machine = shared_machine();
    let (_tree, daemon, name) = daemon_with(Cluster::shared(), "tx", "  max: 4\n");
    query(&daemon, "create table t (x int)", &json!([]));
    let begin = |body: Value| {
        let response = post(&daemon, "/users/tx", &body);
        assert_eq!(response.status, 201, "{}", response.text());
        response.header("location").expect("a place").to_owned()
    };
    // The client opens a connection per call.
    let first = begin(json!({"isolation": "RepeatableRead"}));
    let insert = json!({"query": "insert into t values ($1)", "params": [1]});
    assert_eq!(post(&daemon, &format!("{first}/sql"), &insert).status, 200);
    let level =
        json!({"query": "select current_setting('transaction_isolation') as l", "params": []});
    let answer = post(&daemon, &format!("{first}/sql"), &level).json();
    assert_eq!(answer["rows"], json!([{"l": "repeatable read"}]));
    assert_eq!(rows(&daemon, "select * from t"), json!([]));
    let second = begin(json!({"readOnly": true}));
    let refused = post(&daemon, &format!("{second}/sql"), &insert);
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (400, &json!("25006"))
    );
    // Half of the pool, and no more.
    let third = post(&daemon, "/users/tx", &json!({}));
    assert_eq!(
        (third.status, third.cause()),
        (503, "database_unavailable".to_owned())
    );
    assert_eq!(
        post(&daemon, &format!("{first}/commit"), &json!({})).status,
        200
    );
    assert_eq!(rows(&daemon, "select * from t"), json!([[1]]));
    let gone = post(&daemon, &format!("{first}/sql"), &insert);
    assert_eq!((gone.status, gone.cause()), (410, "tx_expired".to_owned()));
    // A failed one cannot be committed.
    let failed = post(&daemon, &format!("{second}/commit"), &json!({}));
    assert_eq!(
        (failed.status, &failed.json()["code"]),
        (400, &json!("25P02"))
    );
    let fourth = begin(json!({}));
    let commit = json!({"query": "commit", "params": []});
    assert_eq!(post(&daemon, &format!("{fourth}/sql"), &commit).status, 400);
    let savepoint = json!({"query": "savepoint a", "params": []});
    assert_eq!(
        post(&daemon, &format!("{fourth}/sql"), &savepoint).status,
        200
    );
    let back = json!({"query": "rollback to savepoint a", "params": []});
    assert_eq!(post(&daemon, &format!("{fourth}/sql"), &back).status, 200);
    assert_eq!(post(&daemon, &format!("{fourth}/sql"), &insert).status, 200);
    assert_eq!(
        post(&daemon, &format!("{fourth}/rollback"), &json!({})).status,
        200
    );
    assert_eq!(rows(&daemon, "select * from t"), json!([[1]]));
    let cluster = Cluster::shared();
    let open = format!(
        "select count(*) from pg_stat_activity where usename = '{name}' and state like 'idle in%'"
    );
    wait_until("nothing is left open", SOON, || {
        cluster.sql("postgres", &open) == "0"
    });
}

#[test]
fn large_requests_and_answers_are_refused() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "sizes", "");
    let large = "x".repeat(11 * 1024 * 1024);
    let response = post(
        &daemon,
        "/sql",
        &json!({"query": "select $1::text", "params": [large]}),
    );
    assert_eq!(response.status, 413);
    let sql = "select repeat('x', 1024 * 1024) from generate_series(1, 11)";
    let response = post(&daemon, "/sql", &json!({"query": sql, "params": []}));
    assert_eq!(response.status, 507, "{}", response.text());
    let sql = "select repeat('x', 17 * 1024 * 1024)";
    let response = post(&daemon, "/sql", &json!({"query": sql, "params": []}));
    assert_eq!(response.status, 507);
    let sql = "select repeat('x', 9 * 1024 * 1024) as v";
    let answer = query(&daemon, sql, &json!([]));
    assert_eq!(
        answer["rows"][0]["v"].as_str().map(str::len),
        Some(9 * 1024 * 1024)
    );
}

#[test]
fn the_description_tells_where_and_how_full() {
    let _machine = shared_machine();
    let (_tree, daemon, name) = daemon_with(Cluster::shared(), "described", "  max: 3\n");
    query(&daemon, "select 1", &json!([]));
    let response = crate::support::client::Request::get("/shop/users/db")
        .header("Host", "localhost")
        .send(daemon.sql);
    let described = response.json();
    assert_eq!(described["service"], "shop/users");
    assert_eq!(described["database"], json!(name));
    assert_eq!(described["schema"], "public");
    assert_eq!(described["pool"]["max"], 3);
    let pools = daemon.admin_get("/pools").json();
    assert_eq!(pools["services"][0]["database"]["max"], 3);
    let metrics = daemon.metrics();
    let service = [("service", "shop/users")];
    assert_eq!(metrics.sum("outrigger_db_pool_max", &service), Some(3.0));
    assert_eq!(
        metrics.sum("outrigger_db_pool_timeouts_total", &service),
        Some(0.0)
    );
    assert!(metrics.sum("outrigger_db_pool_total_connections", &service) >= Some(1.0));
    assert!(metrics.sum("outrigger_db_pool_wait_seconds_count", &service) >= Some(1.0));
}

#[test]
fn a_query_is_a_span_without_its_literals() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let name = tenant(cluster, "spans");
    let file = service_as(cluster, &name, PASSWORD, &name, "");
    let tree = Tree::with(&[(SERVICE, &format!("{file}tracing: {{enabled: true}}\n"))]);
    let daemon = Setup::new(&tree)
        .process("tracing: {exporter: stdout}")
        .start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({"query": "select 'swordfish' || $1", "params": ["marlin"]});
    let response = request("/sql", &body)
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .send(daemon.sql);
    assert_eq!(response.status, 200);
    daemon.wait_for_line(&[trace, "postgresql", "SELECT"]);
    let output = daemon.output();
    assert!(!output.contains("swordfish") && !output.contains("marlin"));
}
