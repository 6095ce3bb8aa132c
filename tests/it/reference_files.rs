//! The three service files of the reference framework start unchanged.

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{Setup, run_to_end};
use crate::support::isolation::with_own_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

const KEY: &str = "reference-api-key-0123456789ab";
const PORTS: [u16; 3] = [3001, 3002, 3003];

/// The environment that the reference framework documents.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("MICROSERVICES", "true"),
    ("SERVICES", "users,orders,payments"),
    ("SERVICE_API_KEY", KEY),
    (
        "SERVICE_JWT_SECRET",
        "reference-jwt-secret-0123456789abcdef",
    ),
    ("MICROSERVICES_TRACING", "true"),
    ("MICROSERVICES_TRACING_RATE", "100"),
];

fn tree() -> Tree {
    let tree = Tree::new();
    tree.copy_example("ecommerce");
    tree
}

#[test]
fn the_three_files_start_unchanged() {
    let _machine = shared_machine();
    with_own_ports(
        "reference_files::inside_the_three_files",
        inside_the_three_files,
    );
}

#[test]
#[ignore = "run by the_three_files_start_unchanged in a network namespace"]
fn inside_the_three_files() {
    let _apps = PORTS.map(|port| App::start_on(port + 10_000, scripts::echo));
    let tree = tree();
    let daemon = ENVIRONMENT
        .iter()
        .fold(Setup::new(&tree), |setup, (name, value)| {
            setup.env(name, value)
        })
        .start();
    let [users, orders, payments] = PORTS;
    assert_eq!(Request::get("/users").status(users), Some(401));
    let answer = Request::get("/users").key(KEY).send(users);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        scripts::seen(&answer.json(), "x-auth-subject").as_deref(),
        Some("default")
    );
    assert_eq!(Request::get("/orders").status(orders), Some(401));
    let (code, token) = run_to_end(
        tree.root(),
        &["token", "mint", "orders", "--sub", "ada"],
        &ENVIRONMENT,
    );
    assert_eq!(code, 0, "{token}");
    let token = token.lines().find(|line| line.starts_with("ey")).unwrap();
    let bearer = format!("Bearer {token}");
    let answer = Request::get("/orders")
        .header("Authorization", &bearer)
        .send(orders);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        scripts::seen(&answer.json(), "x-auth-subject").as_deref(),
        Some("ada")
    );
    assert_eq!(Request::get("/payments").status(payments), Some(200));
    for (port, name) in [(users, "users"), (payments, "payments")] {
        let health = Request::get("/health").send(port);
        let document = health.json();
        assert_eq!(document["service"], name, "{document:#}");
        assert_eq!(document["domain"], "ecommerce", "{document:#}");
        assert_eq!(document["version"], "1.0.0", "{document:#}");
    }
    assert_eq!(daemon.service("ecommerce/users")["state"], "serving");
}

#[test]
fn check_finds_nothing_wrong_and_shows_the_table() {
    let _machine = shared_machine();
    let tree = tree();
    let (code, output) = run_to_end(tree.root(), &["check"], &ENVIRONMENT);
    assert_eq!(code, 0, "{output}");
    for part in [
        "users", "orders", "payments", "3001", "3002", "3003", "api-key", "jwt", "none",
    ] {
        assert!(output.contains(part), "no `{part}` in:\n{output}");
    }
    // Without the environment, what is missing is named, all at once.
    let (code, output) = run_to_end(tree.root(), &["check"], &[]);
    assert_eq!(code, 64, "{output}");
    assert!(
        output.contains("SERVICE_API_KEY") && output.contains("SERVICE_JWT_SECRET"),
        "{output}"
    );
}
