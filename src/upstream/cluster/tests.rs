use std::collections::BTreeSet;

use super::*;
use crate::model::{BreakerSpec, HealthCheckSpec, ServiceName, UpstreamProtocol};
use crate::net::deadline::{Clock, Deadlines};
use crate::telemetry::metrics::Metrics;

fn cluster(ports: &[u16], breaker: bool) -> Arc<Cluster> {
    let name = ServiceName::new("shop", "orders").expect("valid");
    let service = Metrics::new(1).service(&name);
    let address = |port: &u16| Address {
        tls: false,
        host: Arc::from("127.0.0.1"),
        port: *port,
    };
    let spec = DependencySpec {
        name: Arc::from("payments"),
        service: None,
        addresses: ports.iter().map(address).collect(),
        local_port: None,
        required: false,
        health_check: HealthCheckSpec::Off,
        has_sidecar: false,
        protocol: UpstreamProtocol::Http1,
        timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        retries: 0,
        retry_delay: Duration::from_millis(1),
        breaker: breaker.then_some(BreakerSpec {
            failures: 5,
            open: Duration::from_secs(60),
        }),
        credential: None,
        tls: None,
    };
    let metrics = service.peer("payments");
    Arc::new(Cluster::new(name.shared_key(), &spec, metrics, &[]).expect("no TLS"))
}

fn lanes(cluster: &Arc<Cluster>) -> Lanes {
    let deadlines = Deadlines::new(Clock::start());
    Lanes::new(Arc::clone(cluster), Duration::from_secs(1), deadlines)
}

#[tokio::test]
async fn failures_in_a_row_eject_at_most_half() {
    let cluster = cluster(&[1, 2, 3], true);
    let lanes = lanes(&cluster);
    for _ in 0..200 {
        let mut admission = Admission::without_asking(&cluster);
        let mut pick = lanes.pick(None).await.expect("known");
        match pick.address().port() {
            3 => pick.succeeded(&mut admission),
            _ => pick.failed(&mut admission),
        }
        if cluster
            .standings()
            .iter()
            .any(|(_, standing)| *standing == Standing::Out)
        {
            break;
        }
    }
    let out = || {
        let standings = cluster.standings();
        standings
            .iter()
            .filter(|(_, one)| *one == Standing::Out)
            .count()
    };
    assert_eq!(out(), 1);
    for _ in 0..20 {
        let mut admission = Admission::without_asking(&cluster);
        let mut pick = lanes.pick(None).await.expect("known");
        pick.failed(&mut admission);
    }
    assert_eq!(out(), 1, "two of three would be more than half");
    assert_eq!(cluster.circuit(), Some(Circuit::Open));
}

#[tokio::test]
async fn a_single_address_is_never_ejected_and_opens_the_circuit() {
    let cluster = cluster(&[1], true);
    let lanes = lanes(&cluster);
    for _ in 0..5 {
        let mut admission = cluster.admit().expect("closed");
        lanes
            .pick(None)
            .await
            .expect("known")
            .failed(&mut admission);
    }
    assert_eq!(cluster.standings()[0].1, Standing::In);
    let refused = cluster.admit().expect_err("open");
    assert_eq!(refused.kind, Kind::CircuitOpen);
}

#[tokio::test]
async fn a_call_counts_once_however_often_it_is_tried() {
    let cluster = cluster(&[1], true);
    let lanes = lanes(&cluster);
    let try_thrice = async |last_is_good: bool| {
        let mut admission = cluster.admit().expect("closed");
        for attempt in 0..3 {
            let mut pick = lanes.pick(None).await.expect("known");
            match last_is_good && attempt == 2 {
                true => pick.succeeded(&mut admission),
                false => pick.failed(&mut admission),
            }
        }
    };
    for _ in 0..4 {
        try_thrice(false).await;
    }
    assert_eq!(cluster.circuit(), Some(Circuit::Closed));
    try_thrice(true).await;
    for _ in 0..4 {
        try_thrice(false).await;
    }
    assert_eq!(cluster.circuit(), Some(Circuit::Closed));
    try_thrice(false).await;
    assert_eq!(cluster.circuit(), Some(Circuit::Open));
}

#[tokio::test]
async fn bodies_that_break_off_count_until_one_does_not() {
    let cluster = cluster(&[1], true);
    let lanes = lanes(&cluster);
    for turn in 0..9 {
        let mut admission = cluster.admit().expect("closed");
        let mut pick = lanes.pick(None).await.expect("known");
        pick.succeeded(&mut admission);
        match turn {
            3 => pick.completed(),
            _ => pick.broke_off(),
        }
    }
    assert_eq!(cluster.circuit(), Some(Circuit::Open));
}

#[tokio::test]
async fn the_less_busy_address_is_taken_and_a_failed_one_avoided() {
    let cluster = cluster(&[1, 2], false);
    let lanes = lanes(&cluster);
    let held = lanes.pick(None).await.expect("known");
    for _ in 0..20 {
        let other = lanes.pick(None).await.expect("known");
        assert_ne!(other.address(), held.address());
        let avoided = lanes.pick(Some(other.address())).await.expect("known");
        assert_eq!(avoided.address(), held.address());
    }
}

#[tokio::test]
async fn addresses_that_stay_keep_their_standing() {
    let cluster = cluster(&[1], false);
    let lanes = lanes(&cluster);
    let before = Arc::clone(&cluster.endpoints.load()[0]);
    let socket = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    cluster.adopt(&[vec![socket(1), socket(2)]]);
    assert!(Arc::ptr_eq(&before, &cluster.endpoints.load()[0]));
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        seen.insert(lanes.pick(None).await.expect("known").address().port());
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}
