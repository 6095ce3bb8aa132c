//! `init-db.sql` and the compose example together: each sidecar logs in as the
//! role that the script has made, and has nothing beyond.

use std::process::Command;

use crate::support::daemon::run_to_end;
use crate::support::manifests::project;
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

const PASSWORDS: [(&str, &str); 3] = [
    ("USERS_PASSWORD", "users-password-0123456789"),
    ("ORDERS_PASSWORD", "orders-password-0123456789"),
    ("PAYMENTS_PASSWORD", "payments-password-0123456789"),
];

/// As the image of PostgreSQL runs `/docker-entrypoint-initdb.d/init-db.sql`.
#[track_caller]
fn initialize(cluster: &Cluster) {
    let output = Command::new("psql")
        .args([
            "--no-psqlrc",
            "--username",
            &cluster.user,
            "--dbname",
            "zintrust",
        ])
        .args(["--host", &cluster.host, "--port", &cluster.port.to_string()])
        .arg("--file")
        .arg(project("init-db.sql"))
        .env("PGPASSWORD", PASSWORD)
        .envs(PASSWORDS)
        .output()
        .expect("psql is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn sidecars_log_in_with_what_init_db_sql_has_made() {
    let _machine = shared_machine();
    let cluster = Cluster::private(&[]);
    cluster.sql("postgres", "CREATE DATABASE zintrust");
    initialize(&cluster);
    // A container's second start finds everything there.
    initialize(&cluster);
    let tree = Tree::new();
    for name in ["users", "orders", "payments"] {
        let path = format!("ecommerce/{name}/service.config.yaml");
        let text = std::fs::read_to_string(project("examples/compose/services").join(&path));
        tree.put(&format!("services/{path}"), text.unwrap());
        let migration = format!("CREATE TABLE {name} (id int PRIMARY KEY);\n");
        let folder = format!("services/ecommerce/{name}/migrations");
        tree.put(&format!("{folder}/001_{name}.sql"), migration);
    }
    let port = cluster.port.to_string();
    for (name, (variable, password)) in ["users", "orders", "payments"].iter().zip(PASSWORDS) {
        let environment = [
            ("SERVICES", *name),
            ("POSTGRES_HOST", cluster.host.as_str()),
            ("POSTGRES_PORT", port.as_str()),
            ("POSTGRES_DB", "zintrust"),
            (variable, password),
            // What the file needs besides.
            ("WEB_KEY", "web-key-0123456789-0123456789"),
            ("ORDERS_KEY", "orders-key-0123456789-0123456789"),
            ("ORDERS_JWT_SECRET", "orders-secret-0123456789-0123456789"),
        ];
        let (code, output) = run_to_end(tree.root(), &["migrate", "up"], &environment);
        assert_eq!(code, 0, "{name}: {output}");
    }
    // Each in its own place, made by its own role.
    let owners = "SELECT schemaname, tablename, tableowner FROM pg_tables \
                  WHERE tablename IN ('users', 'orders', 'payments') ORDER BY 1, 2";
    assert_eq!(
        cluster.sql("zintrust", owners).trim(),
        "ecommerce_orders|orders|ecommerce_orders\necommerce_users|users|ecommerce_users"
    );
    let own = cluster.sql("zintrust_payments", owners);
    assert_eq!(own.trim(), "public|payments|ecommerce_payments");
    // And nothing beyond it.
    let (_, password) = PASSWORDS[0];
    let as_users =
        |database: &str, sql: &str| cluster.sql_as("ecommerce_users", password, database, sql);
    assert!(as_users("zintrust", "SELECT * FROM users").is_ok());
    assert!(as_users("zintrust", "SELECT * FROM ecommerce_orders.orders").is_err());
    assert!(as_users("zintrust", "CREATE TABLE public.mine (id int)").is_err());
    assert!(as_users("zintrust_payments", "SELECT 1").is_err());
}
