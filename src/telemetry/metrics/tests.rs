use std::time::Duration;

use http::Method;

use super::*;
use crate::model::Cause;

fn name(text: &str) -> ServiceName {
    ServiceName::new("shop", text).expect("valid")
}

/// The exposition without what differs from run to run.
fn stable(metrics: &Metrics) -> String {
    metrics
        .encode()
        .lines()
        .filter(|line| !line.contains("process_") && !line.contains("_build_info"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn everything_recorded_is_summed_over_the_workers() {
    let metrics = Metrics::new(2);
    let users = metrics.service(&name("users"));
    let payments = users.peer("shop/payments");
    for worker in 0..2 {
        let shard = users.shard(worker);
        let inbound = Direction::Inbound;
        shard.in_flight(inbound).inc();
        shard.request(
            inbound,
            &Method::GET,
            200,
            Duration::from_millis(2),
            Duration::from_micros(1_990),
        );
        shard.proxy_error(Cause::UpstreamClosed);
        shard.auth_decision("api-key", AuthResult::Allowed, "ok");
        shard.retry(RetryReason::DeadConnection);
        shard.parser_refused(Direction::Inbound, 431);
    }
    let shard = users.shard(7);
    shard.in_flight(Direction::Inbound).dec();
    shard.auth_decision("jwt", AuthResult::Denied, "expired");
    let outbound = Direction::Outbound(&payments);
    let brew = Method::from_bytes(b"BREW").expect("a token");
    let duration = Duration::from_secs(1);
    shard.request(outbound, &brew, 418, duration, duration);
    users.set_stale(true);
    let gauge = metrics.health("shop/users", HealthKind::App);
    gauge.set(true, Duration::from_secs(60));
    // Not shown: it has no result yet.
    let _silent = metrics.health("billing", HealthKind::Dependency);
    metrics.config_reload(ReloadResult::Applied);
    metrics.config_in_force(3, &Arc::from("abc"));
    metrics.config_success(UNIX_EPOCH + Duration::from_millis(1_700_000_000_250));
    metrics.config_generations_alive(2);
    metrics.services_compiled(4);
    metrics.services_built(1);
    metrics.task_panic("monitor");
    insta::assert_snapshot!(stable(&metrics));
    assert_eq!(users.inbound_in_flight(), 1);
}

#[test]
fn a_result_that_is_too_old_is_not_up() {
    let metrics = Metrics::new(1);
    let gauge = metrics.health("shop/users", HealthKind::App);
    let shown = |value: u8| {
        let line =
            format!("outrigger_health_status{{target=\"shop/users\",kind=\"app\"}} {value}\n");
        metrics.encode().contains(&line)
    };
    assert!(!shown(0) && !shown(1));
    gauge.set(true, Duration::MAX);
    assert!(shown(1));
    gauge.set(true, Duration::ZERO);
    let began = std::time::Instant::now();
    while !shown(0) {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_removed_service_disappears() {
    let metrics = Metrics::new(1);
    let users = metrics.service(&name("users"));
    let orders = metrics.service(&name("orders"));
    let peer = orders.peer("shop/users");
    assert!(metrics.encode().contains("service=\"shop/users\""));
    drop(users);
    assert!(!metrics.encode().contains("service=\"shop/users\""));
    assert!(metrics.encode().contains("peer=\"shop/users\""));
    drop(peer);
    assert!(!metrics.encode().contains("peer="));
}

#[test]
fn counters_survive_as_long_as_somebody_holds_the_service() {
    let metrics = Metrics::new(1);
    let before = metrics.service(&name("users"));
    before.shard(0).proxy_error(Cause::Dns);
    let after = metrics.service(&name("users"));
    drop(before);
    after.shard(0).proxy_error(Cause::Dns);
    assert!(
        metrics
            .encode()
            .contains("outrigger_proxy_errors_total{service=\"shop/users\",cause=\"dns\"} 2")
    );
}

#[test]
fn every_exposed_name_is_in_the_table() {
    let text = Metrics::new(1).encode();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(
            families::ALL.iter().any(|family| family.name == name),
            "{name}"
        );
    }
    assert!(text.contains("process_resident_memory_bytes "));
}

/// Not a benchmark, but a guard against an accidental lock or hash on the path:
/// a request's bookkeeping stays far below a microsecond even unoptimised.
#[test]
fn recording_is_cheap() {
    let metrics = Metrics::new(1);
    let service = metrics.service(&name("users"));
    let shard = service.shard(0);
    let began = std::time::Instant::now();
    let rounds = 100_000;
    for _ in 0..rounds {
        let total = Duration::from_micros(200);
        shard.in_flight(Direction::Inbound).inc();
        shard.request(Direction::Inbound, &Method::GET, 200, total, total);
        shard.auth_decision("api-key", AuthResult::Allowed, "ok");
        shard.in_flight(Direction::Inbound).dec();
    }
    let each = began.elapsed() / rounds;
    assert!(each < Duration::from_micros(5), "{each:?}");
}
