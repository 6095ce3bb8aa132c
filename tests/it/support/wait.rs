//! Waiting for a condition, never for time to pass.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest wait for something that normally takes milliseconds; generous because
/// machines that run tests are slow and busy.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Lets other threads run for at most `time`.
pub(crate) fn pause(time: Duration) {
    thread::park_timeout(time);
}

/// Waits until `look` gives a value and returns it with the time it took.
/// Panics with `what` when `deadline` passed first.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> (T, Duration) {
    let started = Instant::now();
    loop {
        if let Some(value) = look() {
            return (value, started.elapsed());
        }
        assert!(
            started.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        pause(PAUSE);
    }
}

/// Waits until `condition` holds; gives the time it took.
#[track_caller]
pub(crate) fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    wait_for(what, deadline, || condition().then_some(())).1
}

/// Watches that `condition` holds for the whole of `time`.
#[track_caller]
pub(crate) fn holds_for(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(
            condition(),
            "did not hold after {:?}: {what}",
            started.elapsed()
        );
        pause(PAUSE);
    }
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by ordinary tests that start a daemon: they share the machine.
pub(crate) fn shared_machine() -> RwLockReadGuard<'static, ()> {
    MACHINE
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Held by tests that measure time: nothing else of this binary runs meanwhile.
pub(crate) fn whole_machine() -> RwLockWriteGuard<'static, ()> {
    MACHINE
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
