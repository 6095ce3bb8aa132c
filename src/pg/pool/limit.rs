//! A fair limit that can be changed while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places that are given out in order of asking.
#[derive(Debug)]
pub(super) struct Limit {
    semaphore: Arc<Semaphore>,
    /// Places to be taken away as soon as they come back.
    debt: AtomicUsize,
    size: AtomicUsize,
    held: AtomicUsize,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    limit: Arc<Limit>,
}

impl Limit {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            semaphore: Arc::new(Semaphore::new(size)),
            debt: AtomicUsize::new(0),
            size: AtomicUsize::new(size),
            held: AtomicUsize::new(0),
        })
    }

    /// The next free place; first come, first served.
    pub(super) async fn acquire(self: &Arc<Self>) -> Place {
        let semaphore = Arc::clone(&self.semaphore);
        let permit = semaphore.acquire_owned().await;
        self.place(permit.expect("the semaphore is never closed"))
    }

    /// A place, if one is free and nobody waits.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned().ok()?;
        Some(self.place(permit))
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        self.held.fetch_add(1, Ordering::Relaxed);
        Place {
            permit: Some(permit),
            limit: Arc::clone(self),
        }
    }

    /// Places in use.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Places in all.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Another number of places. Places in use are taken away when they come
    /// back. Called by one task at a time.
    pub(super) fn resize(&self, size: usize) {
        let before = self.size.swap(size, Ordering::Relaxed);
        if size < before {
            let gone = self.semaphore.forget_permits(before - size);
            self.debt.fetch_add(before - size - gone, Ordering::Relaxed);
            return;
        }
        let mut more = size - before;
        while more > 0 && self.pay() {
            more -= 1;
        }
        self.semaphore.add_permits(more);
    }

    /// Takes one off the debt, if there is any.
    fn pay(&self) -> bool {
        let less = |debt: usize| debt.checked_sub(1);
        self.debt
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limit.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(permit) = self.permit.take()
            && self.limit.pay()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(limit: &Arc<Limit>) -> usize {
        limit.semaphore.available_permits()
    }

    #[tokio::test]
    async fn places_in_use_are_taken_away_when_they_come_back() {
        let limit = Limit::new(3);
        let first = limit.acquire().await;
        let second = limit.acquire().await;
        limit.resize(1);
        assert_eq!(free(&limit), 0);
        drop(first);
        assert_eq!(free(&limit), 0);
        drop(second);
        assert_eq!((free(&limit), limit.size()), (1, 1));
        let only = limit.try_acquire().expect("one is free");
        assert!(limit.try_acquire().is_none());
        limit.resize(0);
        limit.resize(2);
        assert_eq!(free(&limit), 1);
        drop(only);
        assert_eq!(free(&limit), 2);
    }
}
