//! Tokens verified before: one cache per authenticator instance and worker.
//!
//! A worker takes only its own lock, so it never waits; whoever finds it taken
//! (more workers than caches, which does not happen) does without.

use std::sync::{Arc, Mutex};

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::auth::named::PerWorker;

use super::claims::Verified;

/// Bytes of tokens and what was made of them, per worker and authenticator:
/// some 3 000 usual tokens, at least 400 of the longest.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Rough size of a [`Verified`] and the cache's own bookkeeping.
const ENTRY_BYTES: u64 = 768;

/// A verified token and the key set it was verified with.
#[derive(Debug, Clone)]
struct Entry {
    verified: Arc<Verified>,
    generation: u64,
}

#[derive(Debug, Clone, Copy)]
struct ByLength;

impl Weighter<Box<[u8]>, Entry> for ByLength {
    fn weight(&self, token: &Box<[u8]>, _entry: &Entry) -> u64 {
        ENTRY_BYTES + token.len() as u64
    }
}

type TokenCache = Cache<Box<[u8]>, Entry, ByLength>;

/// The caches of all workers.
pub(super) struct Tokens(PerWorker<Mutex<TokenCache>>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tokens(***)")
    }
}

impl Tokens {
    pub(super) fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers, || {
            let items = usize::try_from(MAX_BYTES / (ENTRY_BYTES + 512)).unwrap_or(1024);
            Mutex::new(Cache::with_weighter(items, MAX_BYTES, ByLength))
        }))
    }

    /// The token as verified with keys of this generation; the caller checks the
    /// time.
    pub(super) fn get(
        &self,
        worker: usize,
        token: &[u8],
        generation: u64,
    ) -> Option<Arc<Verified>> {
        let cache = self.0.of(worker).try_lock().ok()?;
        let entry = cache.get(token)?;
        (entry.generation == generation).then(|| Arc::clone(&entry.verified))
    }

    pub(super) fn put(
        &self,
        worker: usize,
        token: &[u8],
        verified: &Arc<Verified>,
        generation: u64,
    ) {
        if let Ok(mut cache) = self.0.of(worker).try_lock() {
            let entry = Entry {
                verified: Arc::clone(verified),
                generation,
            };
            cache.insert(Box::from(token), entry);
        }
    }

    pub(super) fn forget(&self, worker: usize, token: &[u8]) {
        if let Ok(mut cache) = self.0.of(worker).try_lock() {
            cache.remove(token);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self, worker: usize) -> usize {
        self.0.of(worker).try_lock().unwrap().len()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self, worker: usize) -> usize {
        let used = self.0.of(worker).try_lock().unwrap().memory_used();
        used.entries + used.map
    }
}
