//! A shared ceiling on requests or connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts holders over all workers. The ceiling is passed at each acquisition,
/// so a reload that changes it needs no new counter.
#[derive(Debug, Clone, Default)]
pub struct Permits {
    held: Arc<AtomicU32>,
}

/// One place under the ceiling; given back on drop.
#[derive(Debug)]
pub struct Permit {
    held: Arc<AtomicU32>,
}

impl Permits {
    /// A place, unless `ceiling` are taken.
    pub fn try_acquire(&self, ceiling: u32) -> Option<Permit> {
        // Relaxed: the number guards nothing but itself.
        if self.held.fetch_add(1, Ordering::Relaxed) >= ceiling {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit {
            held: Arc::clone(&self.held),
        })
    }

    /// A place, however many are taken: where only the number matters.
    pub fn acquire(&self) -> Permit {
        self.held.fetch_add(1, Ordering::Relaxed);
        Permit {
            held: Arc::clone(&self.held),
        }
    }

    /// Places taken now.
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_holds_and_drops_give_back() {
        let permits = Permits::default();
        let first = permits.try_acquire(2).expect("one");
        let _second = permits.try_acquire(2).expect("two");
        assert!(permits.try_acquire(2).is_none());
        drop(first);
        assert!(permits.try_acquire(2).is_some());
        let _beyond = (permits.acquire(), permits.acquire());
        assert_eq!(permits.held(), 3);
    }
}
