//! Databases as a running daemon sees to them: readiness, files that appear,
//! passwords that change.

use std::time::Duration;

use serde_json::json;

use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::moody::{Moody, QUICK, health};
use crate::support::ports::free_port;
use crate::support::postgres::{Cluster, PASSWORD};
use crate::support::site::Site;
use crate::support::sql::tenant;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

fn start(site: &Site<'_>, keys: &str) -> Daemon {
    let text = format!("port: {}\nauth: none\ndatabase: {{{keys}}}\n", free_port());
    site.tree.write(&format!("{}/users", site.domain()), text);
    site.setup().start()
}

fn readiness(daemon: &Daemon) -> String {
    Request::get("/readyz/users").send(daemon.observe).text()
}

fn applied(site: &Site<'_>) -> String {
    let table = format!("{}.outrigger_migrations", site.role("users"));
    site.sql(&format!(
        "SELECT string_agg(version::text, ' ' ORDER BY version) FROM {table}"
    ))
}

#[test]
fn readiness_names_the_file_and_comes_back_when_it_is_mended() {
    let site = Site::new(Cluster::shared(), "ready");
    site.migration(
        "users",
        "1_bad.sql",
        "CREATE TABLE one (x int);\nSELECT oops;",
    );
    let daemon = start(&site, "isolation: shared");
    let said = readiness(&daemon);
    assert!(said.contains("1_bad.sql:2: column"), "{said}");
    site.migration("users", "1_bad.sql", "CREATE TABLE one (x int);");
    wait_until("the mended file ran", MINUTE, || {
        applied_or_none(&site) == "1"
    });
    wait_until("nothing is said of it", MINUTE, || {
        !readiness(&daemon).contains("1_bad.sql")
    });
    let metrics = daemon.metrics();
    assert_eq!(metrics.count("outrigger_db_migrations_applied", &[]), 1.0);
    assert_eq!(metrics.count("outrigger_db_migrations_run_total", &[]), 1.0);
    assert_eq!(
        metrics.count("outrigger_db_migrations_failures_total", &[]),
        1.0
    );
}

fn applied_or_none(site: &Site<'_>) -> String {
    let table = format!("{}.outrigger_migrations", site.role("users"));
    match site
        .sql(&format!("SELECT to_regclass('{table}') IS NULL"))
        .as_str()
    {
        "t" => String::new(),
        _ => applied(site),
    }
}

#[test]
fn files_that_appear_run_only_where_asked_for_and_never_lower_readiness() {
    let site = Site::new(Cluster::shared(), "reload");
    site.migration("users", "1_one.sql", "SELECT 1;");
    let daemon = start(&site, "migrateOnReload: true");
    assert_eq!(applied(&site), "1");
    site.migration("users", "2_two.sql", "SELECT oops;");
    daemon.wait_for_line(&["2_two.sql:1"]);
    assert!(
        !readiness(&daemon).contains("2_two.sql"),
        "what runs goes on"
    );
    site.migration("users", "2_two.sql", "SELECT 2;");
    wait_until("the mended file ran", MINUTE, || applied(&site) == "1 2");
}

#[test]
fn a_password_that_a_tenant_changed_heals_while_the_daemon_is_up() {
    let site = Site::new(Cluster::shared(), "heal");
    let daemon = start(&site, "isolation: shared");
    let login = site.login("users");
    let role = site.role("users");
    site.sql(&format!("ALTER ROLE {role} PASSWORD 'the-tenants-own'"));
    site.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    ));
    wait_until("the derived password is back", MINUTE, || {
        site.sql_of(&login, &site.base, "SELECT 1").is_ok()
    });
    drop(daemon);
}

#[test]
fn a_database_counts_as_much_as_it_is_required() {
    let _machine = shared_machine();
    let cluster = Cluster::shared();
    let name = tenant(cluster, "counts");
    let app = Moody::start(200);
    for (required, is_up) in [(true, true), (true, false), (false, true), (false, false)] {
        let (port, host) = (free_port(), &cluster.host);
        let server = if is_up { cluster.port } else { free_port() };
        let text = format!(
            "port: {port}\nupstream: {}\nauth: none\nhealthCheck: {QUICK}\ndatabase:\n  \
             host: {host}\n  port: {server}\n  database: {name}\n  isolation: isolated\n  \
             user: {name}\n  password: \"{PASSWORD}\"\n  provision: false\n  \
             migrations: false\n  required: {required}\n",
            app.port()
        );
        let tree = Tree::with(&[("shop/cart", &text)]);
        let daemon = Setup::new(&tree).start();
        for (status, app_is_up) in [(500, false), (200, true)] {
            app.becomes(status);
            let checks = json!({"http": app_is_up, "database": is_up, "dependencies": {}});
            wait_until(&format!("{checks}"), SOON, || {
                health(port).1["checks"] == checks
            });
            let (word, status) = match (app_is_up, is_up, required) {
                (true, true, _) => ("healthy", 200),
                (true, false, false) => ("degraded", 202),
                _ => ("unhealthy", 503),
            };
            let (found, document) = health(port);
            assert_eq!((found, &document["status"]), (status, &json!(word)));
            let told = document["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!(told.contains("database is down"), !is_up, "{told}");
            // Others learn of it with the service's own state.
            let own = Request::get("/health?scope=self").send(port);
            assert_eq!((own.status, &own.json()["checks"]), (status, &checks));
        }
        let labels = [("target", "shop/cart"), ("kind", "database")];
        let gauge = daemon.metrics().sum("outrigger_health_status", &labels);
        assert_eq!(gauge, Some(f64::from(u8::from(is_up))));
    }
}

#[test]
fn what_a_reload_prepares_lowers_no_readiness() {
    let _machine = shared_machine();
    let site = Site::new(Cluster::shared(), "late");
    let port = free_port();
    let plain = format!("port: {port}\nauth: none\nhealthCheck: false\n");
    site.tree
        .write(&format!("{}/orders", site.domain()), &plain);
    let daemon = start(&site, "isolation: shared");
    let probes = || {
        ["/startupz", "/readyz", "/readyz/orders"]
            .map(|path| Request::get(path).status(daemon.observe))
    };
    assert_eq!(probes(), [Some(200); 3]);
    site.migration("orders", "1_slow.sql", "SELECT pg_sleep(1.5);");
    site.tree.write(
        &format!("{}/orders", site.domain()),
        format!("{plain}database: {{isolation: shared}}\n"),
    );
    let table = format!("{}.outrigger_migrations", site.role("orders"));
    wait_until("its migration ran", MINUTE, || {
        let [startup, ready, _] = probes();
        assert_eq!([startup, ready], [Some(200); 2]);
        site.sql(&format!("SELECT to_regclass('{table}') IS NOT NULL")) == "t"
            && site.sql(&format!("SELECT count(*) FROM {table}")) == "1"
    });
    wait_until("orders is ready", SOON, || probes() == [Some(200); 3]);
}

#[test]
fn a_change_of_what_runs_never_lowers_readiness() {
    let _machine = shared_machine();
    let site = Site::new(Cluster::shared(), "steady");
    site.migration("users", "1_one.sql", "SELECT 1;");
    let app = crate::support::app::App::start(crate::support::scripts::ok);
    let port = free_port();
    let write = |keys: &str| {
        let app = app.port();
        let text = format!("port: {port}\nupstream: {app}\nauth: none\ndatabase: {{{keys}}}\n");
        site.tree.write(&format!("{}/users", site.domain()), text);
    };
    write("max: 5");
    let daemon = site.setup().start();
    let ready = || {
        ["/readyz", "/readyz/users", "/startupz"]
            .map(|path| Request::get(path).status(daemon.observe))
    };
    wait_until("it is ready", MINUTE, || ready() == [Some(200); 3]);
    // Another version comes with a migration that takes its time.
    site.migration("users", "2_slow.sql", "SELECT pg_sleep(2);");
    write("max: 6");
    assert_eq!(daemon.reload().status, 200);
    let mut unready = Vec::new();
    wait_until("the migration ran", MINUTE, || {
        unready.extend(Some(ready()).filter(|ready| *ready != [Some(200); 3]));
        applied(&site) == "1 2"
    });
    // And one that goes nowhere.
    write(&format!("max: 6, host: 127.0.0.1, port: {}", free_port()));
    assert_eq!(daemon.reload().status, 200);
    daemon.wait_for_line(&["cannot reach PostgreSQL"]);
    unready.extend(Some(ready()).filter(|ready| *ready != [Some(200); 3]));
    assert_eq!(unready, [[Some(200); 3]; 0]);
}

#[test]
fn what_is_mended_in_the_database_needs_no_restart() {
    let _machine = shared_machine();
    let site = Site::new(Cluster::shared(), "mended");
    site.migration(
        "users",
        "1_half.sql",
        "-- no-transaction\nCREATE TABLE one (x int);\nSELECT oops;",
    );
    let daemon = start(&site, "isolation: shared");
    wait_until("it is named", MINUTE, || {
        readiness(&daemon).contains("1_half.sql:3: column")
    });
    // The file is right now, but its beginning has run.
    site.migration(
        "users",
        "1_half.sql",
        "-- no-transaction\nCREATE TABLE one (x int);",
    );
    wait_until("a person is asked for", MINUTE, || {
        readiness(&daemon).contains("1_half.sql was begun without a transaction")
    });
    site.must(&["migrate", "resolve", "1", "--applied"]);
    wait_until("nothing is said of it", MINUTE, || {
        !readiness(&daemon).contains("1_half.sql")
    });
    assert_eq!(
        site.sql_as("users", "SELECT count(*) FROM one"),
        Ok("0".to_owned())
    );
    drop(daemon);
    // Somebody else makes the database, later.
    let plain = tenant(Cluster::shared(), "later");
    let missing = format!("{plain}_missing");
    let file = crate::support::sql::service_as(Cluster::shared(), &plain, PASSWORD, &missing, "");
    let file = file.replace("  migrations: false\n", "");
    let tree = Tree::with(&[("shop/users", &file)]);
    let daemon = Setup::new(&tree).spawn();
    daemon.wait_for_line(&["the database cannot be reached", "unknown_database"]);
    site.cluster.sql(
        "postgres",
        &format!("CREATE DATABASE {missing} OWNER {plain}"),
    );
    wait_until("it is used", MINUTE, || {
        let select = json!({"query": "select 1", "params": []});
        crate::support::sql::post(&daemon, "/sql", &select).status == 200
    });
}

/// What the pool and its login may not be.
#[test]
fn a_login_with_privileges_is_no_role_of_a_service() {
    let site = Site::new(Cluster::shared(), "master");
    let boss = format!("{}_boss", site.base);
    site.sql(&format!(
        "CREATE ROLE {boss} LOGIN SUPERUSER PASSWORD 'boss'"
    ));
    site.service(
        "users",
        &format!("user: {boss}, password: boss, role: {boss}"),
    );
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 65, "{output}");
    assert!(output.contains("is a superuser"), "{output}");
}
