//! A flood of one kind of error becomes a summary (SPEC §9).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::model::Cause;

/// Lines per second and cause.
const PER_SECOND: u32 = 100;

/// Counts error lines per cause and second.
#[derive(Debug)]
pub(super) struct Limiter {
    began: Instant,
    windows: [Window; Cause::ALL.len()],
}

#[derive(Debug)]
struct Window {
    /// Seconds since `began`.
    second: AtomicU64,
    admitted: AtomicU32,
    suppressed: AtomicU64,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        const EMPTY: fn() -> Window = || Window {
            second: AtomicU64::new(0),
            admitted: AtomicU32::new(0),
            suppressed: AtomicU64::new(0),
        };
        Self {
            began: now,
            windows: std::array::from_fn(|_| EMPTY()),
        }
    }

    /// Whether a line of this cause may be written now. Threads that meet at
    /// the turn of a second may admit a few more.
    pub(super) fn admit(&self, cause: Cause, now: Instant) -> bool {
        let Some(window) = self.windows.get(cause as usize) else {
            return true;
        };
        let second = now.saturating_duration_since(self.began).as_secs();
        if window.second.swap(second, Ordering::Relaxed) != second {
            window.admitted.store(0, Ordering::Relaxed);
        }
        if window.admitted.load(Ordering::Relaxed) >= PER_SECOND {
            window.suppressed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        window.admitted.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Lines left out per cause since the last call.
    pub(super) fn take_suppressed(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL
            .iter()
            .zip(&self.windows)
            .map(|(cause, window)| (*cause, window.suppressed.swap(0, Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_per_cause_and_second() {
        let now = Instant::now();
        let limiter = Limiter::new(now);
        let admitted = |cause, now| (0..250).filter(|_| limiter.admit(cause, now)).count();
        assert_eq!(admitted(Cause::Dns, now), 100);
        assert_eq!(admitted(Cause::Overloaded, now), 100);
        assert_eq!(admitted(Cause::Dns, now + Duration::from_secs(1)), 100);
        let suppressed: Vec<_> = limiter.take_suppressed().collect();
        assert_eq!(suppressed, [(Cause::Dns, 300), (Cause::Overloaded, 150)]);
        assert_eq!(limiter.take_suppressed().count(), 0);
    }
}
