//! One coarse clock and one set of deadlines per worker.
//!
//! A timer per request would cost a registration in the runtime's timer wheel
//! each time. Here a deadline is an atomic number that belongs to a connection
//! and is armed by one store; one task per worker sweeps them, at most 20 times
//! a second and not at all while nothing is armed. Resolution: [`TICK`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::sync::Notify;

use super::date::DateText;

/// Shortest pause between two sweeps, and so the resolution.
pub const TICK: Duration = Duration::from_millis(50);

/// A far deadline is looked at again after this long at the latest, so that
/// arming one almost never has to wake the sweeper.
const HORIZON_MS: u64 = 1_000;

/// More deadlines than this mean that memory is to be saved: connections have
/// two each.
const CROWD: usize = 1_024;

/// Times below this are counted from the real clock. A turn of the event loop
/// can take long (a busy or halted machine) and the clock is as old as the
/// turn: the difference would be taken from the time somebody was given.
const SHORT: Duration = Duration::from_secs(5);

const NEVER: u64 = u64::MAX;

/// Milliseconds since the worker started, refreshed once per turn of its event
/// loop (`on_thread_unpark`) rather than at each use.
#[derive(Debug, Clone)]
pub struct Clock {
    inner: Arc<ClockInner>,
}

#[derive(Debug)]
struct ClockInner {
    started: Instant,
    now_ms: AtomicU64,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self {
            inner: Arc::new(ClockInner {
                started: Instant::now(),
                now_ms: AtomicU64::new(0),
            }),
        }
    }

    /// Reads the real clock.
    pub fn refresh(&self) {
        let elapsed = self.inner.started.elapsed().as_millis();
        self.inner.now_ms.store(
            u64::try_from(elapsed).unwrap_or(NEVER - 1),
            Ordering::Relaxed,
        );
    }

    /// The time of this turn, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.inner.now_ms.load(Ordering::Relaxed)
    }
}

/// All deadlines of one worker.
#[derive(Debug, Clone)]
pub struct Deadlines {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// Locked by the worker's own thread only (adding, dropping, sweep), so
    /// never contended; a mutex because the handles must be `Send`.
    entries: Mutex<Slab<Arc<Entry>>>,
    next_sweep_ms: AtomicU64,
    /// Since it was seen; a sweep sees its end.
    crowded: AtomicBool,
    bell: Notify,
    /// Of the same clock.
    date: DateText,
}

#[derive(Debug)]
struct Entry {
    at_ms: AtomicU64,
    waker: AtomicWaker,
}

/// One deadline: armed, moved and disarmed any number of times.
#[derive(Debug)]
pub struct Deadline {
    entry: Arc<Entry>,
    key: usize,
    shared: Arc<Shared>,
}

impl Deadlines {
    /// An empty set on this clock; somebody must run [`Deadlines::sweep`].
    pub fn new(clock: Clock) -> Self {
        let shared = Shared {
            clock,
            entries: Mutex::new(Slab::new()),
            next_sweep_ms: AtomicU64::new(NEVER),
            crowded: AtomicBool::new(false),
            bell: Notify::new(),
            date: DateText::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The clock the deadlines are measured on.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// A new, disarmed deadline; forgotten when dropped.
    pub fn add(&self) -> Deadline {
        let entry = Arc::new(Entry {
            at_ms: AtomicU64::new(NEVER),
            waker: AtomicWaker::new(),
        });
        let mut entries = lock(&self.shared.entries);
        let key = entries.insert(Arc::clone(&entry));
        if entries.len() > CROWD {
            self.shared.crowded.store(true, Ordering::Relaxed);
        }
        drop(entries);
        Deadline {
            entry,
            key,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Wakes every task that waits on a deadline, so that it looks at what else
    /// has changed (a drain).
    pub fn wake_all(&self) {
        let entries = lock(&self.shared.entries);
        let waiting: Vec<Waker> = entries
            .iter()
            .filter_map(|(_, entry)| entry.waker.take())
            .collect();
        // Not under the lock, which whoever drops a deadline needs.
        drop(entries);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Wakes what has expired, for ever. Run once per worker.
    pub async fn sweep(&self) {
        loop {
            self.shared.clock.refresh();
            let now_ms = self.shared.clock.now_ms();
            let earliest_ms = self.wake_expired(now_ms);
            let next_ms = match earliest_ms {
                NEVER => NEVER,
                earliest_ms => earliest_ms.clamp(now_ms + tick_ms(), now_ms + HORIZON_MS),
            };
            self.shared.next_sweep_ms.store(next_ms, Ordering::Relaxed);
            if next_ms == NEVER {
                self.shared.bell.notified().await;
            } else {
                let pause = Duration::from_millis(next_ms - now_ms);
                // Rung only when something was armed for before the next sweep.
                let _ = tokio::time::timeout(pause, self.shared.bell.notified()).await;
            }
        }
    }

    /// Returns the earliest armed deadline that is left.
    fn wake_expired(&self, now_ms: u64) -> u64 {
        let mut earliest_ms = NEVER;
        let mut due = Vec::new();
        let entries = lock(&self.shared.entries);
        let crowded = entries.len() > CROWD;
        self.shared.crowded.store(crowded, Ordering::Relaxed);
        for (_, entry) in entries.iter() {
            let at_ms = entry.at_ms.load(Ordering::Relaxed);
            if at_ms <= now_ms {
                due.extend(entry.waker.take());
            } else {
                earliest_ms = earliest_ms.min(at_ms);
            }
        }
        // Not under the lock, which whoever drops a deadline needs.
        drop(entries);
        due.into_iter().for_each(Waker::wake);
        earliest_ms
    }
}

impl Deadline {
    /// A new one beside it, disarmed.
    pub fn another(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Deadlines { shared }.add()
    }

    /// The time of this turn, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// Appends the time of day, as `Date` has it.
    pub(super) fn append_date(&self, out: &mut Vec<u8>) {
        self.shared.date.append(self.now_ms(), out);
    }

    /// Whether this worker has so many connections that each should hold
    /// little.
    pub fn is_crowded(&self) -> bool {
        self.shared.crowded.load(Ordering::Relaxed)
    }

    /// When `after` from now is over, in milliseconds of the worker's clock.
    pub fn ends_ms(&self, after: Duration) -> u64 {
        if after < SHORT {
            self.shared.clock.refresh();
        }
        self.turn_ends_ms(after)
    }

    fn turn_ends_ms(&self, after: Duration) -> u64 {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(NEVER);
        self.now_ms().saturating_add(after_ms).min(NEVER - 1)
    }

    /// Expires `after` from now; replaces an earlier setting.
    pub fn arm(&self, after: Duration) {
        self.arm_at(self.ends_ms(after));
    }

    /// The same from the beginning of this turn, and cheaper: for what nobody
    /// is cut short by.
    pub fn arm_roughly(&self, after: Duration) {
        self.arm_at(self.turn_ends_ms(after));
    }

    fn arm_at(&self, at_ms: u64) {
        self.entry.at_ms.store(at_ms, Ordering::Relaxed);
        if at_ms < self.shared.next_sweep_ms.load(Ordering::Relaxed) {
            self.shared.next_sweep_ms.store(at_ms, Ordering::Relaxed);
            self.shared.bell.notify_one();
        }
    }

    /// Never expires until armed again.
    pub fn disarm(&self) {
        self.entry.at_ms.store(NEVER, Ordering::Relaxed);
    }

    /// Whether it is armed, expired or not.
    pub fn is_armed(&self) -> bool {
        self.entry.at_ms.load(Ordering::Relaxed) != NEVER
    }

    /// Ready once expired; the task is woken when it does.
    pub fn poll_expired(&self, context: &mut Context<'_>) -> Poll<()> {
        self.entry.waker.register(context.waker());
        if self.entry.at_ms.load(Ordering::Relaxed) <= self.shared.clock.now_ms() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// At once: what outlives its connection keeps the memory beside it in use.
impl Drop for Deadline {
    fn drop(&mut self) {
        lock(&self.shared.entries).try_remove(self.key);
    }
}

fn tick_ms() -> u64 {
    u64::try_from(TICK.as_millis()).unwrap_or(50)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(deadline: &Deadline) -> impl Future<Output = ()> {
        std::future::poll_fn(|context| deadline.poll_expired(context))
    }

    #[tokio::test]
    async fn expires_after_its_time_and_not_before() {
        let deadlines = Deadlines::new(Clock::start());
        let sweeper = deadlines.clone();
        let sweep = tokio::spawn(async move { sweeper.sweep().await });
        let far = deadlines.add();
        far.arm(Duration::from_secs(3600));
        let near = deadlines.add();
        let begun = Instant::now();
        near.arm(Duration::from_millis(120));
        tokio::time::timeout(Duration::from_secs(10), expired(&near))
            .await
            .expect("expires");
        assert!(
            begun.elapsed() >= Duration::from_millis(119),
            "{:?}",
            begun.elapsed()
        );
        near.disarm();
        let far_or_near = async {
            tokio::select! { () = expired(&near) => (), () = expired(&far) => () }
        };
        assert!(
            tokio::time::timeout(Duration::from_millis(200), far_or_near)
                .await
                .is_err()
        );
        drop((near, far));
        sweep.abort();
    }

    #[tokio::test]
    async fn a_long_turn_takes_nothing_from_a_short_time() {
        let deadlines = Deadlines::new(Clock::start());
        let sweeper = deadlines.clone();
        let sweep = tokio::spawn(async move { sweeper.sweep().await });
        // The sweeper has looked, and looks again only in a second.
        let far = deadlines.add();
        far.arm(Duration::from_secs(3600));
        tokio::task::yield_now().await;
        // A turn that takes longer than the time that is given at its end.
        let busy = Instant::now();
        while busy.elapsed() < Duration::from_millis(400) {
            std::hint::spin_loop();
        }
        let near = deadlines.add();
        let begun = Instant::now();
        near.arm(Duration::from_millis(300));
        expired(&near).await;
        assert!(
            begun.elapsed() >= Duration::from_millis(299),
            "{:?}",
            begun.elapsed()
        );
        sweep.abort();
    }

    #[tokio::test]
    async fn dropped_deadlines_are_forgotten() {
        let deadlines = Deadlines::new(Clock::start());
        let kept = deadlines.add();
        for _ in 0..100 {
            drop(deadlines.add());
        }
        kept.arm(Duration::from_secs(1));
        assert_eq!(lock(&deadlines.shared.entries).len(), 1);
    }
}
