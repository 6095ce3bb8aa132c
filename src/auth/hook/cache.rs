//! Words remembered for a while, per worker and hook.

use std::sync::Mutex;
use std::time::Instant;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::auth::call::Call;
use crate::auth::named::PerWorker;
use crate::trace;
use crate::upstream::h1::RequestHead;

use super::Word;

/// Bytes of questions and answers per worker and hook.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Rough size of an answer and the cache's own bookkeeping.
const ENTRY_BYTES: u64 = 1024;

struct Entry {
    word: Word,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct ByLength;

impl Weighter<Box<[u8]>, Entry> for ByLength {
    fn weight(&self, key: &Box<[u8]>, entry: &Entry) -> u64 {
        let body = match &entry.word {
            Word::Denied(answer) => answer.body().len(),
            Word::Granted(_) | Word::Failed(_) => 0,
        };
        ENTRY_BYTES + (key.len() + body) as u64
    }
}

type AnswerCache = Cache<Box<[u8]>, Entry, ByLength>;

/// The caches of all workers. Each takes only its own lock, so none waits.
pub(super) struct Answers(PerWorker<Mutex<AnswerCache>>);

impl std::fmt::Debug for Answers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Answers(***)")
    }
}

impl Answers {
    pub(super) fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers, || {
            let items = usize::try_from(MAX_BYTES / (ENTRY_BYTES + 1024)).unwrap_or(1024);
            Mutex::new(Cache::with_weighter(items, MAX_BYTES, ByLength))
        }))
    }

    pub(super) fn get(&self, worker: usize, key: &[u8], now: Instant) -> Option<Word> {
        let mut cache = self.0.of(worker).try_lock().ok()?;
        match cache.get(key) {
            Some(entry) if now < entry.until => Some(entry.word.clone()),
            Some(_) => {
                cache.remove(key);
                None
            }
            None => None,
        }
    }

    pub(super) fn put(&self, worker: usize, key: Box<[u8]>, word: Word, until: Instant) {
        if let Ok(mut cache) = self.0.of(worker).try_lock() {
            cache.insert(key, Entry { word, until });
        }
    }
}

/// Everything the hook is sent, except trace headers: they differ on every
/// request and say nothing about the caller. Also whether the client would be
/// sent to sign in, which is part of the answer.
pub(super) fn key_of(head: &RequestHead, call: &Call<'_>) -> Box<[u8]> {
    let RequestHead {
        method,
        target,
        headers,
        // Trace headers are all there is.
        ours: _,
        framing: _,
        upgrade: _,
        http2: _,
    } = head;
    let mut key = Vec::with_capacity(512);
    key.push(u8::from(super::answer::is_navigation(call)));
    // Every part is preceded by its length, so no two questions share a key.
    let mut part = |bytes: &[u8]| {
        key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        key.extend_from_slice(bytes);
    };
    part(method.as_str().as_bytes());
    part(target.as_bytes());
    for (name, value) in headers {
        if !trace::CARRIERS.contains(name) {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
    }
    key.into()
}
