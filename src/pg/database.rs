//! The databases of local services, as everybody who asks about them sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::backend::{Target, load_tls};
use super::failure::ConnectFailure;
use super::names::{application_name, search_path};
use super::pool::{Pulse, ServicePool, Settings};
use super::{AppliedMigration, Login, Progress};
use crate::model::{DatabaseSpec, ServiceName};
use crate::telemetry::metrics::Metrics;

/// How often a database is looked at while nobody uses it.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The interval of the monitor, for those who judge the age of its results: a
/// probe may take as long as connecting may.
pub fn check_interval(spec: &DatabaseSpec) -> Duration {
    CHECK_INTERVAL.max(spec.connection_timeout)
}

/// One service's database. Kept across reloads.
pub struct Database {
    pub pool: Arc<ServicePool>,
    /// What is being done before the pool opens.
    pub progress: Progress,
    spec: ArcSwap<DatabaseSpec>,
    applied: ArcSwap<Vec<AppliedMigration>>,
    obstacle: Mutex<Option<String>>,
}

impl Database {
    /// One that nothing was done to yet.
    pub fn new(
        name: ServiceName,
        spec: Arc<DatabaseSpec>,
        metrics: &Metrics,
        pulse: &Arc<Pulse>,
    ) -> Self {
        Self {
            pool: ServicePool::new(name, metrics, pulse),
            progress: Progress::default(),
            spec: ArcSwap::new(spec),
            applied: ArcSwap::default(),
            obstacle: Mutex::default(),
        }
    }

    /// As published last.
    pub fn spec(&self) -> Arc<DatabaseSpec> {
        self.spec.load_full()
    }

    /// Another version was published.
    pub fn set_spec(&self, spec: Arc<DatabaseSpec>) {
        self.spec.store(spec);
    }

    /// Migrations the database has, in order.
    pub fn applied(&self) -> Arc<Vec<AppliedMigration>> {
        self.applied.load_full()
    }

    /// The database has these migrations.
    pub fn set_applied(&self, applied: Vec<AppliedMigration>) {
        self.applied.store(Arc::new(applied));
    }

    /// Why the last version is not in force, for operators: a migration that
    /// failed, a role that may not log in.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle_now().clone()
    }

    /// What [`Self::obstacle`] says from now on. `true` when that is news.
    pub fn set_obstacle(&self, obstacle: Option<String>) -> bool {
        let mut now = self.obstacle_now();
        let news = *now != obstacle;
        *now = obstacle;
        news
    }

    /// One word on why it cannot be used.
    pub fn reason(&self) -> &'static str {
        match self.pool.failure() {
            Some(failure) => failure.reason(),
            None => "not_ready",
        }
    }

    fn obstacle_now(&self) -> MutexGuard<'_, Option<String>> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them. Cheap to clone; every clone shows the same.
#[derive(Clone, Default)]
pub struct Databases {
    known: Arc<Mutex<BTreeMap<ServiceName, Arc<Database>>>>,
    pulse: Arc<Pulse>,
}

impl Databases {
    /// The database of a service, if it has one.
    pub fn get(&self, name: &ServiceName) -> Option<Arc<Database>> {
        self.locked().get(name).cloned()
    }

    /// All, in order of name.
    pub fn list(&self) -> Vec<Arc<Database>> {
        self.locked().values().cloned().collect()
    }

    /// The one there is, unless there are several.
    pub fn only(&self) -> Option<Arc<Database>> {
        let known = self.locked();
        let mut all = known.values();
        match (all.next(), all.next()) {
            (Some(only), None) => Some(Arc::clone(only)),
            _ => None,
        }
    }

    /// What happens in their pools.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Whether any of their pools is crowded.
    pub fn are_crowded(&self) -> bool {
        self.locked().values().any(|one| one.pool.is_crowded())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.locked().len()
    }

    /// Found, or made.
    pub fn ensure(
        &self,
        name: &ServiceName,
        spec: &Arc<DatabaseSpec>,
        metrics: &Metrics,
    ) -> Arc<Database> {
        let mut known = self.locked();
        let made = || Database::new(name.clone(), Arc::clone(spec), metrics, &self.pulse);
        let entry = known.entry(name.clone());
        Arc::clone(entry.or_insert_with(|| Arc::new(made())))
    }

    /// The service has none any more.
    pub fn remove(&self, name: &ServiceName) -> Option<Arc<Database>> {
        self.locked().remove(name)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Arc<Database>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the pool of a service is made of. Reads certificate files, so it blocks.
///
/// # Errors
/// TLS that cannot be set up.
pub fn pool_settings(
    service: &ServiceName,
    spec: &DatabaseSpec,
    login: Login,
) -> Result<Settings, ConnectFailure> {
    let tls = load_tls(&spec.tls, &spec.host)
        .map_err(|error| ConnectFailure::TlsSettings(error.to_string()))?;
    let millis = |time: Duration| time.as_millis().to_string();
    let mut settings = vec![
        ("application_name", application_name(service)),
        ("search_path", search_path(spec)),
        ("statement_timeout", millis(spec.statement_timeout)),
        (
            "idle_in_transaction_session_timeout",
            millis(spec.idle_in_transaction_timeout),
        ),
    ];
    if let Some(lock_timeout) = spec.lock_timeout {
        settings.push(("lock_timeout", millis(lock_timeout)));
    }
    Ok(Settings {
        target: Target {
            host: Arc::clone(&spec.host),
            port: spec.port,
            database: Arc::clone(&spec.database),
            login,
            settings,
            tls,
            timeout: spec.connection_timeout,
            reset: spec.reset,
        },
        max: spec.max,
        idle_timeout: spec.idle_timeout,
        max_lifetime: spec.max_lifetime,
    })
}
