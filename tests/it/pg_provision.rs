//! Roles, schemas and databases: what is made, what is refused, what heals.

use crate::support::postgres::Cluster;
use crate::support::site::Site;

fn users(stem: &str) -> Site<'static> {
    let site = Site::new(Cluster::shared(), stem);
    site.service("users", "isolation: shared");
    site
}

#[track_caller]
fn refused(site: &Site<'_>, parts: &[&str]) -> String {
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 65, "{output}");
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in: {output}");
    }
    output
}

#[test]
fn provisioning_twice_changes_nothing() {
    let site = users("twice");
    let first = site.must(&["migrate", "provision"]);
    assert!(first.contains("is ready"), "{first}");
    let catalog = "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolconnlimit >= 25, \
                   shobj_description(oid, 'pg_authid') FROM pg_roles \
                   WHERE rolname LIKE current_database() || '%'";
    let role = site.role("users");
    let mark = format!("outrigger:{}/users", site.domain());
    assert_eq!(site.sql(catalog), format!("{role}|f|f|f|t|{mark}"));
    let second = site.must(&["migrate", "provision"]);
    assert!(second.contains("nothing is missing"), "{second}");
}

#[test]
fn what_others_made_is_refused_with_the_script_that_hands_it_over() {
    let site = users("foreign");
    let role = site.role("users");
    site.sql(&format!("CREATE ROLE {role} LOGIN"));
    let output = refused(
        &site,
        &["belongs to somebody else: it has no comment of ours"],
    );
    let script = output
        .lines()
        .find(|line| line.starts_with("COMMENT ON ROLE"));
    site.sql(&format!("CREATE SCHEMA {role}"));
    site.sql(script.expect("a script to run"));
    let output = refused(&site, &["the schema", "it has no comment of ours"]);
    let script: Vec<&str> = output.lines().filter(|line| line.ends_with(';')).collect();
    assert_eq!(script.len(), 2, "{output}");
    site.sql(&script.join("\n"));
    site.must(&["migrate", "up"]);
    // What carries another service's comment stays with it.
    site.sql(&format!("COMMENT ON ROLE {role} IS 'outrigger:crm/users'"));
    refused(&site, &["belongs to the service `crm/users`"]);
    let guest = format!("{}_guest", site.base);
    site.sql(&format!("CREATE ROLE {guest}"));
    site.sql(&format!("CREATE DATABASE {}_pay OWNER {guest}", site.base));
    site.tree.remove(&format!("{}/users", site.domain()));
    site.service("pay", "isolation: isolated");
    refused(&site, &["the database", "ALTER DATABASE"]);
}

#[test]
fn roles_with_privileges_are_refused() {
    for (number, (power, why)) in [
        ("SUPERUSER", "is a superuser"),
        ("CREATEROLE", "may create roles"),
        ("CREATEDB", "may create databases"),
        ("REPLICATION", "may replicate"),
        ("BYPASSRLS", "bypasses row security"),
        ("IN ROLE pg_read_all_data", "belongs to `pg_read_all_data`"),
    ]
    .into_iter()
    .enumerate()
    {
        let site = users(&format!("power{number}"));
        let (role, domain) = (site.role("users"), site.domain());
        site.sql(&format!("CREATE ROLE {role} LOGIN {power}"));
        site.sql(&format!(
            "COMMENT ON ROLE {role} IS 'outrigger:{domain}/users'"
        ));
        refused(&site, &[why]);
        site.sql(&format!("DROP ROLE {role}"));
    }
    let site = users("lockout");
    site.must(&["migrate", "up"]);
    site.sql(&format!("ALTER ROLE {} NOLOGIN", site.role("users")));
    refused(&site, &["locked it out"]);
    // A role of another service would open the boundary between them.
    site.sql(&format!("ALTER ROLE {} LOGIN", site.role("users")));
    site.service("orders", "isolation: shared");
    site.must(&["migrate", "up"]);
    site.sql(&format!(
        "GRANT {} TO {}",
        site.role("orders"),
        site.role("users")
    ));
    let (code, output) = site.run(&["migrate", "up", "--service", "users"]);
    assert_eq!(code, 65);
    assert!(output.contains("belongs to `"), "{output}");
}

#[test]
fn names_that_clash_or_belong_to_postgresql_are_refused_before_anything_is_done() {
    let site = users("names");
    let long = "x".repeat(60);
    for (keys, parts) in [
        ("role: postgres".to_owned(), vec!["belongs to PostgreSQL"]),
        ("schema: public".to_owned(), vec!["belongs to PostgreSQL"]),
        ("schema: pg_mine".to_owned(), vec!["belongs to PostgreSQL"]),
        (
            "isolation: isolated, database: template1".to_owned(),
            vec!["belongs to PostgreSQL"],
        ),
        (
            format!("role: {long}_users"),
            vec!["more than 63 bytes", "set `database.role`"],
        ),
        (
            format!("role: {}", site.role("users")),
            vec!["belongs to `", "/users` too"],
        ),
        (
            format!("schema: {}", site.role("users")),
            vec!["belongs to `", "set `database.schema`"],
        ),
    ] {
        site.service("orders", &keys);
        let (code, output) = site.run(&["migrate", "up"]);
        assert_eq!(code, 64, "{keys}: {output}");
        for part in parts {
            assert!(output.contains(part), "{keys}: {output}");
        }
    }
    // `a-b` and `a_b` of two domains meet in one name.
    let both = Site::new(Cluster::shared(), "meet");
    both.tree
        .write("a/b-c", "port: 3001\nauth: none\ndatabase: {}\n");
    both.tree
        .write("a-b/c", "port: 3002\nauth: none\ndatabase: {}\n");
    let (code, output) = both.run(&["migrate", "up"]);
    assert_eq!(code, 64);
    assert!(
        output.contains("the role `a_b_c` belongs to `a/b-c` too"),
        "{output}"
    );
    let count = "SELECT count(*) FROM pg_namespace WHERE nspname = 'a_b_c'";
    assert_eq!(both.sql(count), "0");
}

#[test]
fn passwords_never_reach_the_server_log_and_heal() {
    let cluster = Cluster::private(&["log_statement=all", "log_min_duration_statement=0"]);
    let site = Site::new(&cluster, "secrets");
    site.service("users", "isolation: shared");
    site.service(
        "pay",
        "isolation: isolated, rolePassword: a-written-password",
    );
    site.must(&["migrate", "up"]);
    let login = site.login("users");
    let password = String::from_utf8_lossy(login.get_password().expect("one")).into_owned();
    assert!(password.len() >= 32);
    // A tenant changes its own password: the next start puts it right.
    let role = site.role("users");
    let change = format!("ALTER ROLE {role} PASSWORD 'the-tenants-own'");
    site.sql_of(&login, &site.base, &change).expect("it may");
    let locked_out = site
        .sql_of(&login, &site.base, "SELECT 1")
        .expect_err("changed");
    assert!(locked_out.starts_with("28P01"), "{locked_out}");
    let (code, output) = site.run(&["db", "url", "users"]);
    assert_eq!(code, 69, "{output}");
    site.must(&["migrate", "up"]);
    assert_eq!(
        site.sql_of(&login, &site.base, "SELECT 1"),
        Ok("1".to_owned())
    );
    let log = cluster.log();
    assert!(log.contains("CREATE ROLE"), "statements are logged");
    assert!(log.contains("PASSWORD 'SCRAM-SHA-256$"), "as verifiers");
    let admin = cluster.password.as_str();
    for secret in [password.as_str(), "a-written-password", admin] {
        assert!(!log.contains(secret), "a password is in the server's log");
    }
}

#[test]
fn a_login_without_rights_is_used_as_it_is_and_told_what_is_missing() {
    let mut site = users("plain");
    site.migration("users", "1_users.sql", "CREATE TABLE users (id int);");
    let plain = format!("{}_plain", site.base);
    let role = site.role("users");
    site.sql(&format!("CREATE ROLE {plain} LOGIN PASSWORD 'plain'"));
    site.log_in_as(&plain, "plain");
    let output = refused(&site, &["may not create roles. Missing:", "the schema"]);
    let script: Vec<&str> = output
        .lines()
        .filter(|line| line.ends_with(';') && !line.contains("COMMENT ON SCHEMA public"))
        .collect();
    assert!(output.contains("\\password"), "{output}");
    // Exactly that, run by somebody who may, is enough.
    site.sql(&script.join("\n"));
    site.sql(&format!("ALTER ROLE {role} PASSWORD 'by hand'"));
    site.service("users", "rolePassword: by hand");
    site.must(&["migrate", "up"]);
    assert_eq!(site.sql(&format!("SELECT count(*) FROM {role}.users")), "0");
    // Asked for, it is an error.
    site.service("orders", "provision: true");
    let (code, output) = site.run(&["migrate", "up", "--service", "orders"]);
    assert_eq!(code, 65, "{output}");
    assert!(output.contains("Somebody who may must run"), "{output}");
}
