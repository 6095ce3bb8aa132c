//! Databases as a running daemon sees to them: readiness, files that appear,
//! passwords that change.

use std::time::Duration;

use crate::support::client::Request;
use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::postgres::Cluster;
use crate::support::site::Site;
use crate::support::wait::wait_until;

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
