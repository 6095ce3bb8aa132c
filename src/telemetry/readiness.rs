//! What start-up still waits for, and whether everything still moves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Things that must be done before something is ready. Whoever does one holds
/// a [`Pending`]; dropping it says done. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeMap<Arc<str>, usize>>>,
}

/// Something not done yet.
#[derive(Debug)]
pub struct Pending {
    what: Arc<str>,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing is waited for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the token is dropped. `what` is shown to operators:
    /// `configuration of shop/users`.
    #[must_use = "dropping the token says that it is done"]
    pub fn wait_for(&self, what: &str) -> Pending {
        let what: Arc<str> = Arc::from(what);
        *locked(&self.pending).entry(Arc::clone(&what)).or_default() += 1;
        Pending {
            what,
            readiness: self.clone(),
        }
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        locked(&self.pending).is_empty()
    }

    /// What is pending, sorted.
    pub fn pending(&self) -> Vec<Arc<str>> {
        locked(&self.pending).keys().cloned().collect()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut pending = locked(&self.readiness.pending);
        if let Some(count) = pending.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.what);
            }
        }
    }
}

/// Whether workers and control still tick. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Liveness {
    inner: Arc<LivenessInner>,
}

#[derive(Debug)]
struct LivenessInner {
    began: Instant,
    patience: Duration,
    hearts: Mutex<Vec<(Arc<str>, Weak<AtomicU64>)>>,
    failure: Mutex<Option<Arc<str>>>,
}

/// The heart of one thread; beat it often. Dropping it ends the watch.
#[derive(Debug)]
pub struct Heartbeat {
    began: Instant,
    /// Milliseconds since `began`.
    last: Arc<AtomicU64>,
}

impl Liveness {
    /// A thread counts as stuck when it has not beaten for `patience`.
    pub fn new(patience: Duration, now: Instant) -> Self {
        Self {
            inner: Arc::new(LivenessInner {
                began: now,
                patience,
                hearts: Mutex::default(),
                failure: Mutex::default(),
            }),
        }
    }

    /// Begins to watch a thread.
    #[must_use = "dropping the heartbeat ends the watch"]
    pub fn watch(&self, who: &str, now: Instant) -> Heartbeat {
        let heart = Heartbeat {
            began: self.inner.began,
            last: Arc::default(),
        };
        heart.beat(now);
        let mut hearts = locked(&self.inner.hearts);
        hearts.retain(|(_, last)| last.strong_count() > 0);
        hearts.push((Arc::from(who), Arc::downgrade(&heart.last)));
        heart
    }

    /// The process cannot be saved: a control task panicked again and again.
    pub fn fail(&self, why: &str) {
        *locked(&self.inner.failure) = Some(Arc::from(why));
    }

    /// What is wrong; empty when all is alive.
    pub fn complaints(&self, now: Instant) -> Vec<Arc<str>> {
        let mut list: Vec<Arc<str>> = locked(&self.inner.failure).iter().cloned().collect();
        let age = now.saturating_duration_since(self.inner.began);
        for (who, last) in locked(&self.inner.hearts).iter() {
            let Some(last) = last.upgrade() else { continue };
            let last = Duration::from_millis(last.load(Ordering::Relaxed));
            if age.saturating_sub(last) > self.inner.patience {
                list.push(Arc::from(format!("{who} does not tick")));
            }
        }
        list
    }
}

impl Heartbeat {
    /// Still here.
    pub fn beat(&self, now: Instant) {
        let age = now.saturating_duration_since(self.began).as_millis();
        let age = u64::try_from(age).unwrap_or(u64::MAX);
        self.last.store(age, Ordering::Relaxed);
    }
}

/// Nobody panics while holding one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_token_is_dropped() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let first = readiness.wait_for("ports");
        let second = readiness.wait_for("ports");
        let other = readiness.clone().wait_for("configuration");
        drop(first);
        let pending: Vec<String> = readiness
            .pending()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(pending, ["configuration", "ports"]);
        drop((second, other));
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_thread_that_stops_beating_is_named() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let liveness = Liveness::new(5 * second, now);
        let worker = liveness.watch("worker 0", now);
        let control = liveness.watch("control", now);
        assert!(liveness.complaints(now + 5 * second).is_empty());
        worker.beat(now + 4 * second);
        let complaints = liveness.complaints(now + 6 * second);
        assert_eq!(complaints.len(), 1);
        assert_eq!(&*complaints[0], "control does not tick");
        drop(control);
        assert!(liveness.complaints(now + 6 * second).is_empty());
        liveness.fail("the control loop panicked 3 times");
        assert_eq!(liveness.complaints(now).len(), 1);
    }
}
