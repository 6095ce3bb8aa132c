//! The login that the command of `outrigger exec` gets: its service's own, and
//! nothing of the sidecar's.

use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::postgres::Cluster;
use crate::support::site::{ROLE_SECRET, Site};
use crate::support::wait::{SOON, shared_machine, wait_for};

/// Writes its environment and stays until it is told to go.
const SCRIPT: &str = "env > env.txt; touch written; \
                      while [ ! -e go ]; do sleep 0.05; done; exit 3";

fn service(site: &Site<'_>, name: &str, keys: &str) {
    let text = format!("port: {}\nauth: none\ndatabase: {{{keys}}}\n", free_port());
    site.tree.write(&format!("{}/{name}", site.domain()), text);
}

fn start(site: &Site<'_>) -> Daemon {
    let url = site.cluster.url(&site.base);
    let setup = site.setup().subcommand(&["exec", "--", "sh", "-c", SCRIPT]);
    setup.env("DATABASE_URL", &url).spawn()
}

/// What the command was given, as lines.
fn environment(site: &Site<'_>) -> String {
    let root = site.tree.root().to_owned();
    let (text, _) = wait_for("the command runs", 4 * SOON, || {
        let written = root.join("written").exists();
        written.then(|| std::fs::read_to_string(root.join("env.txt")).expect("it is there"))
    });
    text
}

fn value(environment: &str, name: &str) -> Option<String> {
    let prefix = format!("{name}=");
    let mut lines = environment.lines();
    lines.find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
}

#[track_caller]
fn ends(site: &Site<'_>, mut daemon: Daemon) -> String {
    std::fs::write(site.tree.root().join("go"), "").expect("the folder is ours");
    let (status, output) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(3), "{output}");
    output
}

#[test]
fn the_command_logs_in_as_its_service_and_knows_no_other_login() {
    let _machine = shared_machine();
    for (isolation, keys) in [
        ("shared", "isolation: shared"),
        (
            "isolated",
            "isolation: isolated, rolePassword: \"p@ss/wörd & more\"",
        ),
    ] {
        let site = Site::new(Cluster::shared(), "exec");
        service(&site, "users", keys);
        site.migration(
            "users",
            "1_users.sql",
            "CREATE TABLE users AS SELECT 7 AS id;",
        );
        let daemon = start(&site);
        let environment = environment(&site);
        let url = value(&environment, "DATABASE_URL").expect("it is told");
        let login: tokio_postgres::Config = url.parse().expect("a URL that drivers take");
        // It was migrated before the command began.
        let database = login.get_dbname().expect("the URL names it").to_owned();
        let seen = "SELECT current_user, session_user, id FROM users";
        let role = site.role("users");
        assert_eq!(
            site.sql_of(&login, &database, seen),
            Ok(format!("{role}|{role}|7")),
            "{isolation}"
        );
        assert_eq!(url, site.must(&["db", "url", "users"]).trim());
        let admin = &site.cluster.password;
        let encoded = site.cluster.url("x");
        let encoded = encoded.split(['@', ':']).nth(2).expect("a password");
        for secret in [admin.as_str(), encoded, ROLE_SECRET] {
            assert!(!environment.contains(secret), "{isolation}: {environment}");
        }
        let output = ends(&site, daemon);
        let password = String::from_utf8_lossy(login.get_password().expect("one")).into_owned();
        for secret in [admin.as_str(), ROLE_SECRET, password.as_str(), url.as_str()] {
            assert!(!output.contains(secret), "{output}");
        }
    }
}

#[test]
fn with_several_databases_the_command_gets_none() {
    let _machine = shared_machine();
    let site = Site::new(Cluster::shared(), "execs");
    service(&site, "users", "isolation: shared");
    service(&site, "orders", "isolation: shared");
    let daemon = start(&site);
    let environment = environment(&site);
    assert_eq!(value(&environment, "DATABASE_URL"), None);
    assert!(!environment.contains(&site.cluster.password));
    let output = ends(&site, daemon);
    assert!(output.contains("DATABASE_URL is not set"), "{output}");
}

#[test]
fn a_database_that_may_be_missing_does_not_keep_the_command_waiting() {
    let _machine = shared_machine();
    let site = Site::new(Cluster::shared(), "execless");
    let nobody = free_port();
    service(
        &site,
        "users",
        &format!("host: 127.0.0.1, port: {nobody}, required: false"),
    );
    let daemon = start(&site);
    let environment = environment(&site);
    let url = value(&environment, "DATABASE_URL").expect("it is told");
    let login: tokio_postgres::Config = url.parse().expect("a URL that drivers take");
    assert_eq!(login.get_user(), Some(site.role("users").as_str()));
    assert_eq!(login.get_ports(), [nobody]);
    assert!(
        login
            .get_password()
            .is_some_and(|password| password.len() >= 32)
    );
    let line = daemon.wait_for_line(&["the command starts before its database is ready"]);
    assert!(line.contains("users"), "{line}");
    ends(&site, daemon);
}
