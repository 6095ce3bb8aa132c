//! `/livez`, `/startupz`, `/readyz` (SPEC §5). A 503 names what is pending.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::House;
use super::route::Answer;
use crate::drain::Phase;
use crate::model::{Kind, ServiceName};
use crate::snapshot::{Service, Snapshot};

#[derive(Serialize)]
struct ProbeBody<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pending: &'a [String],
}

fn probe(pending: &[String]) -> Answer {
    let ok = pending.is_empty();
    let body = ProbeBody {
        status: if ok { "ok" } else { "pending" },
        pending,
    };
    let json = serde_json::to_vec(&body).expect("a struct of strings serializes");
    Answer::json(if ok { 200 } else { 503 }, json)
}

/// Workers and control tick.
pub(super) fn live(house: &House) -> Answer {
    probe(&texts(house.liveness.complaints(Instant::now())))
}

/// Configuration is good, ports and doors are bound; never the app or peers.
pub(super) fn started(house: &House) -> Answer {
    probe(&texts(house.startup.pending()))
}

/// Started and not draining; with one local service also its app.
pub(super) fn ready(house: &House) -> Answer {
    let snapshot = house.current.load();
    let mut pending = sidecar(house);
    let mut services = snapshot.services.values();
    if let (Some(only), None) = (services.next(), services.next()) {
        pending.extend(service_pending(house, only));
    }
    probe(&pending)
}

/// The sidecar and one service.
pub(super) fn ready_service(house: &House, name: &str) -> Result<Answer, Kind> {
    let snapshot = house.current.load();
    let service = find(&snapshot, name).ok_or(Kind::UnknownService)?;
    let mut pending = sidecar(house);
    pending.extend(service_pending(house, service));
    Ok(probe(&pending))
}

fn sidecar(house: &House) -> Vec<String> {
    let mut pending = texts(house.startup.pending());
    if house.drain.phase() > Phase::Serving {
        pending.push("draining".to_owned());
    }
    pending
}

/// What one service lacks: keys to check tokens with, or its app. A bad reload is none of it: the last good version
/// serves on.
fn service_pending(house: &House, service: &Service) -> Option<String> {
    let Some(health) = super::pages::health_of(service) else {
        return Some(format!("configuration of {}", service.name));
    };
    if service
        .as_ready()
        .is_some_and(|ready| !ready.auth.is_ready())
    {
        return Some(format!("the key set of {}", service.name));
    }
    let database = house.databases.get(&service.name);
    // While older settings serve on, this is no matter of readiness.
    let closed = database.filter(|database| !database.pool.is_open() && database.spec().required);
    if let Some(obstacle) = closed.and_then(|database| database.obstacle()) {
        return Some(format!("the database of {}: {obstacle}", service.name));
    }
    let complaint = health.app.state(Instant::now()).complaint()?;
    Some(format!("the app of {} is {complaint}", service.name))
}

/// A service by `domain/name`, or by a bare name that is unique.
pub(super) fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Service>> {
    if let Some((domain, bare)) = name.split_once('/') {
        let key = ServiceName::new(domain, bare).ok()?;
        return snapshot.services.get(&key);
    }
    let mut named = snapshot
        .services
        .values()
        .filter(|service| service.name.name() == name);
    match (named.next(), named.next()) {
        (Some(service), None) => Some(service),
        _ => None,
    }
}

fn texts(list: Vec<Arc<str>>) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
