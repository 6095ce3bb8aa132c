//! Whether a hook decides at all, told when it changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::model::UpstreamTarget;

/// A hook that does well now and then does not fill the log.
const LINES_APART_MS: u64 = 1000;

/// How the last question ended, over all workers.
#[derive(Debug)]
pub(super) struct Standing {
    began: Instant,
    fails: AtomicBool,
    /// When the last line was written, in milliseconds since `began`; 0 = never.
    told_ms: AtomicU64,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            fails: AtomicBool::new(false),
            told_ms: AtomicU64::new(0),
        }
    }

    /// A question had an answer that decides.
    pub(super) fn decided(&self, target: &UpstreamTarget) {
        if self.fails.load(Ordering::Relaxed) && self.changes(false) {
            tracing::info!(hook = %target, "the hook decides again");
        }
    }

    /// A question had none; `error` says why.
    pub(super) fn failed(&self, target: &UpstreamTarget, error: &str, fail_open: bool) {
        if !self.fails.load(Ordering::Relaxed) && self.changes(true) {
            tracing::warn!(hook = %target, error, fail_open, "the hook does not decide");
        }
    }

    /// Whether this is a change to tell of.
    fn changes(&self, fails: bool) -> bool {
        let elapsed = self.began.elapsed().as_millis();
        let now_ms = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        let told_ms = self.told_ms.load(Ordering::Relaxed);
        if told_ms != 0 && now_ms.saturating_sub(told_ms) < LINES_APART_MS {
            return false;
        }
        let changed = self.fails.swap(fails, Ordering::Relaxed) != fails;
        if changed {
            self.told_ms.store(now_ms, Ordering::Relaxed);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_not_too_often() {
        let standing = Standing::new();
        assert!(!standing.changes(false), "it does well to begin with");
        assert!(standing.changes(true));
        assert!(!standing.changes(true));
        assert!(!standing.changes(false), "too soon");
        standing.told_ms.store(0, Ordering::Relaxed);
        assert!(standing.changes(false));
    }
}
