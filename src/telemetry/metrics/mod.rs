//! The metrics of the process (SPEC §10).
//!
//! [`Metrics`] is the registry. A service records through [`ServiceMetrics`];
//! each worker keeps a [`ServiceShard`], its own padded cells. Nothing on the
//! data path takes a lock or looks a label up by string; sums are made when
//! somebody scrapes, on the blocking pool.

mod auth;
mod cells;
mod collect;
mod families;
mod migrations;
mod pool;
mod process;
mod service;
mod tls;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{Registry, TextEncoder};

pub use auth::AuthResult;
pub use cells::RetryReason;
pub use families::markdown;
pub use migrations::MigrationMetrics;
pub use pool::{PoolGauges, PoolMetrics, PoolStats};
pub use prometheus::TEXT_FORMAT;
pub use service::{Direction, InFlight, PeerMetrics, ServiceMetrics, ServiceShard};
pub use tls::Handshake;

use crate::model::ServiceName;

/// All metrics of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
    registry: Registry,
}

/// What became of a change of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// Published and in force.
    Applied,
    /// Refused: the last good version stays.
    Refused,
    /// Valid, but preparing or publishing failed.
    Failed,
}

/// Labels of [`ReloadResult`], in its order.
const RELOAD_RESULTS: [&str; 3] = ["applied", "refused", "failed"];

/// What a monitor watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthKind {
    App,
    Database,
    Dependency,
}

impl HealthKind {
    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Database => "database",
            Self::Dependency => "dependency",
        }
    }
}

/// Last result of one monitor; kept by the monitor, gone with it.
#[derive(Debug)]
pub struct HealthGauge {
    target: Arc<str>,
    kind: HealthKind,
    made: Instant,
    up: AtomicBool,
    /// When the result no longer counts, in milliseconds after `made`; 0 =
    /// there is none yet.
    until_ms: AtomicU64,
}

impl HealthGauge {
    /// Whether the target is up, and for how long that counts: a monitor that
    /// is stuck leaves no 1 behind.
    pub fn set(&self, up: bool, counts_for: Duration) {
        let until = self.made.elapsed().saturating_add(counts_for);
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.up.store(up, Ordering::Relaxed);
        self.until_ms.store(until_ms.max(1), Ordering::Relaxed);
    }

    /// As shown: `None` before the first result.
    fn is_up(&self) -> Option<bool> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        let fresh = self.made.elapsed().as_millis() <= u128::from(until_ms);
        (until_ms != 0).then(|| fresh && self.up.load(Ordering::Relaxed))
    }
}

/// By target and kind; dead ones are dropped when a new one is made.
type HealthGauges = BTreeMap<(Arc<str>, HealthKind), Weak<HealthGauge>>;

struct Inner {
    shards: usize,
    tables: Arc<service::Tables>,
    services: Mutex<BTreeMap<ServiceName, Weak<ServiceMetrics>>>,
    health: Mutex<HealthGauges>,
    pools: Mutex<BTreeMap<ServiceName, Weak<PoolMetrics>>>,
    migrations: Mutex<BTreeMap<ServiceName, Weak<MigrationMetrics>>>,
    panics: Mutex<BTreeMap<&'static str, u64>>,
    hash: Mutex<Option<Arc<str>>>,
    reloads: [AtomicU64; RELOAD_RESULTS.len()],
    generation: AtomicU64,
    generations_alive: AtomicU64,
    last_success_ms: AtomicU64,
    compiled: AtomicU64,
    built: AtomicU64,
    lines_dropped: Arc<AtomicU64>,
    spans_dropped: Arc<AtomicU64>,
}

impl Inner {
    /// The services somebody still holds, sorted by name.
    fn services(&self) -> Vec<Arc<ServiceMetrics>> {
        locked(&self.services)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Of databases that somebody still looks after, sorted by name.
    fn migrations(&self) -> Vec<Arc<MigrationMetrics>> {
        locked(&self.migrations)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The pools somebody still holds, sorted by name.
    fn pools(&self) -> Vec<Arc<PoolMetrics>> {
        locked(&self.pools)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl Metrics {
    /// A registry with `shards` sets of cells per service: one per worker, and
    /// at least one.
    pub fn new(shards: usize) -> Self {
        let inner = Arc::new(Inner {
            shards: shards.max(1),
            tables: Arc::new(service::Tables {
                codes: cells::Codes::new(),
                auth: auth::AuthKeys::new(),
            }),
            services: Mutex::default(),
            health: Mutex::default(),
            pools: Mutex::default(),
            migrations: Mutex::default(),
            panics: Mutex::default(),
            hash: Mutex::default(),
            reloads: [const { AtomicU64::new(0) }; RELOAD_RESULTS.len()],
            generation: AtomicU64::new(0),
            generations_alive: AtomicU64::new(0),
            last_success_ms: AtomicU64::new(0),
            compiled: AtomicU64::new(0),
            built: AtomicU64::new(0),
            lines_dropped: Arc::new(AtomicU64::new(0)),
            spans_dropped: Arc::new(AtomicU64::new(0)),
        });
        let registry = Registry::new();
        collect::AllMetrics::new(Arc::clone(&inner))
            .and_then(|collector| registry.register(Box::new(collector)))
            .expect("the table of families is valid and registered once");
        Self { inner, registry }
    }

    /// The cells of a service: the same ones as long as anybody holds them, so
    /// that counters survive a reload.
    pub fn service(&self, name: &ServiceName) -> Arc<ServiceMetrics> {
        let mut services = locked(&self.inner.services);
        if let Some(known) = services.get(name).and_then(Weak::upgrade) {
            return known;
        }
        services.retain(|_, handle| handle.strong_count() > 0);
        let inner = &self.inner;
        let made = Arc::new(ServiceMetrics::new(name, &inner.tables, inner.shards));
        services.insert(name.clone(), Arc::downgrade(&made));
        made
    }

    /// The gauge of a monitor: `target` is a service key or a dependency's
    /// name. Two monitors of one target share it.
    pub fn health(&self, target: &str, kind: HealthKind) -> Arc<HealthGauge> {
        let mut gauges = locked(&self.inner.health);
        let target: Arc<str> = Arc::from(target);
        let key = (Arc::clone(&target), kind);
        if let Some(known) = gauges.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        gauges.retain(|_, handle| handle.strong_count() > 0);
        let made = Arc::new(HealthGauge {
            target,
            kind,
            made: Instant::now(),
            up: AtomicBool::new(false),
            until_ms: AtomicU64::new(0),
        });
        gauges.insert(key, Arc::downgrade(&made));
        made
    }

    /// The counters of a service's migrations: the same ones as long as anybody
    /// holds them.
    pub fn migrations(&self, name: &ServiceName) -> Arc<MigrationMetrics> {
        let mut known = locked(&self.inner.migrations);
        if let Some(known) = known.get(name).and_then(Weak::upgrade) {
            return known;
        }
        known.retain(|_, handle| handle.strong_count() > 0);
        let made = Arc::new(MigrationMetrics::new(name.clone()));
        known.insert(name.clone(), Arc::downgrade(&made));
        made
    }

    /// The counters of a service's database pool: the same ones as long as
    /// anybody holds them.
    pub fn pool(&self, name: &ServiceName) -> Arc<PoolMetrics> {
        let mut pools = locked(&self.inner.pools);
        if let Some(known) = pools.get(name).and_then(Weak::upgrade) {
            return known;
        }
        pools.retain(|_, handle| handle.strong_count() > 0);
        let made = Arc::new(PoolMetrics::new(name.clone()));
        pools.insert(name.clone(), Arc::downgrade(&made));
        made
    }

    /// A change of configuration ended.
    pub fn config_reload(&self, result: ReloadResult) {
        if let Some(cell) = self.inner.reloads.get(result as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All workers run `generation`, whose configuration has this digest.
    pub fn config_in_force(&self, generation: u64, hash: &Arc<str>) {
        self.inner.generation.store(generation, Ordering::Relaxed);
        *locked(&self.inner.hash) = Some(Arc::clone(hash));
    }

    /// The last time everything that changed was applied without a problem.
    pub fn config_success(&self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.inner
            .last_success_ms
            .store(milliseconds, Ordering::Relaxed);
    }

    /// Snapshots not yet freed.
    pub fn config_generations_alive(&self, count: u64) {
        self.inner.generations_alive.store(count, Ordering::Relaxed);
    }

    /// Service files compiled this turn, not reused.
    pub fn services_compiled(&self, count: u64) {
        self.inner.compiled.fetch_add(count, Ordering::Relaxed);
    }

    /// Services made ready this turn, not reused.
    pub fn services_built(&self, count: u64) {
        self.inner.built.fetch_add(count, Ordering::Relaxed);
    }

    /// A panic of `task` was caught.
    pub fn task_panic(&self, task: &'static str) {
        let mut panics = locked(&self.inner.panics);
        let count = panics.entry(task).or_default();
        *count = count.saturating_add(1);
    }

    /// Where the log counts the lines it lost.
    pub fn lines_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.lines_dropped)
    }

    /// Where spans are counted that no collector got.
    pub fn spans_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.spans_dropped)
    }

    /// The text exposition, served with content type [`TEXT_FORMAT`]. Takes
    /// milliseconds with many services: never on a worker.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        text
    }
}

/// No code panics while holding one of these locks; if it did, the numbers
/// would still be good.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
