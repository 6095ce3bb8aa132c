//! Services with a database, and a client of the SQL door.

use serde_json::{Value, json};

use super::client::{Request, Response};
use super::daemon::{Daemon, Setup};
use super::postgres::{Cluster, PASSWORD};
use super::tree::Tree;

/// The one service of most tests.
pub(crate) const SERVICE: &str = "shop/users";

/// A service file whose pool logs in as `user`, without provisioning.
pub(crate) fn service_as(
    cluster: &Cluster,
    user: &str,
    password: &str,
    database: &str,
    more: &str,
) -> String {
    let Cluster { host, port, .. } = cluster;
    let app = super::ports::free_port();
    let public = super::ports::free_port();
    format!(
        "port: {public}\nupstream: {app}\nauth: none\nhealthCheck: false\n\
         database:\n  host: {host}\n  port: {port}\n  database: {database}\n  isolation: isolated\n  \
         user: {user}\n  password: \"{password}\"\n  provision: false\n  migrations: false\n{more}"
    )
}

/// A login role of its own with a database of its own, as provisioning makes
/// them; its name.
#[track_caller]
pub(crate) fn tenant(cluster: &Cluster, stem: &str) -> String {
    let database = cluster.database(stem);
    let statements = format!(
        "drop role if exists {database}; create role {database} login password '{}'; \
         alter database {database} owner to {database}",
        PASSWORD.replace('\'', "''")
    );
    cluster.sql("postgres", &statements);
    cluster.sql(
        &database,
        &format!("grant all on schema public to {database}"),
    );
    database
}

/// A daemon with one service whose pool logs in as its own role.
#[track_caller]
pub(crate) fn daemon_with(cluster: &Cluster, stem: &str, more: &str) -> (Tree, Daemon, String) {
    let name = tenant(cluster, stem);
    let file = service_as(cluster, &name, PASSWORD, &name, more);
    let tree = Tree::with(&[(SERVICE, &file)]);
    let daemon = Setup::new(&tree).start();
    (tree, daemon, name)
}

/// A query without parameters.
pub(crate) fn body(sql: &str) -> Value {
    json!({"query": sql, "params": []})
}

/// Sessions of a role on the shared cluster, whatever they do.
#[track_caller]
pub(crate) fn sessions(name: &str) -> u64 {
    let sql = format!("select count(*) from pg_stat_activity where usename = '{name}'");
    let count = Cluster::shared().sql("postgres", &sql);
    count.parse().expect("a number")
}

/// Begins a transaction; where it is asked from then on.
#[track_caller]
pub(crate) fn begin(daemon: &Daemon) -> String {
    let begun = post(daemon, "/users/tx", &json!({}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    begun.header("location").expect("a place").to_owned()
}

/// A request to the door, as `curl --json` sends it.
pub(crate) fn request(path: &str, body: &Value) -> Request {
    Request::post(path, body.to_string())
        .header("Content-Type", "application/json")
        .header("Host", "127.0.0.1")
}

/// Posts to the door.
#[track_caller]
pub(crate) fn post(daemon: &Daemon, path: &str, body: &Value) -> Response {
    request(path, body).send(daemon.sql)
}

/// Runs one query; fails unless it is answered 200.
#[track_caller]
pub(crate) fn query(daemon: &Daemon, sql: &str, params: &Value) -> Value {
    let response = post(daemon, "/sql", &json!({"query": sql, "params": params}));
    assert_eq!(response.status, 200, "{sql}: {}", response.text());
    response.json()
}

/// The rows of one query, as arrays.
#[track_caller]
pub(crate) fn rows(daemon: &Daemon, sql: &str) -> Value {
    let body = json!({"query": sql, "params": [], "arrayMode": true});
    let response = post(daemon, "/sql", &body);
    assert_eq!(response.status, 200, "{sql}: {}", response.text());
    response.json()["rows"].clone()
}

/// The code of the error of one query, which must fail.
#[track_caller]
pub(crate) fn error_code(daemon: &Daemon, sql: &str) -> String {
    let response = post(daemon, "/sql", &json!({"query": sql, "params": []}));
    assert_eq!(response.status, 400, "{sql}: {}", response.text());
    let code = response.json()["code"].as_str().map(str::to_owned);
    code.unwrap_or_else(|| panic!("no code: {}", response.text()))
}
