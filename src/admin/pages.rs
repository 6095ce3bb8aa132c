//! Pages that only show something. All of them may be large, so they are made
//! on the blocking pool.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::House;
use super::route::{Answer, exposition};
use crate::drain::Phase;
use crate::health::{Scope, ServiceHealth, View};
use crate::model::{Kind, rfc3339_string};
use crate::pg::Database;
use crate::pg::pool::PoolStats;
use crate::snapshot::{Dependency, Service, ServiceStatus, Snapshot, Status, StatusProblem};
use crate::upstream::cluster::Circuit;

/// Runs `make` where it delays nobody. A panic in there is a 500.
async fn blocking<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, Kind> {
    tokio::task::spawn_blocking(make)
        .await
        .map_err(|_| Kind::Internal)
}

/// The Prometheus text format.
pub(super) async fn metrics(house: &Arc<House>) -> Result<Answer, Kind> {
    let metrics = house.metrics.clone();
    blocking(move || exposition(metrics.encode())).await
}

/// All local services at once, from the monitors' last results.
pub(super) async fn services_health(house: &Arc<House>) -> Result<Answer, Kind> {
    let snapshot = house.current.load();
    let view = View {
        scope: Scope::All,
        details: true,
        draining: house.drain.phase() > Phase::Serving,
    };
    blocking(move || {
        let aggregate = snapshot.health(view);
        Answer::json(aggregate.http_status, aggregate.json())
    })
    .await
}

/// The health of a service that has a good version.
pub(super) fn health_of(service: &Service) -> Option<&Arc<ServiceHealth>> {
    service.as_ready().map(|ready| &ready.health)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServicesBody<'a> {
    generation: u64,
    hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<String>,
    /// Process settings that changed and wait for a restart.
    restart_needed: &'a [&'static str],
    problems: Vec<ProblemBody<'a>>,
    services: Vec<ServiceBody<'a>>,
    peers: Vec<&'a str>,
}

#[derive(Serialize)]
struct ServiceBody<'a> {
    service: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    problems: Vec<ProblemBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dependencies: Vec<DependencyBody<'a>>,
    config: Vec<ConfigBody<'a>>,
}

/// A dependency and how calls to it stand.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DependencyBody<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    /// Of the breaker; absent where it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit: Option<&'static str>,
    /// Those known now; none while a name was never found.
    addresses: Vec<AddressBody>,
}

#[derive(Serialize)]
struct AddressBody {
    address: SocketAddr,
    state: &'static str,
}

fn dependencies(service: &Service) -> Vec<DependencyBody<'_>> {
    let all = service
        .as_ready()
        .into_iter()
        .flat_map(|ready| &ready.dependencies);
    let one = |dependency: &'_ Arc<Dependency>| {
        let standings = dependency.cluster.standings().into_iter();
        standings
            .map(|(address, standing)| AddressBody {
                address,
                state: standing.as_str(),
            })
            .collect()
    };
    all.map(|dependency| DependencyBody {
        name: &dependency.spec.name,
        local_port: dependency.spec.local_port,
        circuit: dependency.cluster.circuit().map(Circuit::as_str),
        addresses: one(dependency),
    })
    .collect()
}

/// One value, redacted by whoever wrote it down.
#[derive(Serialize)]
struct ConfigBody<'a> {
    key: &'a str,
    value: &'a str,
    origin: &'a str,
}

#[derive(Serialize)]
pub(super) struct ProblemBody<'a> {
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    origin: String,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> ProblemBody<'a> {
    pub(super) fn of(problem: &'a StatusProblem) -> Self {
        let StatusProblem {
            error,
            service,
            origin,
            message,
            hint,
        } = problem;
        Self {
            severity: if *error { "error" } else { "warning" },
            service: service.as_ref().map(crate::model::ServiceName::key),
            origin: origin.to_string(),
            message,
            hint: hint.as_deref(),
        }
    }
}

/// What is in force, where each value came from, and what is wrong.
pub(super) async fn services(house: &Arc<House>) -> Result<Answer, Kind> {
    let (status, snapshot) = (house.board.load(), house.current.load());
    blocking(move || Answer::json(200, services_json(&status, &snapshot))).await
}

fn services_json(status: &Status, snapshot: &Snapshot) -> Vec<u8> {
    let Status {
        generation,
        hash,
        last_success,
        services,
        peers,
        problems,
        restart_needed,
    } = status;
    let body = ServicesBody {
        generation: *generation,
        hash,
        last_success: last_success.map(rfc3339_string),
        restart_needed,
        problems: problems.iter().map(ProblemBody::of).collect(),
        services: services
            .iter()
            .map(|(name, status)| {
                let running = snapshot.services.get(name);
                service_body(name.key(), status, running.map(Arc::as_ref))
            })
            .collect(),
        peers: peers.iter().map(crate::model::ServiceName::key).collect(),
    };
    json(&body)
}

fn service_body<'a>(
    service: &'a str,
    status: &'a ServiceStatus,
    running: Option<&'a Service>,
) -> ServiceBody<'a> {
    let ServiceStatus {
        state,
        generation,
        port,
        address,
        problems,
        effective,
    } = status;
    ServiceBody {
        service,
        state: state.as_str(),
        generation: *generation,
        port: *port,
        address: *address,
        problems: problems.iter().map(ProblemBody::of).collect(),
        dependencies: running.map(dependencies).unwrap_or_default(),
        config: effective
            .iter()
            .map(|value| ConfigBody {
                key: &value.key,
                value: &value.value,
                origin: &value.origin,
            })
            .collect(),
    }
}

#[derive(Serialize)]
struct PoolsBody<'a> {
    services: Vec<PoolBody<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolBody<'a> {
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    /// Requests being served, over all workers.
    in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_limit: Option<u32>,
    /// Open client connections, over all workers.
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<DatabaseBody>,
}

/// The pool of a service's database.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseBody {
    total_connections: u32,
    idle_connections: u32,
    active_connections: u32,
    waiting_requests: u32,
    max: u32,
    /// Why it cannot be reached, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    /// Why its last settings are not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<String>,
}

impl DatabaseBody {
    fn of(database: &Database) -> Self {
        let PoolStats {
            total,
            idle,
            active,
            waiting,
            max,
        } = database.pool.stats();
        Self {
            total_connections: total,
            idle_connections: idle,
            active_connections: active,
            waiting_requests: waiting,
            max,
            failure: database.pool.failure().map(|failure| failure.reason()),
            obstacle: database.obstacle(),
        }
    }
}

/// How full everything is that has a limit.
pub(super) async fn pools(house: &Arc<House>) -> Result<Answer, Kind> {
    let (snapshot, databases) = (house.current.load(), house.databases.clone());
    blocking(move || {
        let services = snapshot.services.values().map(|service| {
            let database = databases.get(&service.name);
            let spec = service.as_ready().map(|ready| &ready.spec);
            PoolBody {
                service: service.name.key(),
                upstream: spec.map(|spec| spec.upstream.target.to_string()),
                in_flight: service.in_flight.held(),
                in_flight_limit: spec.map(|spec| spec.limits.in_flight),
                connections: service.connections.held(),
                connections_limit: spec.map(|spec| spec.limits.connections),
                database: database.map(|database| DatabaseBody::of(&database)),
            }
        });
        let body = PoolsBody {
            services: services.collect(),
        };
        Answer::json(200, json(&body))
    })
    .await
}

/// A page's body, with the end of line that a person at a shell is glad of.
pub(super) fn json(body: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(body).expect("structs of text and numbers serialize");
    bytes.push(b'\n');
    bytes
}
