//! Who may come through the SQL door: no web page, no rebound name, no form, and
//! nobody with another service's token.

use serde_json::json;

use crate::support::client::{Client, Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::sql::{SERVICE, daemon_with, post, request, service_as, tenant};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_for, wait_until};

const USERS: &str = "the-token-of-users";
const ORDERS: &str = "the-token-of-orders";

fn select() -> serde_json::Value {
    json!({"query": "select 1 as one", "params": []})
}

#[track_caller]
fn refused(response: &Response, status: u16, cause: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.cause(), cause);
    for (name, _) in &response.head.headers {
        let name = name.to_ascii_lowercase();
        assert!(!name.starts_with("access-control-"), "{name}");
    }
}

#[test]
fn pages_forms_and_rebound_names_are_refused() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "pages", "");
    assert_eq!(post(&daemon, "/sql", &select()).status, 200);
    let send = |request: Request| request.send(daemon.sql);
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:9902"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let response = send(request("/sql", &select()).header(name, value));
        refused(&response, 403, "auth_denied");
    }
    let body = select().to_string();
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("text/plain; application/json"),
    ] {
        let mut form = Request::post("/sql", body.as_bytes()).header("Host", "127.0.0.1");
        if let Some(kind) = kind {
            form = form.header("Content-Type", kind);
        }
        refused(&send(form), 403, "auth_denied");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:9902",
        "127.0.0.1.evil.example",
    ] {
        let rebound = Request::post("/sql", body.as_bytes())
            .header("Content-Type", "application/json")
            .header("Host", host);
        refused(&send(rebound), 421, "bad_request");
    }
    let preflight = Request::new("OPTIONS", "/sql")
        .header("Host", "127.0.0.1")
        .header("Origin", "http://evil.example")
        .header("Access-Control-Request-Method", "POST");
    refused(&send(preflight), 403, "auth_denied");
    let get = Request::get("/sql").header("Host", "127.0.0.1");
    refused(&send(get), 405, "bad_request");
}

fn two(cluster: &Cluster, users: &str, orders: &str) -> (Tree, Daemon) {
    let (first, second) = (tenant(cluster, "guard"), tenant(cluster, "guard"));
    let file = |name: &str, more: &str| service_as(cluster, name, PASSWORD, name, more);
    let tree = Tree::with(&[
        ("shop/users", &file(&first, users)),
        ("shop/orders", &file(&second, orders)),
    ]);
    let daemon = Setup::new(&tree).start();
    (tree, daemon)
}

#[test]
fn a_token_opens_its_own_service_only() {
    let _machine = shared_machine();
    let token = |token: &str| format!("  doorToken: {token}\n");
    let (_tree, daemon) = two(Cluster::shared(), &token(USERS), &token(ORDERS));
    let bearer = |path: &str, token: &str| {
        request(path, &select())
            .header("Authorization", &format!("Bearer {token}"))
            .send(daemon.sql)
    };
    let with_url = |path: &str, token: &str| {
        Request::post(path, select().to_string())
            .header("Content-Type", "text/plain;charset=UTF-8")
            .header("Host", "localhost")
            .header(
                "Neon-Connection-String",
                &format!("postgresql://app:{token}@localhost/x"),
            )
            .send(daemon.sql)
    };
    for path in ["/users/sql", "/shop/users/sql"] {
        assert_eq!(bearer(path, USERS).status, 200);
        assert_eq!(with_url(path, USERS).status, 200);
        refused(&bearer(path, ORDERS), 401, "auth_denied");
        refused(&with_url(path, ORDERS), 401, "auth_denied");
        refused(&post(&daemon, path, &select()), 401, "auth_denied");
    }
    assert_eq!(bearer("/orders/sql", ORDERS).status, 200);
    refused(&bearer("/orders/sql", USERS), 401, "auth_denied");
    // Which of them would it be?
    refused(&bearer("/sql", USERS), 404, "unknown_service");
    refused(&bearer("/payments/sql", USERS), 404, "unknown_service");
    let begun = request("/users/tx", &json!({}))
        .header("Authorization", &format!("Bearer {USERS}"))
        .send(daemon.sql);
    assert_eq!(begun.status, 201);
    let place = begun.header("location").expect("a place").to_owned();
    assert_eq!(bearer(&format!("{place}/sql"), USERS).status, 200);
    refused(&bearer(&format!("{place}/sql"), ORDERS), 401, "auth_denied");
    let stolen = place.replace("/users/", "/orders/");
    refused(&bearer(&format!("{stolen}/sql"), ORDERS), 410, "tx_expired");
    let description = Request::get("/users/db").header("Host", "localhost");
    refused(&description.send(daemon.sql), 401, "auth_denied");
}

#[test]
fn with_several_services_one_without_a_token_is_shut() {
    let _machine = shared_machine();
    let (_tree, daemon) = two(Cluster::shared(), &format!("  doorToken: {USERS}\n"), "");
    refused(&post(&daemon, "/orders/sql", &select()), 403, "auth_denied");
    let shown = request("/orders/sql", &select())
        .header("Authorization", &format!("Bearer {USERS}"))
        .send(daemon.sql);
    refused(&shown, 403, "auth_denied");
}

#[test]
fn another_token_is_in_force_with_the_reload() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let token = |token: &str| format!("  doorToken: {token}\n");
    let (tree, daemon, _) = daemon_with(cluster, "rotated", &token(USERS));
    let file = std::fs::read_to_string(tree.file(SERVICE)).expect("the file is ours");
    let ask = |token: &str| {
        request("/users/sql", &select())
            .header("Authorization", &format!("Bearer {token}"))
            .send(daemon.sql)
    };
    assert_eq!(ask(USERS).status, 200);
    tree.replace(SERVICE, file.replace(USERS, ORDERS));
    assert_eq!(daemon.reload().status, 200);
    wait_until("the new one opens", SOON, || ask(ORDERS).status == 200);
    refused(&ask(USERS), 401, "auth_denied");
    refused(&post(&daemon, "/sql", &select()), 401, "auth_denied");
}

#[test]
fn a_full_door_says_so_and_has_room_again() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "full", "");
    let mut held = Vec::new();
    let (full, _) = wait_for("the door is full", SOON, || {
        for _ in 0..64 {
            held.push(Client::connect(daemon.sql).expect("the kernel accepts"));
        }
        let response = request("/sql", &select()).try_send(daemon.sql).ok()?;
        (response.status == 503).then_some(response)
    });
    assert_eq!(full.cause(), "overloaded");
    assert!(held.len() >= 1024, "{}", held.len());
    drop(held);
    wait_until("there is room again", SOON, || {
        let response = request("/sql", &select()).try_send(daemon.sql);
        response.is_ok_and(|response| response.status == 200)
    });
}
