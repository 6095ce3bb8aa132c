//! The areas a set of microservices needs, one test each, through the real
//! binary: the tree of the reference framework with an app behind each sidecar.
//! Every area has tests of its own beside this one, which go into its corners.

use std::fs;
use std::io;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup, run_to_end};
use crate::support::files::open;
use crate::support::manifests::project;
use crate::support::ports::{free_port, free_ports};
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::scripts;
use crate::support::sql::{post, query};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

const KEY: &str = "microservices-api-key-0123456789";
const SECRET: &str = "microservices-jwt-secret-0123456789abcdef";

/// A service of the tree with its app.
struct Service {
    port: u16,
    app: App,
}

/// Users, orders and payments in the framework's own files, on free ports.
struct Shop {
    tree: Tree,
    daemon: Daemon,
    users: Service,
    orders: Service,
    payments: Service,
}

fn service(tree: &Tree, name: &str, port: u16, more: &str) -> Service {
    let app = App::start(scripts::echo);
    let text = format!(
        "{{\"name\": \"{name}\", \"domain\": \"ecommerce\", \"version\": \"1.2.3\", \"port\": {port}, \
         \"upstream\": {}, \"healthCheck\": \"/health\", {more}}}\n",
        app.port()
    );
    tree.put(
        &format!("services/ecommerce/{name}/service.config.json"),
        text,
    );
    Service { port, app }
}

impl Shop {
    fn start() -> Self {
        let ports = free_ports(3);
        let tree = Tree::new();
        let users = service(
            &tree,
            "users",
            ports[0],
            "\"auth\": {\"strategy\": \"api-key\"}",
        );
        let orders = service(
            &tree,
            "orders",
            ports[1],
            "\"auth\": {\"strategy\": \"jwt\"}, \"dependencies\": [\"payments\"]",
        );
        let payments = service(
            &tree,
            "payments",
            ports[2],
            "\"auth\": {\"strategy\": \"none\"}",
        );
        let daemon = Setup::new(&tree)
            .env("SERVICE_API_KEY", KEY)
            .env("SERVICE_JWT_SECRET", SECRET)
            .start();
        Self {
            tree,
            daemon,
            users,
            orders,
            payments,
        }
    }
}

#[test]
fn service_discovery() {
    let _machine = shared_machine();
    let shop = Shop::start();
    for (service, status) in [
        (&shop.users, 401),
        (&shop.orders, 401),
        (&shop.payments, 200),
    ] {
        assert_eq!(Request::get("/").status(service.port), Some(status));
    }
    // A service appears with its file and goes with it, nothing is registered.
    let (port, app) = (free_port(), App::start(scripts::ok));
    shop.tree
        .write("ecommerce/stock", open(port, app.port(), 0));
    wait_until("the new service is served", SOON, || {
        Request::get("/").status(port) == Some(200)
    });
    // The framework's folder for shared code is none.
    shop.tree
        .write("ecommerce/shared", open(free_port(), app.port(), 0));
    assert_eq!(shop.daemon.reload().status, 200);
    let names = registered(&shop.daemon);
    assert_eq!(
        names,
        [
            "ecommerce/orders",
            "ecommerce/payments",
            "ecommerce/stock",
            "ecommerce/users"
        ]
    );
    // One bad file is its own affair.
    fs::write(shop.tree.file("ecommerce/stock"), "port: [").unwrap();
    assert_eq!(shop.daemon.reload().status, 422);
    for port in [port, shop.payments.port] {
        assert_eq!(Request::get("/").status(port), Some(200));
    }
}

/// The keys of the registry, in its order.
fn registered(daemon: &Daemon) -> Vec<String> {
    let document = daemon.services();
    let services = document["services"].as_array().unwrap().iter();
    services
        .map(|one| one["service"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn service_registry() {
    let _machine = shared_machine();
    let shop = Shop::start();
    let users = shop.daemon.service("ecommerce/users");
    assert_eq!(users["state"], "serving", "{users:#}");
    assert_eq!(users["port"], shop.users.port);
    // Every value, and where it comes from; secrets are not among them.
    let values = users["config"].as_array().unwrap();
    let value = |key: &str| values.iter().find(|one| one["key"] == key).unwrap();
    assert_eq!(value("version")["value"], "1.2.3");
    assert!(
        value("version")["origin"]
            .as_str()
            .unwrap()
            .contains("service.config.json")
    );
    assert!(!users.to_string().contains(KEY), "{users:#}");
    // By domain and by name.
    let orders = shop.daemon.service("ecommerce/orders");
    assert_eq!(orders["dependencies"][0]["name"], "payments", "{orders:#}");
    let known = shop
        .daemon
        .admin_post("/explain", "{\"service\":\"users\",\"path\":\"/a\"}");
    assert_eq!(known.json()["service"], "ecommerce/users");
    let unknown = shop
        .daemon
        .admin_post("/explain", "{\"service\":\"nobody\",\"path\":\"/a\"}");
    assert_eq!(
        (unknown.status, unknown.cause().as_str()),
        (404, "unknown_service")
    );
    // Who is gone is out of the registry, and its port is free.
    shop.tree.remove("ecommerce/payments");
    wait_until("payments is gone", SOON * 2, || {
        let _ = shop.daemon.reload();
        !registered(&shop.daemon).contains(&"ecommerce/payments".to_owned())
    });
    wait_until("its port is closed", SOON, || {
        Request::get("/").status(shop.payments.port).is_none()
    });
}

#[test]
fn authentication_by_api_key() {
    let _machine = shared_machine();
    let shop = Shop::start();
    let port = shop.users.port;
    assert_eq!(Request::get("/").status(port), Some(401));
    assert_eq!(
        Request::get("/")
            .key("wrong-key-0123456789abcdef012345")
            .status(port),
        Some(401)
    );
    assert_eq!(
        shop.users
            .app
            .take()
            .iter()
            .filter(|one| one.target == "/")
            .count(),
        0
    );
    for header in [
        ("x-api-key", KEY.to_owned()),
        ("authorization", format!("Bearer {KEY}")),
    ] {
        let request = Request::get("/").header(header.0, &header.1);
        assert_eq!(
            request.header("x-auth-subject", "forged").status(port),
            Some(200)
        );
        let seen = shop.users.app.last();
        assert_eq!(seen.header("x-auth-strategy"), Some("api-key"));
        assert_eq!(seen.header("x-auth-subject"), Some("default"));
    }
}

/// A token of `outrigger token mint`.
fn minted(shop: &Shop, arguments: &[&str]) -> String {
    let words = [&["token", "mint", "orders"], arguments].concat();
    let environment = [("SERVICE_API_KEY", KEY), ("SERVICE_JWT_SECRET", SECRET)];
    let (code, output) = run_to_end(shop.tree.root(), &words, &environment);
    assert_eq!(code, 0, "{output}");
    let token = output.lines().find(|line| line.starts_with("ey"));
    token.unwrap_or_else(|| panic!("{output}")).to_owned()
}

#[test]
fn authentication_by_jwt() {
    let _machine = shared_machine();
    let shop = Shop::start();
    let port = shop.orders.port;
    let with = |token: &str| {
        let bearer = format!("Bearer {token}");
        Request::get("/")
            .header("authorization", &bearer)
            .status(port)
    };
    let token = minted(&shop, &["--sub", "ada"]);
    assert_eq!(with(&token), Some(200));
    assert_eq!(shop.orders.app.last().header("x-auth-subject"), Some("ada"));
    // Another signature, no signature, another algorithm: all the same to clients.
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, claims) = signed.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIn0";
    for forged in [
        format!("{signed}.AAAA"),
        format!("{signed}."),
        format!("{none}.{claims}."),
    ] {
        assert_eq!(with(&forged), Some(401), "{forged}");
    }
    let denied = Request::get("/")
        .header("authorization", "Bearer a.b.c")
        .send(port);
    assert_eq!(
        denied.header("www-authenticate"),
        Some("Bearer realm=\"orders\", error=\"invalid_token\"")
    );
}

/// Lets in whoever shows the cookie, as `ada`.
fn door_keeper(request: &Received, stream: &mut Connection) -> io::Result<Next> {
    let known = request.header("cookie") == Some("session=1");
    let (status, headers) = if known {
        (200, "X-User: ada\r\n")
    } else {
        (403, "")
    };
    stream.respond(status, headers, b"by the hook")?;
    Ok(Next::KeepAlive)
}

#[test]
fn authentication_by_a_custom_hook() {
    let _machine = shared_machine();
    let (hook, app, port) = (
        App::start(door_keeper),
        App::start(scripts::echo),
        free_port(),
    );
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  strategy: custom\n  hook:\n    \
         url: http://127.0.0.1:{}/check\n    responseHeaders: [x-user]\n",
        app.port(),
        hook.port()
    );
    let tree = Tree::with(&[("ecommerce/users", &text)]);
    let _daemon = Setup::new(&tree).start();
    let denied = Request::get("/a?b=c").send(port);
    assert_eq!(
        (denied.status, denied.text().as_str()),
        (403, "by the hook")
    );
    assert_eq!(app.count(), 0);
    assert_eq!(hook.last().header("x-forwarded-uri"), Some("/a?b=c"));
    let allowed = Request::get("/")
        .header("cookie", "session=1")
        .header("x-user", "eve");
    assert_eq!(allowed.status(port), Some(200));
    assert_eq!(app.last().header("x-user"), Some("ada"));
    // A hook that is down lets nobody in.
    drop(hook);
    let unknown = Request::get("/").header("cookie", "session=1").send(port);
    assert_eq!(
        (unknown.status, unknown.cause().as_str()),
        (503, "auth_unavailable")
    );
}

#[test]
fn request_tracing() {
    let _machine = shared_machine();
    let ports = free_ports(3);
    let (front, stock, local) = (ports[0], ports[1], ports[2]);
    let behind = App::start(scripts::echo);
    // An app that calls another service with the headers it was given.
    let calling = App::start(move |request: &Received, stream: &mut Connection| {
        let names = [
            "traceparent",
            "tracestate",
            "x-trace-id",
            "x-trace-depth",
            "x-request-id",
        ];
        let call = names.iter().fold(Request::get("/stock"), |call, name| {
            match request.header(name) {
                Some(value) => call.header(name, value),
                None => call,
            }
        });
        let answer = call.send(local);
        stream.respond(answer.status, "", &answer.body)?;
        Ok(Next::KeepAlive)
    });
    let traced = "healthCheck: false\nauth: none\ntracing: {enabled: true}\n";
    let tree = Tree::with(&[
        (
            "shop/stock",
            &format!("port: {stock}\nupstream: {}\n{traced}", behind.port()),
        ),
        (
            "shop/front",
            &format!(
                "port: {front}\nupstream: {}\n{traced}dependencies: [{{name: stock, localPort: {local}}}]\n",
                calling.port()
            ),
        ),
    ]);
    let _daemon = Setup::new(&tree).start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = Request::get("/").header("traceparent", &parent).send(front);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-trace-id"), Some(trace));
    assert_eq!(answer.header("x-trace-service"), Some("shop/front"));
    // One trace through both services, deeper by one, each hop a parent of its own.
    let (first, second) = (calling.last(), behind.last());
    let part = |request: &Received, index: usize| {
        let parent = request.header("traceparent").unwrap();
        parent.split('-').nth(index).unwrap().to_owned()
    };
    assert_eq!(
        (part(&first, 1), part(&second, 1)),
        (trace.to_owned(), trace.to_owned())
    );
    assert_ne!(part(&first, 2), "00f067aa0ba902b7");
    assert_ne!(part(&first, 2), part(&second, 2));
    let depth = |request: &Received| {
        request
            .header("x-trace-depth")
            .unwrap()
            .parse::<u8>()
            .unwrap()
    };
    assert_eq!(depth(&second), depth(&first) + 1);
    assert_eq!(second.header("x-parent-service-id"), Some("shop/front"));
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(answer.header("x-request-id"), first.header("x-request-id"));
}

#[test]
fn health_checks() {
    let _machine = shared_machine();
    let shop = Shop::start();
    let health = |service: &Service| Request::get("/health").send(service.port);
    wait_until("all are healthy", SOON, || {
        shop.daemon.admin_get("/health/services").status == 200
    });
    let orders = health(&shop.orders);
    let document = orders.json();
    assert_eq!(
        (orders.status, &document["status"]),
        (200, &Value::from("healthy"))
    );
    assert_eq!(document["service"], "orders", "{document:#}");
    assert_eq!(document["domain"], "ecommerce");
    assert_eq!(document["port"], shop.orders.port);
    assert_eq!(document["version"], "1.2.3");
    assert_eq!(document["checks"]["http"], true);
    assert_eq!(document["checks"]["dependencies"]["payments"], true);
    let all = shop.daemon.admin_get("/health/services").json();
    assert_eq!(
        (&all["totalServices"], &all["healthy"]),
        (&Value::from(3), &Value::from(3))
    );
    // A dependency that is down degrades; the app itself down is unhealthy.
    let Shop {
        daemon,
        orders,
        payments,
        ..
    } = shop;
    drop(payments.app);
    wait_until("payments is unhealthy", SOON, || {
        Request::get("/health").status(payments.port) == Some(503)
    });
    wait_until("orders is degraded", SOON, || {
        Request::get("/health").status(orders.port) == Some(202)
    });
    let degraded = Request::get("/health").send(orders.port).json();
    assert_eq!(degraded["status"], "degraded", "{degraded:#}");
    assert_eq!(
        degraded["checks"]["dependencies"]["payments"], false,
        "{degraded:#}"
    );
    assert_eq!(daemon.admin_get("/health/services").status, 503);
    assert_eq!(
        Request::get("/readyz").status(daemon.observe),
        Some(200),
        "nobody else's affair"
    );
    drop(orders.app);
    wait_until("orders is unhealthy", SOON, || {
        Request::get("/health").status(orders.port) == Some(503)
    });
}

/// The framework's files against a real PostgreSQL, whose administrator the
/// environment names.
struct Databases {
    cluster: Cluster,
    tree: Tree,
}

impl Databases {
    fn start() -> Self {
        let cluster = Cluster::private(&[]);
        cluster.sql("postgres", "CREATE DATABASE zintrust");
        let tree = Tree::new();
        tree.copy_example("ecommerce");
        Self { cluster, tree }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let port = self.cluster.port.to_string();
        let pairs = [
            ("POSTGRES_HOST", self.cluster.host.as_str()),
            ("POSTGRES_PORT", &port),
            ("POSTGRES_DB", "zintrust"),
            ("POSTGRES_USER", &self.cluster.user),
            ("POSTGRES_PASSWORD", PASSWORD),
            ("SERVICE_API_KEY", KEY),
            ("SERVICE_JWT_SECRET", SECRET),
            (
                "OUTRIGGER_DATABASE_ROLE_SECRET",
                "a-role-secret-of-at-least-32-bytes",
            ),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    /// Runs a command over the tree; what it printed.
    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let environment = self.environment();
        let pairs: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (code, output) = run_to_end(self.tree.root(), words, &pairs);
        assert_eq!(code, 0, "{words:?}: {output}");
        output
    }

    /// SQL as the service's own role, by the URL for ordinary drivers.
    fn as_service(&self, name: &str, sql: &str) -> Result<String, String> {
        let output = self.run(&["db", "url", name]);
        let url = output.lines().find(|line| line.starts_with("postgres"));
        let output = Command::new("psql")
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--command",
                sql,
            ])
            .arg(url.expect("a URL"))
            .output()
            .expect("psql is there");
        let (said, wrong) = (output.stdout, output.stderr);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(said))
        } else {
            Err(text(wrong))
        }
    }
}

#[test]
fn database_isolation() {
    let _machine = shared_machine();
    let databases = Databases::start();
    databases.run(&["migrate", "up"]);
    // users and orders share a database and have a schema each, payments has a
    // database of its own; each finds its own tables without a prefix.
    for (name, place) in [
        ("users", "zintrust ecommerce_users"),
        ("orders", "zintrust ecommerce_orders"),
        ("payments", "zintrust_payments public"),
    ] {
        let found =
            databases.as_service(name, "SELECT current_database() || ' ' || current_schema()");
        assert_eq!(found.as_deref(), Ok(place));
        let count = format!("SELECT count(*) > 0 FROM {name}");
        assert_eq!(
            databases.as_service(name, &count).as_deref(),
            Ok("t"),
            "{name}"
        );
    }
    // None gets at what another has, whatever it says.
    for (name, sql) in [
        ("users", "SELECT * FROM ecommerce_orders.orders"),
        (
            "orders",
            "INSERT INTO ecommerce_users.users (email, name) VALUES ('a', 'b')",
        ),
        ("users", "SET ROLE ecommerce_orders"),
        ("users", "RESET ROLE; DROP SCHEMA ecommerce_orders CASCADE"),
        ("orders", "CREATE TABLE public.mine (id int)"),
    ] {
        let denied = databases.as_service(name, sql).expect_err(sql);
        assert!(
            denied.contains("denied") || denied.contains("must be"),
            "{sql}: {denied}"
        );
    }
    // A second run finds everything done.
    let again = databases.run(&["migrate", "status"]);
    assert!(!again.contains("pending"), "{again}");
}

#[test]
fn postgresql_adapter() {
    let _machine = shared_machine();
    let mut databases = Databases::start();
    let tree = Tree::new();
    let database =
        "\"auth\": {\"strategy\": \"none\"}, \"database\": {\"isolation\": \"shared\", \"max\": 4}";
    let users = service(&tree, "users", free_port(), database);
    let migration = "ecommerce/users/migrations/001_users.sql";
    let text = fs::read_to_string(project("examples").join(migration)).unwrap();
    tree.put(&format!("services/{migration}"), text);
    let environment = databases.environment().into_iter();
    let daemon = environment
        .fold(Setup::new(&tree), |setup, (name, value)| {
            setup.env(&name, &value)
        })
        .start();
    // Started: role and schema are made, the migration has run, the pool is open.
    let by_mail = "SELECT name FROM users WHERE email = $1";
    let found = query(&daemon, by_mail, &json!(["ada@example.com"]));
    assert_eq!(found["rows"], json!([{"name": "Ada"}]));
    let insert = "INSERT INTO users (email, name) VALUES ($1, $2)";
    let made = query(&daemon, insert, &json!(["alan@example.com", "Alan"]));
    assert_eq!(made["rowCount"], 1);
    // A transaction that fails leaves nothing.
    let batch = json!({"queries": [
        {"query": insert, "params": ["eve@example.com", "Eve"]},
        {"query": "SELECT 1 / 0", "params": []},
    ]});
    let failed = post(&daemon, "/users/sql", &batch);
    assert_eq!(
        (failed.status, &failed.json()["code"]),
        (400, &json!("22012"))
    );
    let eve = query(&daemon, by_mail, &json!(["eve@example.com"]));
    assert_eq!(eve["rows"], json!([]));
    // The pool's state under the framework's names.
    let stats = Request::get("/users/db")
        .header("Host", "127.0.0.1")
        .send(daemon.sql);
    for name in ["totalConnections", "idleConnections", "waitingRequests"] {
        assert!(stats.text().contains(name), "{}", stats.text());
    }
    let labels = [("service", "ecommerce/users")];
    assert_eq!(
        daemon.metrics().sum("outrigger_db_pool_max", &labels),
        Some(4.0)
    );
    // A server that is gone is told, and comes back by itself.
    let health = || Request::get("/health").send(users.port);
    wait_until("healthy", SOON, || health().status == 200);
    assert_eq!(health().json()["checks"]["database"], true);
    databases.cluster.kill();
    wait_until("the database is down", SOON, || health().status == 503);
    let down = post(
        &daemon,
        "/users/sql",
        &json!({"query": "SELECT 1", "params": []}),
    );
    assert_eq!(
        (down.status, down.cause().as_str()),
        (503, "database_unavailable")
    );
    println!(
        "{}",
        daemon.wait_for_line(&["request failed", "database_unavailable"])
    );
    databases.cluster.start();
    wait_until("healthy again", SOON * 2, || health().status == 200);
    query(&daemon, by_mail, &json!(["ada@example.com"]));
}
