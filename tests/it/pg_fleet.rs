//! Whole daemons that begin at once on an empty server, and such as are killed
//! while they begin.

use std::time::Duration;

use crate::support::client::Request;
use crate::support::daemon::Daemon;
use crate::support::figures::figure;
use crate::support::ports::free_port;
use crate::support::postgres::Cluster;
use crate::support::site::Site;
use crate::support::tree::Tree;
use crate::support::wait::{pause, shared_machine, wait_until, whole_machine};

const MINUTE: Duration = Duration::from_secs(60);
const DAEMONS: usize = 10;
const SERVICES: [(&str, &str); 3] = [
    ("users", "shared"),
    ("orders", "shared"),
    ("pay", "isolated"),
];
const MIGRATIONS: [(&str, &str); 3] = [
    (
        "1_table.sql",
        "CREATE TABLE t (x int); CREATE TABLE log (x int);\n\
         INSERT INTO t SELECT generate_series(1, 20000); INSERT INTO log VALUES (1);",
    ),
    (
        "2_index.sql",
        "-- outrigger: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (x);\n\
         INSERT INTO log VALUES (2);",
    ),
    ("3_last.sql", "INSERT INTO log VALUES (3);"),
];

/// The site's services on ports of one daemon's own.
fn tree_of(site: &Site<'_>) -> Tree {
    let tree = Tree::new();
    for (service, isolation) in SERVICES {
        let name = format!("{}/{service}", site.domain());
        let text = format!(
            "port: {}\nauth: none\ndatabase: {{isolation: {isolation}, doorToken: the-door-token-of-{service}}}\n",
            free_port()
        );
        tree.write(&name, text);
        for (file, sql) in MIGRATIONS {
            tree.put(&format!("services/{name}/migrations/{file}"), sql);
        }
    }
    tree
}

/// Each ran once, whoever ran it.
#[track_caller]
fn complete(site: &Site<'_>, service: &str, isolation: &str) {
    let (database, path) = match isolation {
        "shared" => (site.base.clone(), site.role(service)),
        _ => (format!("{}_{service}", site.base), "public".to_owned()),
    };
    let ask = |sql: &str| {
        let sql = format!("SET search_path = {path}; {sql}");
        site.cluster.sql(&database, &sql)
    };
    let log = ask("SELECT string_agg(x::text, ' ' ORDER BY x) FROM log");
    assert_eq!(log, "1 2 3", "{service}");
    let valid = ask("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass");
    assert_eq!(valid, "t", "{service}");
    let rows = ask("SELECT count(*), bool_and(success) FROM outrigger_migrations");
    assert_eq!(rows, "3|t", "{service}");
}

#[test]
fn ten_daemons_that_start_at_once_run_every_migration_once() {
    let _machine = whole_machine();
    let cluster = Cluster::private(&[]);
    let site = Site::new(&cluster, "fleet");
    let trees: Vec<Tree> = (0..DAEMONS).map(|_| tree_of(&site)).collect();
    let setups = trees.iter().map(|tree| site.setup_of(tree));
    let mut daemons: Vec<Daemon> = setups.map(|setup| setup.spawn()).collect();
    let started = |daemon: &Daemon| Request::get("/startupz").status(daemon.observe) == Some(200);
    let took = wait_until("all of them have started", 2 * MINUTE, || {
        daemons.iter().all(started)
    });
    let mut run = 0.0;
    for daemon in &mut daemons {
        assert!(daemon.is_running(), "{}", daemon.output());
        let metrics = daemon.metrics();
        let applied = metrics.count("outrigger_db_migrations_applied", &[]);
        let failures = metrics.count("outrigger_db_migrations_failures_total", &[]);
        assert_eq!((applied, failures), (9.0, 0.0), "{}", daemon.output());
        run += metrics.count("outrigger_db_migrations_run_total", &[]);
        let output = daemon.output();
        for bad in ["not ready", "\"level\":\"ERROR\"", "panicked"] {
            assert!(!output.contains(bad), "{bad}: {output}");
        }
        for (service, _) in SERVICES {
            let ready = Request::get(&format!("/readyz/{service}")).send(daemon.observe);
            let said = ready.text();
            assert!(!said.contains("database"), "{said}");
        }
    }
    assert_eq!(run, 9.0, "somebody ran one again");
    for (service, isolation) in SERVICES {
        complete(&site, service, isolation);
    }
    let sum = |daemon: &Daemon| {
        daemon
            .metrics()
            .sum("outrigger_db_pool_connect_errors_total", &[])
    };
    let errors: f64 = daemons.iter().filter_map(sum).sum();
    assert_eq!(errors, 0.0, "somebody was refused");
    figure!("{DAEMONS} daemons with three databases each, at once on an empty server: {took:?}");
}

#[test]
fn killed_anywhere_between_the_empty_server_and_the_last_file_it_heals() {
    let _machine = shared_machine();
    let cluster = Cluster::private(&[]);
    let mut killed = 0;
    // Each round on names of its own, so each begins with nothing.
    for round in 0..6_u64 {
        let site = Site::new(&cluster, "heals");
        let tree = tree_of(&site);
        for step in 0..3_u64 {
            let mut daemon = site.setup_of(&tree).spawn();
            // Roles, databases and comments come within the first of these.
            wait_until("it is at work", MINUTE, || {
                let output = daemon.output();
                output.contains("\"ready\"") || !daemon.is_running()
            });
            pause(Duration::from_millis(25 * round + 60 * step));
            daemon.signal("KILL");
            let (_, output) = daemon.wait_for_exit(MINUTE);
            killed += usize::from(output.matches("database pool open").count() < SERVICES.len());
        }
        wait_until("the server has noticed", MINUTE, || {
            let at_work = "SELECT count(*) FROM pg_stat_activity \
                           WHERE application_name LIKE 'outrigger/%'";
            cluster.sql("postgres", at_work) == "0"
        });
        let daemon = site.setup_of(&tree).start();
        let output = daemon.output();
        for (service, isolation) in SERVICES {
            let index = output.contains("2_index.sql was begun without a transaction");
            if index {
                // Never unnoticed: named, and a person decides.
                let ready = Request::get(&format!("/readyz/{service}")).send(daemon.observe);
                assert_ne!(ready.status, 200);
                continue;
            }
            complete(&site, service, isolation);
        }
    }
    assert!(
        killed > 3,
        "only {killed} were killed before they were done"
    );
}
