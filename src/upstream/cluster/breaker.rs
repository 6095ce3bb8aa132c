//! A circuit breaker: after failures in a row nothing is asked for a while,
//! then one request finds out.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::BreakerSpec;

/// `until_ms` of a breaker that is closed.
const CLOSED: u64 = 0;

/// Shared by all workers. While all is well a request costs it two loads.
/// Times are milliseconds on the clock of whoever holds it.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_to_open: u32,
    open_ms: u64,
    failures: AtomicU32,
    /// Good answers in a row whose bodies broke off.
    broken: AtomicU32,
    /// When the probe is due; [`CLOSED`] = closed.
    until_ms: AtomicU64,
    probing: AtomicBool,
}

/// What a breaker says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Go on.
    Closed,
    /// Go on: this is the one request that finds out.
    Probe,
    /// Do not ask.
    Open,
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    /// The time is over: the next request, or the one under way, decides.
    HalfOpen,
    Open,
}

impl Circuit {
    /// As printed by `/services`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

impl Breaker {
    pub(super) fn new(spec: &BreakerSpec) -> Self {
        Self {
            failures_to_open: spec.failures.max(1),
            open_ms: milliseconds(spec.open),
            failures: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            until_ms: AtomicU64::new(CLOSED),
            probing: AtomicBool::new(false),
        }
    }

    /// Whether a request may go. A [`Gate::Probe`] must end in
    /// [`Breaker::succeeded`], [`Breaker::failed`] or [`Breaker::abandoned`].
    pub(super) fn admit(&self, now_ms: impl FnOnce() -> u64) -> Gate {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        if until_ms == CLOSED {
            return Gate::Closed;
        }
        if now_ms() < until_ms || self.probing.swap(true, Ordering::AcqRel) {
            return Gate::Open;
        }
        Gate::Probe
    }

    /// An answer that speaks for the other side. Returns whether this closed
    /// the breaker. Only the probe closes it: an answer to what was asked before
    /// says nothing about now.
    pub(super) fn succeeded(&self, probe: bool) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if !probe {
            return false;
        }
        self.until_ms.store(CLOSED, Ordering::Release);
        self.probing.store(false, Ordering::Release);
        true
    }

    /// A failure. Returns whether this opened the breaker.
    pub(super) fn failed(&self, probe: bool, now_ms: u64) -> bool {
        let opens_ms = now_ms.saturating_add(self.open_ms).max(CLOSED + 1);
        if probe {
            self.until_ms.store(opens_ms, Ordering::Release);
            self.probing.store(false, Ordering::Release);
            return true;
        }
        self.counted(&self.failures, opens_ms)
    }

    /// A good answer came to its end.
    pub(super) fn completed(&self) {
        if self.broken.load(Ordering::Relaxed) != 0 {
            self.broken.store(0, Ordering::Relaxed);
        }
    }

    /// A good answer broke off in its body: its head said nothing of that.
    /// Returns whether this opened the breaker.
    pub(super) fn broke_off(&self, now_ms: u64) -> bool {
        let opens_ms = now_ms.saturating_add(self.open_ms).max(CLOSED + 1);
        self.counted(&self.broken, opens_ms)
    }

    fn counted(&self, failures: &AtomicU32, opens_ms: u64) -> bool {
        let failures = failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        failures >= self.failures_to_open
            && self
                .until_ms
                .compare_exchange(CLOSED, opens_ms, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// The probe ended without a verdict; the next request is another one.
    pub(super) fn abandoned(&self) {
        self.probing.store(false, Ordering::Release);
    }

    /// What failed has been dealt with in another way.
    pub(super) fn forget(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.broken.store(0, Ordering::Relaxed);
    }

    pub(super) fn circuit(&self, now_ms: u64) -> Circuit {
        match self.until_ms.load(Ordering::Acquire) {
            CLOSED => Circuit::Closed,
            until_ms if now_ms < until_ms => Circuit::Open,
            _ => Circuit::HalfOpen,
        }
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(&BreakerSpec {
            failures: 5,
            open: Duration::from_secs(60),
        })
    }

    #[test]
    fn opens_after_five_in_a_row_and_lets_one_probe_through() {
        let breaker = breaker();
        for _ in 0..4 {
            assert!(!breaker.failed(false, 0));
        }
        breaker.succeeded(false);
        for _ in 0..4 {
            assert!(!breaker.failed(false, 0));
        }
        assert!(breaker.failed(false, 0));
        assert!(!breaker.failed(false, 0), "it is open already");
        assert_eq!(breaker.admit(|| 59_999), Gate::Open);
        assert_eq!(breaker.circuit(60_000), Circuit::HalfOpen);
        assert_eq!(breaker.admit(|| 60_000), Gate::Probe);
        assert_eq!(breaker.admit(|| 60_000), Gate::Open);
        breaker.abandoned();
        assert_eq!(breaker.admit(|| 60_001), Gate::Probe);
        assert!(breaker.failed(true, 60_001));
        assert_eq!(breaker.admit(|| 120_000), Gate::Open);
        assert_eq!(breaker.admit(|| 120_001), Gate::Probe);
        assert!(breaker.succeeded(true));
        assert_eq!(breaker.admit(|| 120_001), Gate::Closed);
    }

    #[test]
    fn good_heads_do_not_hide_bodies_that_break_off() {
        let breaker = breaker();
        for _ in 0..4 {
            breaker.succeeded(false);
            assert!(!breaker.broke_off(0));
        }
        breaker.completed();
        for _ in 0..4 {
            breaker.succeeded(false);
            assert!(!breaker.broke_off(0));
        }
        breaker.succeeded(false);
        assert!(breaker.broke_off(0));
        assert_eq!(breaker.admit(|| 1), Gate::Open);
    }

    #[test]
    fn a_late_good_answer_does_not_close_it() {
        let breaker = breaker();
        for _ in 0..5 {
            breaker.failed(false, 0);
        }
        assert!(!breaker.succeeded(false));
        assert_eq!(breaker.admit(|| 1), Gate::Open);
    }
}
