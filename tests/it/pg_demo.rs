//! What the demo and `init-db.sql` make of a real PostgreSQL.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::daemon::{BINARY, Daemon};
use crate::support::postgres::Cluster;
use crate::support::site::Site;
use crate::support::wait::wait_until;

/// Far from the ports of other tests, and below those that are given out.
const OFFSET: u16 = 16_500;

#[test]
fn the_demo_has_a_postgresql_of_its_own_and_takes_it_along() {
    let folder = tempfile::tempdir().unwrap();
    // The server runs as somebody else, who must get to its folder.
    let path = folder.path();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["demo", "--port-offset", &OFFSET.to_string()])
        .env("TMPDIR", path)
        .current_dir(path);
    let mut demo = Daemon::spawn(command, 9900 + OFFSET, 9909 + OFFSET);
    let (line, _) =
        crate::support::wait::wait_for("psql is shown", Duration::from_secs(60), || {
            let output = demo.output();
            let mut lines = output.lines();
            lines.find(|line| line.contains("psql")).map(str::to_owned)
        });
    let url = line.split('\'').nth(1).expect("a URL in quotes");
    let login: tokio_postgres::Config = url.parse().expect("a URL that drivers take");
    let server = Cluster::at(&login);
    assert_eq!(server.sql("zintrust", "SELECT 1"), "1");
    demo.signal("INT");
    let (status, output) = demo.wait_for_exit(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{output}");
    wait_until("its files are gone", Duration::from_secs(20), || {
        std::fs::read_dir(path).unwrap().count() == 0
    });
    assert!(server.try_sql("zintrust", "SELECT 1").is_err());
}

#[test]
fn the_examples_migrate_into_places_of_their_own() {
    let cluster = Cluster::private(&[]);
    let site = Site::new(&cluster, "shop");
    for name in ["users", "orders", "payments"] {
        site.tree.copy_example(&format!("ecommerce/{name}"));
    }
    let secrets = [
        ("SERVICE_API_KEY", "an-api-key-of-enough-letters"),
        (
            "SERVICE_JWT_SECRET",
            "a-secret-of-more-than-thirty-two-bytes",
        ),
    ];
    let up = || site.run_with(&["migrate", "up"], &secrets);
    assert_eq!(up().0, 0);
    let base = &site.base;
    let total = "SELECT sum(quantity * unit_price) FROM ecommerce_orders.order_items";
    assert_eq!(site.sql(total), "38.20");
    assert_eq!(site.sql("SELECT count(*) FROM ecommerce_users.users"), "2");
    let paid = "SELECT amount FROM payments";
    assert_eq!(cluster.sql(&format!("{base}_payments"), paid), "38.20");
}

/// By hand first, then by the daemon's own hands: it finds nothing missing.
#[test]
fn init_db_does_what_provisioning_does() {
    if Command::new("psql")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!("skipped: psql is not installed");
        return;
    }
    let cluster = Cluster::private(&["log_statement=all"]);
    let site = Site::new(&cluster, "byhand");
    for (name, password) in [
        ("users", "first-pw"),
        ("orders", "second-pw"),
        ("payments", "third-pw"),
    ] {
        let isolation = if name == "payments" {
            "isolated"
        } else {
            "shared"
        };
        site.tree.write(
            &format!("ecommerce/{name}"),
            format!(
                "port: {}\nauth: none\ndatabase: {{isolation: {isolation}, rolePassword: {password}}}\n",
                3001 + name.len()
            ),
        );
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/init-db.sql");
    for _ in 0..2 {
        let output = Command::new("psql")
            .arg(cluster.url(&site.base))
            .args(["-X", "-q", "-v", "users_password=first-pw"])
            .args([
                "-v",
                "orders_password=second-pw",
                "-v",
                "payments_password=third-pw",
            ])
            .args(["-f", script])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
    }
    let log = cluster.log();
    for password in ["first-pw", "second-pw", "third-pw"] {
        assert!(!log.contains(password), "a password is in the server's log");
    }
    let output = site.must(&["migrate", "provision"]);
    assert_eq!(output.matches("nothing is missing").count(), 3, "{output}");
    assert_eq!(
        site.sql_as("payments", "SELECT current_user"),
        Ok("ecommerce_payments".to_owned())
    );
}
