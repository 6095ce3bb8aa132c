//! Signs of life, for who sets the pace of the thread that pools live on.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What happens in the pools of a process, counted: sessions that are asked for
/// and sessions that are given back.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    crowd: Notify,
}

impl Pulse {
    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn crowded(&self) {
        self.crowd.notify_one();
    }

    /// How many there were.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Resolves when a pool is crowded.
    pub async fn crowd(&self) {
        self.crowd.notified().await;
    }
}

#[cfg(test)]
impl Pulse {
    /// Something happens.
    pub fn stir(&self, crowded: bool) {
        self.beat();
        if crowded {
            self.crowded();
        }
    }
}
