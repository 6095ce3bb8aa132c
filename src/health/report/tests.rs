use std::time::{Duration, UNIX_EPOCH};

use super::*;

struct Case {
    now: Moment,
    orders: ServiceHealth,
    users: ServiceHealth,
}

const INTERVAL: Duration = Duration::from_secs(5);

fn case() -> Case {
    let instant = Instant::now();
    let cell = || Arc::new(CheckCell::new(INTERVAL, instant));
    let dependency = |name: &str, required, check| WatchedDependency {
        name: Arc::from(name),
        required,
        check,
    };
    let orders = ServiceHealth {
        name: ServiceName::new("shop", "orders").expect("valid"),
        version: Some(Arc::from("1.2.0")),
        port: 3002,
        degraded_status: 202,
        app: cell(),
        database: Some(WatchedDatabase {
            required: true,
            check: cell(),
        }),
        dependencies: vec![
            dependency("payments", false, cell()),
            dependency("users", true, cell()),
            dependency("billing", true, Arc::new(CheckCell::off(instant))),
        ],
        draining: AtomicBool::new(false),
    };
    let users = ServiceHealth {
        name: ServiceName::new("shop", "users").expect("valid"),
        version: None,
        port: 3001,
        degraded_status: 202,
        app: cell(),
        database: None,
        dependencies: Vec::new(),
        draining: AtomicBool::new(false),
    };
    Case {
        now: Moment {
            instant,
            wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        },
        orders,
        users,
    }
}

impl Case {
    fn all_up(&self) {
        let took = Duration::from_millis(7);
        for check in [&self.orders.app, &self.users.app] {
            check.record(true, took, self.now.instant);
        }
        let database = self.orders.database.as_ref().expect("there is one");
        database.check.record(true, took, self.now.instant);
        for dependency in &self.orders.dependencies {
            dependency.check.record(true, took, self.now.instant);
        }
    }

    fn dependency_down(&self, index: usize) {
        let check = &self.orders.dependencies[index].check;
        check.record(false, Duration::ZERO, self.now.instant);
    }
}

const FULL: View = View {
    scope: Scope::All,
    details: true,
    draining: false,
};

fn show(report: &Report) -> String {
    let body = String::from_utf8(report.json()).expect("text");
    format!("{} {body}", report.http_status)
}

#[test]
fn every_shape_of_the_report() {
    let case = case();
    let mut text = String::from("not checked: ");
    text += &show(&case.orders.report(FULL, case.now));
    case.all_up();
    text += &format!("healthy: {}", show(&case.orders.report(FULL, case.now)));
    let own = View {
        scope: Scope::Own,
        ..FULL
    };
    case.dependency_down(0);
    text += &format!("degraded: {}", show(&case.orders.report(FULL, case.now)));
    text += &format!("scope self: {}", show(&case.orders.report(own, case.now)));
    let restricted = View {
        details: false,
        ..FULL
    };
    text += &format!(
        "restricted: {}",
        show(&case.orders.report(restricted, case.now))
    );
    case.dependency_down(1);
    text += &format!("unhealthy: {}", show(&case.orders.report(FULL, case.now)));
    let draining = View {
        draining: true,
        ..FULL
    };
    text += &format!("draining: {}", show(&case.users.report(draining, case.now)));
    let later = Moment {
        instant: case.now.instant + INTERVAL * 4,
        ..case.now
    };
    assert_eq!(
        case.users.report(FULL, case.now).severity,
        Severity::Healthy
    );
    case.users.drain();
    assert_eq!(
        case.users.report(FULL, case.now).severity,
        Severity::Stopped
    );
    case.users.draining.store(false, Ordering::Relaxed);
    text += &format!("stale: {}", show(&case.users.report(FULL, later)));
    insta::assert_snapshot!(text);
}

#[test]
fn the_aggregate_counts_and_takes_the_worst() {
    let case = case();
    let both = || aggregate([&case.orders, &case.users], FULL, case.now);
    assert_eq!(both().http_status, 503);
    case.all_up();
    assert_eq!(both().http_status, 200);
    case.dependency_down(0);
    assert_eq!(both().http_status, 202);
    insta::assert_snapshot!(String::from_utf8(both().json()).expect("text"));
    case.dependency_down(1);
    assert_eq!(both().http_status, 503);
    assert_eq!(aggregate([], FULL, case.now).http_status, 503);
}

#[test]
fn details_are_for_the_neighbourhood() {
    for (details, peer, forwarded, expected) in [
        (HealthDetails::Auto, "127.0.0.1", false, true),
        (HealthDetails::Auto, "::ffff:10.0.0.1", false, true),
        (HealthDetails::Auto, "127.0.0.1", true, false),
        (HealthDetails::Auto, "203.0.113.9", false, false),
        (HealthDetails::Public, "203.0.113.9", true, true),
        (HealthDetails::Restricted, "127.0.0.1", false, false),
    ] {
        let peer = peer.parse().expect("address");
        assert_eq!(shows_details(details, peer, forwarded), expected, "{peer}");
    }
}
