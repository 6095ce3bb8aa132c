//! The boundary of a service, attacked through the SQL door: alone, in a batch,
//! and over an interactive transaction.

use serde_json::{Value, json};

use crate::support::breakouts::{REFUSALS, breakouts};
use crate::support::client::Response;
use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::postgres::Cluster;
use crate::support::site::Site;
use crate::support::sql::request;
use crate::support::wait::{SOON, shared_machine, wait_until};

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);\n\
                     INSERT INTO users VALUES (1, 'Ada');\n\
                     CREATE FUNCTION rename() RETURNS void LANGUAGE sql SECURITY DEFINER \
                     AS $$ UPDATE users SET name = 'Eve' $$;";
const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL);\n\
                      INSERT INTO orders VALUES (7, 1);";

/// The port of a service that nobody asks.
fn service(site: &Site<'_>, name: &str, keys: &str) {
    let text = format!(
        "port: {}\nauth: none\nhealthCheck: false\ndatabase: {{doorToken: {}, {keys}}}\n",
        free_port(),
        token(name)
    );
    site.tree.write(&format!("{}/{name}", site.domain()), text);
}

fn token(name: &str) -> String {
    format!("the-door-token-of-{name}")
}

/// Two services behind one door.
fn shop(stem: &str, users: &str, orders: &str) -> (Site<'static>, Daemon) {
    let site = Site::new(Cluster::shared(), stem);
    service(&site, "users", users);
    service(&site, "orders", orders);
    site.migration("users", "1_users.sql", USERS);
    site.migration("orders", "1_orders.sql", ORDERS);
    let daemon = site.setup().start();
    (site, daemon)
}

fn send(daemon: &Daemon, name: &str, path: &str, body: &Value) -> Response {
    request(path, body)
        .header("Authorization", &format!("Bearer {}", token(name)))
        .send(daemon.sql)
}

fn query(sql: &str) -> Value {
    json!({"query": sql, "params": []})
}

/// The rows of one query, or the code of its error.
fn ask(daemon: &Daemon, name: &str, sql: &str) -> Result<Value, String> {
    outcome(&send(daemon, name, &format!("/{name}/sql"), &query(sql)))
}

fn outcome(response: &Response) -> Result<Value, String> {
    let body = response.json();
    match response.status {
        200 => Ok(body["rows"].clone()),
        400 => Err(body["code"].as_str().unwrap_or_default().to_owned()),
        other => panic!("{other}: {body}"),
    }
}

/// Each way of sending statements: what became of the last one.
fn by_every_way(daemon: &Daemon, list: &[String]) -> [Result<Value, String>; 3] {
    let (last, before) = list.split_last().expect("there is one");
    for sql in before {
        ask(daemon, "users", sql).unwrap_or_default();
    }
    let alone = ask(daemon, "users", last);
    let queries: Vec<Value> = list.iter().map(|sql| query(sql)).collect();
    let together = send(
        daemon,
        "users",
        "/users/sql",
        &json!({ "queries": queries }),
    );
    let begun = send(daemon, "users", "/users/tx", &json!({}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    let place = begun.header("location").expect("a place").to_owned();
    let mut within = Ok(Value::Null);
    for sql in list {
        within = outcome(&send(daemon, "users", &format!("{place}/sql"), &query(sql)));
    }
    // COPY has ended it.
    let ended = send(daemon, "users", &format!("{place}/rollback"), &json!({}));
    assert!([200, 410].contains(&ended.status), "{}", ended.text());
    [alone, outcome(&together), within]
}

#[track_caller]
fn holds(site: &Site<'_>, daemon: &Daemon, other: &str, allowed: &[&str]) {
    let own = site.role("users");
    let whoami = "SELECT current_user::text AS who, session_user::text AS login, \
                  current_setting('search_path') AS path";
    let me = ask(daemon, "users", whoami).expect("it may ask that");
    for list in breakouts(&own, other, &site.base, &site.cluster.user) {
        if list.iter().all(|sql| allowed.contains(&sql.as_str())) {
            continue;
        }
        for (way, became) in ["alone", "batch", "tx"]
            .iter()
            .zip(by_every_way(daemon, &list))
        {
            match became {
                Err(code) if REFUSALS.contains(&code.as_str()) => {}
                other => panic!("{list:?} {way}: {other:?}"),
            }
        }
        assert_eq!(
            ask(daemon, "users", whoami).as_ref(),
            Ok(&me),
            "after {list:?}"
        );
    }
    assert_eq!(me[0]["who"], json!(own));
    assert_eq!(me[0]["login"], json!(own));
}

#[test]
fn no_sql_through_the_door_leads_out_of_a_schema() {
    let _machine = shared_machine();
    let (site, daemon) = shop("doorshared", "isolation: shared", "isolation: shared");
    let other = site.role("orders");
    holds(&site, &daemon, &other, &[]);
    assert_eq!(
        site.sql(&format!("SELECT user_id FROM {other}.orders")),
        "1"
    );
    assert_eq!(
        ask(&daemon, "users", "SELECT name FROM users"),
        Ok(json!([{"name": "Ada"}]))
    );
    assert_eq!(
        ask(&daemon, "orders", "SELECT id FROM orders"),
        Ok(json!([{"id": 7}]))
    );
}

#[test]
fn no_sql_through_the_door_reaches_another_database() {
    let _machine = shared_machine();
    let (site, daemon) = shop("dooraprt", "isolation: isolated", "isolation: isolated");
    let other = format!("{}_orders", site.base);
    let own = ["CREATE TABLE public.mine (x int)", "CREATE SCHEMA mine"];
    holds(&site, &daemon, &other, &own);
    for sql in [
        format!("SELECT * FROM {other}.public.orders"),
        format!(
            "CREATE SUBSCRIPTION s CONNECTION 'dbname={other}' PUBLICATION p WITH (connect = false)"
        ),
        "CREATE EXTENSION postgres_fdw".to_owned(),
        format!("ALTER DATABASE {other} RENAME TO mine"),
        format!("DROP DATABASE {other}"),
        format!("GRANT CONNECT ON DATABASE {other} TO PUBLIC"),
        format!("CREATE DATABASE mine TEMPLATE {other}"),
    ] {
        let code = ask(&daemon, "users", &sql).expect_err(&sql);
        assert!(REFUSALS.contains(&code.as_str()), "{sql}: {code}");
    }
    // The place where everybody meets is nobody's.
    let login = site.login("users");
    let base = site.sql_of(&login, &site.base, "CREATE TABLE public.mine (x int)");
    assert!(base.is_err_and(|error| error.starts_with("42501")));
    let apart = site.sql_of(&login, &other, "SELECT 1");
    assert!(apart.is_err_and(|error| error.starts_with("42501")));
    let left = "SELECT user_id FROM orders";
    assert_eq!(site.cluster.sql(&other, left), "1");
}

#[test]
fn a_join_reads_what_was_agreed_to_and_calls_nothing() {
    let _machine = shared_machine();
    let (site, daemon) = shop("doorjoin", "sharesWith: [orders]", "reads: [users]");
    let users = site.role("users");
    let join =
        format!("SELECT o.id, u.name FROM orders o JOIN {users}.users u ON u.id = o.user_id");
    let ask = |sql: &str| ask(&daemon, "orders", sql);
    // Whoever is prepared second grants.
    wait_until("the join is granted", SOON, || ask(&join).is_ok());
    assert_eq!(ask(&join), Ok(json!([{"id": 7, "name": "Ada"}])));
    let denied = Err("42501".to_owned());
    for sql in [
        format!("INSERT INTO {users}.users VALUES (2, 'Eve')"),
        format!("UPDATE {users}.users SET name = 'Eve'"),
        format!("DELETE FROM {users}.users"),
        format!("SELECT * FROM {users}.users FOR UPDATE"),
        format!("TRUNCATE {users}.users"),
        format!("CREATE TABLE mine (x int REFERENCES {users}.users)"),
        format!("CREATE TABLE {users}.mine (x int)"),
        format!("SELECT * FROM {users}.outrigger_migrations"),
        // It acts as its owner, who may write.
        format!("SELECT {users}.rename()"),
        format!("SET ROLE {users}"),
    ] {
        assert_eq!(ask(&sql), denied, "{sql}");
    }
    // Nor what is made later; its owner may call it.
    let own = |sql: &str| self::ask(&daemon, "users", sql);
    let later = "CREATE FUNCTION later() RETURNS int LANGUAGE sql SECURITY DEFINER \
                 AS 'SELECT 5'";
    own(later).expect("it may");
    assert_eq!(own("SELECT later() AS n"), Ok(json!([{"n": 5}])));
    assert_eq!(ask(&format!("SELECT {users}.later()")), denied);
    let back = format!("SELECT * FROM {}.orders", site.role("orders"));
    assert_eq!(own(&back), denied);
    // What one side takes back is gone once that is in force.
    service(&site, "users", "isolation: shared");
    assert_eq!(daemon.reload().status, 200);
    wait_until("it is taken back", SOON, || ask(&join) == denied);
    assert_eq!(own("SELECT name FROM users"), Ok(json!([{"name": "Ada"}])));
}
