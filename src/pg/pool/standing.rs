//! Whether the database can be had, as far as is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::pg::failure::ConnectFailure;

/// First pause after a failed attempt; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The standing of one database. While it is bad, callers are told at once
/// instead of waiting in turn for the same failure.
#[derive(Debug)]
pub(super) struct Standing {
    inner: Mutex<Inner>,
    /// Announces that the server holds connections and says nothing.
    silence: watch::Sender<Option<Arc<ConnectFailure>>>,
    /// Somebody waits in vain: the monitor should look now.
    suspicion: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    failure: Option<Arc<ConnectFailure>>,
    retry_at: Option<Instant>,
    failures: u32,
    last_good: Option<Instant>,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            silence: watch::Sender::new(None),
            suspicion: Notify::new(),
        }
    }

    /// The last failure, while it is too early for another attempt.
    pub(super) fn barred(&self, now: Instant) -> Option<Arc<ConnectFailure>> {
        let inner = self.locked();
        let too_early = inner.retry_at.is_some_and(|at| now < at);
        inner.failure.clone().filter(|_| too_early)
    }

    /// The last failure, if nothing good came since.
    pub(super) fn failure(&self) -> Option<Arc<ConnectFailure>> {
        self.locked().failure.clone()
    }

    /// When the server last gave a good answer.
    pub(super) fn last_good(&self) -> Option<Instant> {
        self.locked().last_good
    }

    /// The server answered.
    pub(super) fn good(&self, now: Instant) {
        let mut inner = self.locked();
        inner.last_good = Some(now);
        if inner.failure.take().is_some() {
            inner.retry_at = None;
            inner.failures = 0;
            self.silence
                .send_if_modified(|known| known.take().is_some());
        }
    }

    /// There is no session to be had. `true` when that is news.
    pub(super) fn bad(&self, failure: &Arc<ConnectFailure>, now: Instant) -> bool {
        let mut inner = self.locked();
        let doublings = inner.failures.min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LAST_PAUSE);
        inner.failures += 1;
        inner.retry_at = Some(now + pause.mul_f64(0.5 + fastrand::f64() / 2.0));
        let news = inner.failure.as_ref() != Some(failure);
        inner.failure = Some(Arc::clone(failure));
        if failure.is_silence() {
            self.silence.send_replace(Some(Arc::clone(failure)));
        }
        news
    }

    /// The server may be another one from now on.
    pub(super) fn forget(&self) {
        *self.locked() = Inner::default();
        self.silence.send_replace(None);
        self.suspect();
    }

    /// Asks the monitor to look now.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Resolves when somebody asked for it.
    pub(super) async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Resolves when the server is known to say nothing.
    pub(super) async fn silent(&self) -> Arc<ConnectFailure> {
        let mut watching = self.silence.subscribe();
        loop {
            if let Some(failure) = watching.borrow_and_update().clone() {
                return failure;
            }
            if watching.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_standing_bars_until_the_pause_is_over() {
        let standing = Standing::new();
        let now = Instant::now();
        assert!(standing.barred(now).is_none());
        let failure = Arc::new(ConnectFailure::WrongPassword);
        assert!(standing.bad(&failure, now));
        assert_eq!(standing.barred(now), Some(Arc::clone(&failure)));
        assert!(standing.barred(now + FIRST_PAUSE).is_none());
        assert!(!standing.bad(&failure, now));
        for _ in 0..20 {
            standing.bad(&failure, now);
        }
        assert!(standing.barred(now + LAST_PAUSE).is_none());
        assert!(standing.barred(now + LAST_PAUSE / 3).is_some());
        standing.good(now);
        assert!(standing.barred(now).is_none() && standing.failure().is_none());
    }
}
