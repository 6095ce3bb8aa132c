//! Migrations: once each, whole or not at all, and never unnoticed.

use std::time::Duration;

use crate::support::postgres::Cluster;
use crate::support::site::Site;
use crate::support::wait::{pause, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

fn users(stem: &str) -> Site<'static> {
    let site = Site::new(Cluster::shared(), stem);
    site.service("users", "isolation: shared");
    site
}

fn applied(site: &Site<'_>) -> String {
    let table = format!("{}.outrigger_migrations", site.role("users"));
    let query = format!("SELECT version, success FROM {table} ORDER BY 1");
    site.sql(&query).replace('\n', " ")
}

/// Whether the server runs this for the site's role right now.
fn runs(site: &Site<'_>, statement: &str) -> bool {
    let role = site.role("users");
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND state = 'active' \
         AND query LIKE '%{statement}%'"
    );
    site.sql(&query) != "0"
}

#[test]
fn a_failing_file_leaves_nothing_and_is_named_with_its_line() {
    let site = users("fails");
    site.migration("users", "1_ok.sql", "CREATE TABLE one (x int);");
    site.migration(
        "users",
        "2_bad.sql",
        "CREATE TABLE two (x int);\n-- a comment\nINSERT INTO two\n  VALUES (1), (oops);\n",
    );
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 65, "{output}");
    let expected = "migrations/2_bad.sql:4: column \"oops\" does not exist (42703)";
    assert!(output.contains(expected), "{output}");
    assert_eq!(applied(&site), "1|t");
    let two = format!("SELECT to_regclass('{}.two') IS NULL", site.role("users"));
    assert_eq!(site.sql(&two), "t");
    site.migration("users", "2_bad.sql", "CREATE TABLE two (x int);");
    site.must(&["migrate", "up"]);
    assert_eq!(applied(&site), "1|t 2|t");
    // What a file sets for its session ends with it.
    site.migration(
        "users",
        "3_sets.sql",
        "SET search_path = pg_catalog; SET statement_timeout = 300;",
    );
    site.migration(
        "users",
        "4_next.sql",
        "SELECT pg_sleep(0.6); CREATE TABLE four (x int);",
    );
    site.must(&["migrate", "up"]);
    assert_eq!(applied(&site), "1|t 2|t 3|t 4|t");
}

#[test]
fn files_that_cannot_be_trusted_are_refused() {
    let site = users("trust");
    let refused = |part: &str| {
        let (code, output) = site.run(&["migrate", "up"]);
        assert_eq!(code, 65, "{output}");
        assert!(output.contains(part), "{part:?} is not in: {output}");
    };
    site.migration("users", "5_five.sql", "CREATE TABLE five (x int);\r\n");
    site.must(&["migrate", "up"]);
    // Line ends are no change; anything else is.
    site.migration(
        "users",
        "5_five.sql",
        "\u{feff}CREATE TABLE five (x int);\n",
    );
    site.must(&["migrate", "up"]);
    site.migration("users", "5_five.sql", "CREATE TABLE five (x bigint);\n");
    refused("5_five.sql was changed after it was applied");
    site.migration("users", "5_five.sql", "CREATE TABLE five (x int);\n");
    site.migration("users", "4_late.sql", "SELECT 1;");
    refused("4_late.sql is out of order: version 5 is applied already");
    site.remove_migration("users", "4_late.sql");
    for (text, part) in [
        (
            "SELECT 1;\nCOMMIT;\nSELECT 2;",
            "6_next.sql:2: `COMMIT` is transaction control",
        ),
        (
            "BEGIN;\nSELECT 1;",
            "6_next.sql:1: `BEGIN` is transaction control",
        ),
        (
            "SELECT 1; ROLLBACK;",
            "6_next.sql:1: `ROLLBACK` is transaction control",
        ),
        (
            "COPY five FROM STDIN;\n1\n\\.\n",
            "6_next.sql:1: `COPY … FROM STDIN`",
        ),
        (
            "DO $$ BEGIN COMMIT; END $$;",
            "6_next.sql:1: invalid transaction termination",
        ),
        (
            "VACUUM;",
            "put `-- outrigger: no-transaction` on the first line",
        ),
        (
            "SELECT pg_advisory_unlock_all();",
            "lock that keeps others from migrating",
        ),
    ] {
        site.migration("users", "6_next.sql", text);
        refused(part);
    }
    site.migration("users", "6_next.sql", "SELECT 1;");
    site.migration("users", "06_twin.sql", "SELECT 1;");
    refused("06_twin.sql and 6_next.sql have the same version 6");
    site.remove_migration("users", "06_twin.sql");
    site.migration("users", "7_up.up.sql", "SELECT 1;");
    refused("are mixed");
    site.remove_migration("users", "7_up.up.sql");
    site.migration("users", "seven.sql", "SELECT 1;");
    refused("seven.sql: the name says no version");
    site.remove_migration("users", "seven.sql");
    site.must(&["migrate", "up"]);
    assert_eq!(applied(&site), "5|t 6|t");
}

#[test]
fn ten_at_once_on_an_empty_server_run_everything_once() {
    let cluster = Cluster::private(&[]);
    let site = Site::new(&cluster, "ten");
    for (service, isolation) in [
        ("users", "shared"),
        ("orders", "shared"),
        ("pay", "isolated"),
    ] {
        site.service(service, &format!("isolation: {isolation}"));
        site.migration(
            service,
            "1_table.sql",
            "CREATE TABLE t (x int); CREATE TABLE log (x int);",
        );
        site.migration(
            service,
            "2_rows.sql",
            "INSERT INTO t SELECT generate_series(1, 20000); INSERT INTO log VALUES (2);",
        );
        site.migration(
            service,
            "3_index.sql",
            "-- outrigger: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (x);\n\
             INSERT INTO log VALUES (3);",
        );
        site.migration(service, "4_last.sql", "INSERT INTO log VALUES (4);");
    }
    let mut all: Vec<_> = (0..10).map(|_| site.spawn(&["migrate", "up"])).collect();
    for one in &mut all {
        let (status, output) = one.wait_for_exit(2 * MINUTE);
        assert!(status.success(), "{status}: {output}");
    }
    for service in ["users", "orders", "pay"] {
        let log = site.sql_as(service, "SELECT x FROM log ORDER BY x");
        assert_eq!(log, Ok("2\n3\n4".to_owned()), "{service}: each ran once");
        let valid = site.sql_as(
            service,
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass",
        );
        assert_eq!(valid, Ok("t".to_owned()));
        let rows = site.sql_as(
            service,
            "SELECT count(*) FROM outrigger_migrations WHERE success",
        );
        assert_eq!(rows, Ok("4".to_owned()));
    }
}

#[test]
fn sigterm_cancels_the_running_file_and_rolls_it_back() {
    let site = users("term");
    site.migration("users", "1_ok.sql", "CREATE TABLE one (x int);");
    site.migration(
        "users",
        "2_slow.sql",
        "CREATE TABLE two (x int);\nSELECT pg_sleep(600);",
    );
    site.migration("users", "3_next.sql", "CREATE TABLE three (x int);");
    let mut running = site.spawn(&["migrate", "up"]);
    wait_until("it sleeps", MINUTE, || runs(&site, "pg_sleep"));
    running.signal("TERM");
    let (status, output) = running.wait_for_exit(Duration::from_secs(10));
    assert!(!status.success(), "{output}");
    assert!(output.contains("interrupted in 2_slow.sql"), "{output}");
    assert_eq!(applied(&site), "1|t");
    let role = site.role("users");
    let left =
        format!("SELECT to_regclass('{role}.two') IS NULL AND to_regclass('{role}.three') IS NULL");
    assert_eq!(site.sql(&left), "t");
    assert!(!runs(&site, "pg_sleep"), "the statement was cancelled");
}

#[test]
fn a_file_without_transaction_that_breaks_off_is_never_unnoticed() {
    let site = users("broken");
    let up = || site.run(&["migrate", "up"]);
    // Nothing is left: as if it had not begun.
    site.migration(
        "users",
        "1_early.sql",
        "-- no-transaction\nCREATE TABLE nowhere.t (x int);",
    );
    let (code, output) = up();
    assert_eq!((code, applied(&site)), (65, String::new()), "{output}");
    site.migration(
        "users",
        "1_early.sql",
        "CREATE TABLE t (x int); INSERT INTO t VALUES (1), (1);",
    );
    site.migration(
        "users",
        "2_index.sql",
        "-- outrigger: no-transaction\nCREATE TABLE half (x int);\n\
         CREATE UNIQUE INDEX CONCURRENTLY lonely ON t (x);",
    );
    let (code, output) = up();
    assert_eq!(code, 65, "{output}");
    assert!(
        output.contains("2_index.sql:3: could not create unique index"),
        "{output}"
    );
    assert!(
        output.contains("1 of 2 statements are done, invalid indexes are left: lonely"),
        "{output}"
    );
    assert_eq!(applied(&site), "1|t 2|f");
    let (code, output) = up();
    assert_eq!(code, 65, "{output}");
    assert!(
        output.contains("2_index.sql was begun without a transaction and not finished"),
        "{output}"
    );
    let (code, status) = site.run(&["migrate", "status"]);
    assert_eq!(code, 65, "{status}");
    let role = site.role("users");
    site.sql(&format!(
        "DROP INDEX {role}.lonely; DELETE FROM {role}.t; DROP TABLE {role}.half"
    ));
    site.must(&["migrate", "resolve", "2", "--retry"]);
    assert_eq!(applied(&site), "1|t");
    site.must(&["migrate", "up"]);
    assert_eq!(applied(&site), "1|t 2|t");
    let (code, output) = site.run(&["migrate", "resolve", "2", "--applied"]);
    assert_eq!(code, 65, "{output}");
}

#[test]
fn killed_at_any_step_it_goes_on_where_it_stopped() {
    let site = users("kill");
    site.must(&["migrate", "provision"]);
    for version in 1..=6 {
        let text = format!(
            "CREATE TABLE t{version} (x int);\nSELECT pg_sleep(0.03);\n\
             INSERT INTO t{version} VALUES ({version});\nSELECT pg_sleep(0.03);"
        );
        site.migration("users", &format!("{version}_step.sql"), &text);
    }
    let mut killed = 0;
    for step in 0..12 {
        let mut running = site.spawn(&["migrate", "up"]);
        // From before the login to after the last file.
        pause(Duration::from_millis(40 + 45 * step));
        if running.is_running() {
            running.signal("KILL");
            killed += 1;
        }
        running.wait_for_exit(MINUTE);
        // Whatever is there is there as a whole.
        let role = site.role("users");
        let tables = format!(
            "SELECT count(*) FROM pg_tables WHERE schemaname = '{role}' AND tablename LIKE 't%'"
        );
        wait_until("the server has noticed", MINUTE, || {
            let done = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
            site.sql(&done) == "0"
        });
        let count: usize = site.sql(&tables).parse().expect("a number");
        if count > 0 {
            let rows = format!("SELECT count(*) FROM {role}.outrigger_migrations WHERE success");
            assert_eq!(site.sql(&rows), count.to_string());
        }
    }
    assert!(killed > 0, "none was still running");
    site.must(&["migrate", "up"]);
    assert_eq!(applied(&site), "1|t 2|t 3|t 4|t 5|t 6|t");
    for version in 1..=6 {
        let rows = format!("SELECT x FROM {}.t{version}", site.role("users"));
        assert_eq!(site.sql(&rows), version.to_string());
    }
    // Outside a transaction the end in the middle shows.
    site.migration(
        "users",
        "7_long.sql",
        "-- no-transaction\nCREATE TABLE seven (x int);\nSELECT pg_sleep(600);",
    );
    let mut running = site.spawn(&["migrate", "up"]);
    wait_until("it sleeps", MINUTE, || runs(&site, "pg_sleep"));
    running.signal("KILL");
    running.wait_for_exit(MINUTE);
    wait_until("the server has noticed", MINUTE, || {
        !runs(&site, "pg_sleep")
    });
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 65, "{output}");
    assert!(output.contains("7_long.sql was begun"), "{output}");
    site.must(&["migrate", "resolve", "7", "--applied"]);
    site.must(&["migrate", "up"]);
}

#[test]
fn an_old_version_is_content_with_a_database_that_is_ahead() {
    let site = users("ahead");
    site.migration("users", "1_one.sql", "SELECT 1;");
    site.migration("users", "2_two.sql", "SELECT 2;");
    site.must(&["migrate", "up"]);
    site.remove_migration("users", "2_two.sql");
    let output = site.must(&["migrate", "up"]);
    assert!(output.contains("newer than every file: [2]"), "{output}");
    let status = site.must(&["migrate", "status"]);
    assert!(status.contains("2        2_two.sql  ahead"), "{status}");
}

#[test]
fn histories_of_other_tools_are_adopted() {
    for (stem, files) in [
        ("golang", ["1_a.up.sql", "2_b.up.sql", "3_c.up.sql"]),
        (
            "sqlx",
            [
                "20260101000000_a.sql",
                "20260102000000_b.sql",
                "20260103000000_c.sql",
            ],
        ),
        ("flyway", ["V1__a.sql", "V2__b.sql", "V3__c.sql"]),
    ] {
        let site = users(stem);
        let [one, two, three] = files;
        site.migration("users", one, "CREATE TABLE a (x int);");
        site.migration("users", two, "CREATE TABLE b (x int);");
        site.migration("users", three, "CREATE TABLE c AS SELECT x FROM b;");
        site.must(&["migrate", "provision"]);
        let done = site.sql_as("users", "CREATE TABLE a (x int); CREATE TABLE b (x int)");
        assert_eq!(done, Ok(String::new()));
        let version: String = two.chars().filter(char::is_ascii_digit).collect();
        let output = site.must(&["migrate", "baseline", &version]);
        assert!(output.contains("2 files count as applied"), "{output}");
        let status = site.must(&["migrate", "status"]);
        assert_eq!(status.matches("applied").count(), 2, "{status}");
        assert_eq!(status.matches("pending").count(), 1, "{status}");
        site.must(&["migrate", "up"]);
        assert_eq!(
            site.sql_as("users", "SELECT count(*) FROM c"),
            Ok("0".to_owned())
        );
        let (code, output) = site.run(&["migrate", "baseline", &version]);
        assert_eq!(code, 65, "{output}");
    }
}

#[test]
fn nobody_to_talk_to_is_not_a_failed_migration() {
    let site = users("gone");
    site.service("users", "url: 'postgres://a:b@127.0.0.1:1/x'");
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 69, "{output}");
    assert!(
        output.contains("cannot reach PostgreSQL at 127.0.0.1:1"),
        "{output}"
    );
    let site = users("wrong");
    site.service(
        "users",
        &format!("user: {}, password: wrong", site.cluster.user),
    );
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 69, "{output}");
    assert!(
        output.contains("password authentication failed"),
        "{output}"
    );
    site.service("users", "database: nowhere");
    let (code, output) = site.run(&["migrate", "up"]);
    assert_eq!(code, 65, "{output}");
    assert!(
        output.contains("the database `nowhere` does not exist"),
        "{output}"
    );
}
