//! What real requests say of a target, for whoever looks after it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::health;

/// Written by all workers, read by one monitor. While all is well a request
/// costs it one load.
#[derive(Debug, Default)]
pub struct Traffic {
    succeeded: AtomicBool,
    failed: AtomicBool,
    bell: Notify,
}

impl Traffic {
    /// An answer came.
    pub fn succeeded(&self) {
        if !self.succeeded.load(Ordering::Relaxed) {
            self.succeeded.store(true, Ordering::Relaxed);
        }
    }

    /// The target could not be reached or did not answer.
    pub fn failed(&self) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    /// Resolves once a request failed that was not heard of yet.
    pub(super) async fn fails(&self) {
        self.bell.notified().await;
    }

    /// What was said since the last time.
    pub(super) fn take(&self) -> health::Traffic {
        health::Traffic {
            succeeded: self.succeeded.swap(false, Ordering::Relaxed),
            failed: self.failed.swap(false, Ordering::Relaxed),
        }
    }
}
