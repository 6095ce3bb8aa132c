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
        port: Some(3002),
        degraded_status: 202,
        app: cell(),
        database: Some(WatchedDatabase {
            required: true,
            check: cell(),
            reason: Arc::default(),
        }),
        dependencies: vec![
            dependency("payments", false, cell()),
            dependency("users", true, cell()),
            dependency("billing", true, Arc::new(CheckCell::off(instant))),
        ],
        configured: true,
        draining: AtomicBool::new(false),
    };
    let users = ServiceHealth {
        name: ServiceName::new("shop", "users").expect("valid"),
        version: None,
        port: Some(3001),
        degraded_status: 202,
        app: cell(),
        database: None,
        dependencies: Vec::new(),
        configured: true,
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

/// A service with an app, perhaps a database and perhaps one dependency, in
/// this state; `None` = there is none, else whether it is up and required.
fn combined(
    app: bool,
    database: Option<(bool, bool)>,
    dependency: Option<(bool, bool)>,
    now: Moment,
) -> ServiceHealth {
    let cell = |up| {
        let cell = CheckCell::new(INTERVAL, now.instant);
        cell.record(up, Duration::from_millis(7), now.instant);
        Arc::new(cell)
    };
    ServiceHealth {
        name: ServiceName::new("shop", "orders").expect("valid"),
        version: Some(Arc::from("1.2.0")),
        port: Some(3002),
        degraded_status: 202,
        app: cell(app),
        database: database.map(|(up, required)| WatchedDatabase {
            required,
            check: cell(up),
            reason: Arc::default(),
        }),
        dependencies: dependency
            .into_iter()
            .map(|(up, required)| WatchedDependency {
                name: Arc::from("payments"),
                required,
                check: cell(up),
            })
            .collect(),
        configured: true,
        draining: AtomicBool::new(false),
    }
}

/// Every combination, with the status and the members of the body in full: the
/// table is the contract.
#[test]
fn every_combination_has_its_status_and_shape() {
    let now = case().now;
    let all = [
        None,
        Some((true, true)),
        Some((false, true)),
        Some((true, false)),
        Some((false, false)),
    ];
    let word = |state: Option<(bool, bool)>| match state {
        None => "none".to_owned(),
        Some((up, required)) => {
            let up = if up { "up" } else { "down" };
            let required = if required { "required" } else { "optional" };
            format!("{up} {required}")
        }
    };
    let mut table = String::new();
    for draining in [false, true] {
        for app in [true, false] {
            for database in all {
                for dependency in all {
                    let health = combined(app, database, dependency, now);
                    let report = health.report(View { draining, ..FULL }, now);
                    assert_eq!(
                        report.severity,
                        expected(draining, app, database, dependency)
                    );
                    let mut body: serde_json::Value =
                        serde_json::from_slice(&report.json()).expect("json");
                    let body = body.as_object_mut().expect("an object");
                    assert_eq!(body.remove("service"), Some("orders".into()));
                    assert_eq!(body.remove("domain"), Some("shop".into()));
                    assert_eq!(body.remove("port"), Some(3002.into()));
                    assert_eq!(body.remove("version"), Some("1.2.0".into()));
                    assert_eq!(body.remove("responseTime"), Some(7.into()));
                    assert_eq!(
                        body.remove("timestamp"),
                        Some("2023-11-14T22:13:20.000Z".into())
                    );
                    table += &format!(
                        "{}app {}, database {}, dependency {}: {} {}\n",
                        if draining { "draining, " } else { "" },
                        if app { "up" } else { "down" },
                        word(database),
                        word(dependency),
                        report.http_status,
                        serde_json::Value::Object(body.clone()),
                    );
                }
            }
        }
    }
    insta::assert_snapshot!(table);
}

/// The rules of SPEC §5, read once more.
fn expected(
    draining: bool,
    app: bool,
    database: Option<(bool, bool)>,
    dependency: Option<(bool, bool)>,
) -> Severity {
    let missing = |part: Option<(bool, bool)>, required: bool| part == Some((false, required));
    if draining {
        return Severity::Stopped;
    }
    if !app || missing(database, true) || missing(dependency, true) {
        return Severity::Unhealthy;
    }
    if missing(database, false) || missing(dependency, false) {
        return Severity::Degraded;
    }
    Severity::Healthy
}

#[test]
fn a_service_without_a_good_version_is_unhealthy() {
    let case = case();
    case.all_up();
    let name = ServiceName::new("shop", "broken").expect("valid");
    let broken = ServiceHealth::unconfigured(name);
    let aggregate = aggregate([&case.users, &broken], FULL, case.now);
    assert_eq!(aggregate.http_status, 503);
    let body: serde_json::Value = serde_json::from_slice(&aggregate.json()).expect("json");
    assert_eq!(body["totalServices"], 2);
    assert_eq!(body["unhealthy"], 1);
    assert_eq!(
        body["services"][1]["message"],
        "there is no good configuration"
    );
}

#[test]
fn strangers_learn_no_more_than_the_status() {
    let case = case();
    let stranger = View {
        details: false,
        ..FULL
    };
    for report in [
        case.orders.report(stranger, case.now),
        ServiceHealth::unconfigured(case.orders.name.clone()).report(stranger, case.now),
    ] {
        let body: serde_json::Value = serde_json::from_slice(&report.json()).expect("json");
        let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["service", "status", "timestamp"]);
    }
}
