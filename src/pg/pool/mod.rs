//! One pool of sessions per service.
//!
//! [`ServicePool`] outlives changes of its settings: a change opens a new
//! generation (bb8 pools are immutable) while the limit stays the same object,
//! so that `max` holds meanwhile and nobody loses a place in the queue.
//!
//! The queue is ours and fair; bb8 only keeps idle sessions. A session comes
//! back only after it was reset and proved clean, else it is closed. While
//! somebody waits it is handed on instead, and reset in the same flight as the
//! next one's work, which the server reaches only if the reset succeeds.

mod checkout;
mod limit;
mod manager;
mod pulse;
mod restore;
mod standing;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore};

pub use checkout::{Checkout, CheckoutFailure};
pub use pulse::Pulse;

use super::backend::Target;
use super::failure::ConnectFailure;
use crate::model::ServiceName;
pub use crate::telemetry::metrics::PoolStats;
use crate::telemetry::metrics::{Metrics, PoolGauges, PoolMetrics};
use limit::Limit;
use manager::Manager;
use standing::Standing;

/// Sessions being opened at once, per pool: a server that comes back must not be
/// run over.
const CONNECTING: usize = 2;
/// So many sessions at work are a crowd.
const MANY: usize = 8;
/// Idle sessions are looked through this often.
const REAP: Duration = Duration::from_secs(5);

/// The pool of one service.
pub struct ServicePool {
    pub name: ServiceName,
    /// Work at once; the only queue.
    work: Arc<Limit<Checkout>>,
    /// Open sessions at once. The same number, but a session that is being
    /// closed still counts.
    open: Arc<Limit<Infallible>>,
    current: ArcSwapOption<Generation>,
    /// A session came back, or other settings are in force: whoever waits for
    /// leave to open one should look whether that is still needed.
    returned: Notify,
    standing: Standing,
    waiting: AtomicU32,
    /// Those whose turn it is and for whom there is no session yet.
    seeking: AtomicU32,
    /// It was said that the login may do anything.
    warned: AtomicBool,
    metrics: Arc<PoolMetrics>,
    pulse: Arc<Pulse>,
}

/// One set of settings.
pub(super) struct Generation {
    pool: bb8::Pool<Manager>,
    manager: Manager,
    connecting: Semaphore,
    timeout: Duration,
    /// The server runs on this machine.
    local: bool,
}

/// What a pool is made of.
pub struct Settings {
    pub target: Target,
    pub max: u32,
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
}

impl ServicePool {
    /// A pool without sessions or settings.
    pub fn new(name: ServiceName, metrics: &Metrics, pulse: &Arc<Pulse>) -> Arc<Self> {
        let pool = Arc::new(Self {
            work: Limit::new(0),
            open: Limit::new(0),
            current: ArcSwapOption::empty(),
            returned: Notify::new(),
            standing: Standing::new(),
            waiting: AtomicU32::new(0),
            seeking: AtomicU32::new(0),
            warned: AtomicBool::new(false),
            metrics: metrics.pool(&name),
            pulse: Arc::clone(pulse),
            name,
        });
        let gauges: Arc<dyn PoolGauges> = Arc::clone(&pool) as Arc<dyn PoolGauges>;
        pool.metrics.watch(&gauges);
        pool
    }

    /// Puts settings in force. Sessions of the settings before are closed as
    /// they come back, idle ones at once. Must be called on the SQL runtime:
    /// bb8 spawns where it is called.
    pub fn open(self: &Arc<Self>, settings: Settings) {
        let Settings {
            target,
            max,
            idle_timeout,
            max_lifetime,
        } = settings;
        let target = Arc::new(target);
        let manager = Manager {
            target: Arc::clone(&target),
            open: Arc::clone(&self.open),
            max_lifetime,
            retired: Arc::default(),
        };
        let pool = bb8::Pool::builder()
            // Never the limit: that is `work`.
            .max_size(max.saturating_add(8))
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(Some(idle_timeout))
            .reaper_rate(REAP.min(idle_timeout).max(Duration::from_millis(100)))
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .connection_timeout(target.timeout)
            .build_unchecked(manager.clone());
        let generation = Generation {
            pool,
            manager,
            connecting: Semaphore::new(CONNECTING),
            timeout: target.timeout,
            local: target.is_local(),
        };
        let size = usize::try_from(max).unwrap_or(usize::MAX);
        let before = self.current.swap(Some(Arc::new(generation)));
        self.work.resize(size);
        self.open.resize(size);
        if let Some(before) = before {
            before.retire();
        }
        self.standing.forget();
        self.returned.notify_waiters();
    }

    /// Closes what is idle, and the rest as it comes back.
    pub fn close(&self) {
        if let Some(generation) = self.current.swap(None) {
            generation.retire();
        }
        self.returned.notify_waiters();
    }

    /// Whether there are settings in force.
    pub fn is_open(&self) -> bool {
        self.current.load().is_some()
    }

    /// Resolves when every session was given back.
    pub async fn returned(&self) {
        while self.work.held() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether somebody waits for a session that is in use.
    pub fn is_wanted(&self) -> bool {
        self.work.is_wanted() && self.seeking.load(Ordering::Relaxed) == 0
    }

    /// Whether a server on this machine has more to do than it has CPUs, as far
    /// as can be told: many sessions are at work, and somebody waits for one.
    pub fn is_crowded(&self) -> bool {
        let current = self.current.load();
        current.as_ref().is_some_and(|open| open.local)
            && self.work.held() >= MANY
            && self.work.is_wanted()
    }

    /// Most sessions at once.
    pub fn max(&self) -> usize {
        self.work.size()
    }

    /// Why the last attempt to reach the server failed, if nothing good came
    /// since.
    pub fn failure(&self) -> Option<Arc<ConnectFailure>> {
        self.standing.failure()
    }

    /// A session broke or is silent: the monitor should look now.
    pub fn suspect(&self) {
        self.standing.suspect();
    }

    /// Resolves when somebody suspects something.
    pub async fn suspected(&self) {
        self.standing.suspected().await;
    }

    /// Resolves when the server is known to hold connections and say nothing.
    pub async fn silent(&self) -> Arc<ConnectFailure> {
        self.standing.silent().await
    }

    /// For a server to answer before it is suspected.
    pub fn patience(&self) -> Duration {
        let current = self.current.load();
        current.as_ref().map_or(Duration::ZERO, |open| open.timeout)
    }

    /// The server gave a good answer.
    pub fn good(&self) {
        self.standing.good(Instant::now());
    }

    /// When the server last gave a good answer.
    pub fn last_good(&self) -> Option<Instant> {
        self.standing.last_good()
    }

    /// How full it is.
    pub fn stats(&self) -> PoolStats {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let current = self.current.load();
        PoolStats {
            total: count(self.open.held()),
            idle: current.as_ref().map_or(0, |open| open.idle()),
            active: count(self.work.held()),
            waiting: self.waiting.load(Ordering::Relaxed),
            max: count(self.work.size()),
        }
    }
}

impl PoolGauges for ServicePool {
    fn read(&self) -> PoolStats {
        self.stats()
    }
}

impl Generation {
    fn idle(&self) -> u32 {
        self.pool.state().idle_connections
    }

    /// Closes idle sessions now; those that are out see the mark when they come
    /// back.
    fn retire(&self) {
        self.manager.retired.store(true, Ordering::Relaxed);
        while self.idle() > 0 {
            use futures_util::FutureExt as _;
            // There is one, so it is had at once; dropping it closes it.
            if self.pool.get().now_or_never().is_none() {
                break;
            }
        }
    }
}
