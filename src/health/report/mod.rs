//! The bodies of `/health` and `/health/services` (SPEC §5).

mod aggregate;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

pub use aggregate::{Aggregate, aggregate};

use super::check::{CheckCell, CheckReading, CheckState};
use super::severity::{Severity, severity};
use crate::model::{
    HealthDetails, HealthSpec, ServiceName, ServiceSpec, is_private, rfc3339_string,
};

/// What is watched for one service. Kept by its part of the snapshot.
#[derive(Debug)]
pub struct ServiceHealth {
    pub name: ServiceName,
    pub version: Option<Arc<str>>,
    /// Public port; `None` where there never was a good version.
    pub port: Option<u16>,
    /// 200..=599.
    pub degraded_status: u16,
    pub app: Arc<CheckCell>,
    pub database: Option<WatchedDatabase>,
    pub dependencies: Vec<WatchedDependency>,
    /// There is a good version.
    configured: bool,
    draining: AtomicBool,
}

/// What the monitors of a service write into. Cells are kept across versions
/// for as long as the same thing is watched in the same way.
#[derive(Debug)]
pub struct Watched {
    pub app: Arc<CheckCell>,
    /// Where a service has a database: an input like the app's. Whoever looks
    /// after the database records into its cell; while nothing was recorded it
    /// counts as down.
    pub database: Option<WatchedDatabase>,
    pub dependencies: Vec<WatchedDependency>,
}

/// The database of a service.
#[derive(Debug, Clone)]
pub struct WatchedDatabase {
    pub required: bool,
    pub check: Arc<CheckCell>,
    pub reason: Arc<Reason>,
}

/// One word on why something is down; written by its monitor.
#[derive(Debug, Default)]
pub struct Reason(Mutex<Option<&'static str>>);

impl Reason {
    /// The word from now on; `None` while nothing is wrong.
    pub fn set(&self, reason: Option<&'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The word of the last look.
    pub fn read(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One dependency.
#[derive(Debug, Clone)]
pub struct WatchedDependency {
    /// As the service names it.
    pub name: Arc<str>,
    pub required: bool,
    pub check: Arc<CheckCell>,
}

/// The same moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For the age of results.
    pub instant: Instant,
    /// For the `timestamp`.
    pub wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// Whose state a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The service and what it depends on.
    All,
    /// The service without its dependencies (`?scope=self`): what other
    /// sidecars ask for, so that cycles cannot recurse.
    Own,
}

/// What a report shows.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub scope: Scope,
    /// Checks, version and dependencies, or only the status.
    pub details: bool,
    /// The process is draining; a service whose port goes away says so itself
    /// ([`ServiceHealth::drain`]).
    pub draining: bool,
}

/// A report: HTTP status and body.
#[derive(Debug, Clone)]
pub struct Report {
    pub severity: Severity,
    pub http_status: u16,
    body: ReportBody,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportBody {
    service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    status: &'static str,
    timestamp: String,
    /// Milliseconds the last probe of the app took.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Checks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Checks {
    http: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<bool>,
    /// Those that are not checked are left out.
    dependencies: BTreeMap<String, bool>,
}

impl Report {
    /// The body, `application/json`.
    pub fn json(&self) -> Vec<u8> {
        json(&self.body)
    }
}

impl ServiceHealth {
    /// The health of a good version.
    pub fn new(spec: &ServiceSpec, watched: Watched) -> Self {
        let Watched {
            app,
            database,
            dependencies,
        } = watched;
        Self {
            name: spec.name.clone(),
            version: spec.version.clone(),
            port: Some(spec.port),
            degraded_status: spec.health.degraded_status,
            app,
            database,
            dependencies,
            configured: true,
            draining: AtomicBool::new(false),
        }
    }

    /// Of a service that never had a good version: unhealthy.
    pub fn unconfigured(name: ServiceName) -> Self {
        Self {
            name,
            version: None,
            port: None,
            degraded_status: HealthSpec::default().degraded_status,
            app: Arc::new(CheckCell::new(Duration::MAX, Instant::now())),
            database: None,
            dependencies: Vec::new(),
            configured: false,
            draining: AtomicBool::new(false),
        }
    }

    /// The service is going away: `stopped` from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The state from the last results; nothing is asked.
    pub fn report(&self, view: View, now: Moment) -> Report {
        let found = self.found(view, now.instant);
        let others = found.database.into_iter().chain(
            found
                .dependencies
                .iter()
                .map(|(dependency, state)| (*state, dependency.required)),
        );
        let severity = severity(found.draining, found.app.state, others);
        let mut body = ReportBody {
            service: self.name.name().to_owned(),
            domain: None,
            port: None,
            status: severity.as_str(),
            timestamp: rfc3339_string(now.wall),
            response_time: None,
            version: None,
            checks: None,
            message: None,
        };
        if view.details {
            self.detail(&mut body, &found);
        }
        Report {
            severity,
            http_status: severity.http_status(self.degraded_status),
            body,
        }
    }

    fn found(&self, view: View, now: Instant) -> Found<'_> {
        let database = self.database.as_ref();
        Found {
            draining: view.draining || self.draining.load(Ordering::Relaxed),
            app: self.app.read(now),
            database: database.map(|database| (database.check.state(now), database.required)),
            reason: database.and_then(|database| database.reason.read()),
            dependencies: match view.scope {
                Scope::All => self
                    .dependencies
                    .iter()
                    .map(|dependency| (dependency, dependency.check.state(now)))
                    .collect(),
                Scope::Own => Vec::new(),
            },
        }
    }

    fn detail(&self, body: &mut ReportBody, found: &Found<'_>) {
        let Found {
            app,
            database,
            dependencies,
            ..
        } = found;
        let message = match self.configured {
            true => complaints(found),
            false => "there is no good configuration".to_owned(),
        };
        body.domain = Some(self.name.domain().to_owned());
        body.port = self.port;
        body.response_time = Some(u64::try_from(app.took.as_millis()).unwrap_or(u64::MAX));
        // A version that was not written is shown as unknown: the member
        // is part of the reference's shape.
        body.version = Some(self.version.as_deref().unwrap_or("unknown").to_owned());
        body.checks = Some(Checks {
            http: app.state.is_up(),
            database: database.map(|(state, _)| state.is_up()),
            dependencies: dependencies
                .iter()
                .filter(|(_, state)| *state != CheckState::Off)
                .map(|(dependency, state)| (dependency.name.as_ref().to_owned(), state.is_up()))
                .collect(),
        });
        body.message = Some(message).filter(|message| !message.is_empty());
    }

    /// Whether any monitor of this service's app has a result, or needs none.
    pub fn was_checked(&self, now: Instant) -> bool {
        self.app.state(now) != CheckState::Unknown
    }
}

/// The last results of everything a report is about.
struct Found<'a> {
    draining: bool,
    app: CheckReading,
    /// With whether it is required.
    database: Option<(CheckState, bool)>,
    /// Why it is down, in one word.
    reason: Option<&'static str>,
    dependencies: Vec<(&'a WatchedDependency, CheckState)>,
}

/// `the app is down; payments is stale`.
fn complaints(found: &Found<'_>) -> String {
    let mut list = Vec::new();
    if found.draining {
        list.push("draining".to_owned());
    }
    if let Some(complaint) = found.app.state.complaint() {
        list.push(format!("the app is {complaint}"));
    }
    if let Some(complaint) = found.database.and_then(|(state, _)| state.complaint()) {
        list.push(match found.reason {
            Some(reason) => format!("the database is {complaint} ({reason})"),
            None => format!("the database is {complaint}"),
        });
    }
    for (dependency, state) in &found.dependencies {
        if let Some(complaint) = state.complaint() {
            list.push(format!("{} is {complaint}", dependency.name));
        }
    }
    list.join("; ")
}

/// Whether a client may see details. `forwarded`: the request carries a
/// forwarding header, so its peer is a proxy and tells nothing of the client.
pub fn shows_details(details: HealthDetails, peer: IpAddr, forwarded: bool) -> bool {
    match details {
        HealthDetails::Public => true,
        HealthDetails::Restricted => false,
        HealthDetails::Auto => {
            let peer = peer.to_canonical();
            !forwarded && (peer.is_loopback() || is_private(peer))
        }
    }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec(body).expect("structs of text and numbers with string keys serialize");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests;
