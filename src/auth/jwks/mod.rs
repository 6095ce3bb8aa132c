//! Key sets at a URL: what the data path sees of them.
//!
//! One task on the control runtime fetches; the data path only reads the keys
//! that are there, and may ask for a fetch when a token names a key it does not
//! know. Askers share one fetch, and there is at most one such fetch every 30 s
//! whatever comes in.

mod refresh;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::model::{JwksSource, JwtAlgorithm};
use crate::telemetry::metrics::ServiceMetrics;
use crate::telemetry::supervise::Supervisor;

use super::jwt::KeySet;

/// A key set that is fetched and refreshed.
#[derive(Debug)]
pub(super) struct RemoteKeySet {
    shared: Arc<Shared>,
    /// Dropping the key set ends its task.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// Between the data path and the task.
#[derive(Debug)]
struct Shared {
    source: JwksSource,
    algorithms: Vec<JwtAlgorithm>,
    timing: Timing,
    loaded: ArcSwapOption<Loaded>,
    /// Of what is loaded now; grows whenever keys change or are given up.
    generation: AtomicU64,
    asked: Mutex<Asked>,
    bell: Notify,
    done: watch::Sender<Done>,
}

/// Keys as fetched.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) set: KeySet,
    pub(super) generation: u64,
    /// SHA-256 of the document.
    digest: [u8; 32],
}

/// Fetches granted to askers.
#[derive(Debug, Default)]
struct Asked {
    last: Option<Instant>,
    granted: u64,
}

/// The last fetch that ended.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    /// Grants it covers.
    served: u64,
    good: bool,
}

/// What asking for a fetch led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refetch {
    /// The keys are newer than the question.
    Fresh,
    /// There was a good fetch less than the pause ago.
    TooSoon,
    /// The server could not be asked, or not in time.
    Failed,
}

/// Every duration that matters; tests use shorter ones.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// Between fetches that tokens with unknown keys cause.
    pause: Duration,
    /// What a request waits for a fetch it asked for.
    patience: Duration,
    /// One fetch, all of it.
    fetch: Duration,
    /// Lifetime of keys without `Cache-Control`, and its bounds.
    default_lifetime: Duration,
    min_lifetime: Duration,
    max_lifetime: Duration,
    /// First pause after a failed fetch; doubles.
    retry: Duration,
    /// Longest pause after failures, without and with keys.
    max_retry_empty: Duration,
    max_retry: Duration,
}

impl Default for Timing {
    /// The numbers of SPEC §3 JWT-4; what it leaves open is chosen so that a
    /// server that comes up is noticed within 5 s.
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(30),
            patience: Duration::from_secs(3),
            fetch: Duration::from_secs(10),
            default_lifetime: Duration::from_secs(600),
            min_lifetime: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(24 * 3600),
            retry: Duration::from_millis(500),
            max_retry_empty: Duration::from_secs(5),
            max_retry: Duration::from_secs(60),
        }
    }
}

impl RemoteKeySet {
    /// Without keys until [`RemoteKeySet::start`] has had success.
    pub(super) fn new(source: JwksSource, algorithms: &[JwtAlgorithm]) -> Self {
        Self::with_timing(source, algorithms, Timing::default())
    }

    fn with_timing(source: JwksSource, algorithms: &[JwtAlgorithm], timing: Timing) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                algorithms: algorithms.to_vec(),
                timing,
                loaded: ArcSwapOption::empty(),
                generation: AtomicU64::new(0),
                asked: Mutex::default(),
                bell: Notify::new(),
                done: watch::Sender::new(Done::default()),
            }),
            task: Mutex::new(None),
        }
    }

    /// Whether this is the key set of such a policy.
    pub(super) fn is_for(&self, source: &JwksSource, algorithms: &[JwtAlgorithm]) -> bool {
        self.shared.source == *source && self.shared.algorithms == algorithms
    }

    /// Begins fetching on `runtime`; does nothing if it was begun already.
    pub(super) fn start(
        &self,
        runtime: &Handle,
        metrics: &Arc<ServiceMetrics>,
        supervisor: &Supervisor,
    ) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let (shared, metrics) = (Arc::clone(&self.shared), Arc::clone(metrics));
            let refresh = move || refresh::run(Arc::clone(&shared), Arc::clone(&metrics));
            let kept = supervisor.clone().keep("key-set", refresh);
            *task = Some(AbortOnDropHandle::new(runtime.spawn(kept)));
        }
    }

    /// The keys, if there are any.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        self.shared.loaded.load_full()
    }

    /// Changes whenever a token verified before might not be good any more.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether keys were ever loaded and are still there.
    pub(super) fn is_ready(&self) -> bool {
        self.shared.loaded.load().is_some()
    }

    /// Asks for newer keys, and waits for them a little.
    pub(super) async fn refetch(&self) -> Refetch {
        let shared = &self.shared;
        let mut done = shared.done.subscribe();
        let granted = shared.ask();
        let state = *done.borrow_and_update();
        if state.served >= granted {
            return if state.good {
                Refetch::TooSoon
            } else {
                Refetch::Failed
            };
        }
        let answered = done.wait_for(|state| state.served >= granted);
        match tokio::time::timeout(shared.timing.patience, answered).await {
            Ok(Ok(state)) if state.good => Refetch::Fresh,
            Ok(Ok(_) | Err(_)) | Err(_) => Refetch::Failed,
        }
    }
}

impl Shared {
    /// Grants a fetch if the last was long enough ago; the number of the fetch
    /// to wait for.
    fn ask(&self) -> u64 {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked
            .last
            .is_none_or(|last| now.duration_since(last) >= self.timing.pause)
        {
            asked.last = Some(now);
            asked.granted += 1;
            self.bell.notify_one();
        }
        asked.granted
    }

    fn granted(&self) -> u64 {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.granted
    }

    /// Takes new keys into use, unless they are the ones in use.
    fn store(&self, set: KeySet, digest: [u8; 32]) {
        let is_same = |known: &Arc<Loaded>| known.digest == digest;
        if self.loaded.load().as_ref().is_some_and(is_same) {
            return;
        }
        let generation = self.generation.load(Ordering::Acquire) + 1;
        self.loaded.store(Some(Arc::new(Loaded {
            set,
            generation,
            digest,
        })));
        self.generation.store(generation, Ordering::Release);
    }

    /// Gives the keys up: they are too old to be believed.
    fn clear(&self) {
        self.loaded.store(None);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
