//! Tasks that are begun again when they panic.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::readiness::Liveness;

/// Pause after a panic; doubles with each one remembered.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Panics are remembered for this long.
const MEMORY: Duration = Duration::from_secs(60);
/// So many within [`MEMORY`] and the process counts as beyond help.
const TOO_MANY: usize = 3;
/// Panics remembered at most: a pause of half a minute.
const REMEMBERED: usize = 9;

/// Looks after tasks of the control runtime. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    metrics: Metrics,
    liveness: Liveness,
    first_pause: Duration,
    memory: Duration,
}

impl Supervisor {
    /// Counts panics in `metrics`; tells `liveness` when there are too many.
    pub fn new(metrics: Metrics, liveness: Liveness) -> Self {
        Self {
            metrics,
            liveness,
            first_pause: FIRST_PAUSE,
            memory: MEMORY,
        }
    }

    /// Runs a task until it returns, and begins it again with back-off whenever
    /// it panics. `start` must be able to go on from wherever it broke off.
    pub async fn keep<F>(self, task: &'static str, mut start: impl FnMut() -> F)
    where
        F: Future<Output = ()>,
    {
        let mut panics: VecDeque<Instant> = VecDeque::new();
        while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
            let now = Instant::now();
            panics.retain(|at| now.duration_since(*at) < self.memory);
            panics.push_back(now);
            self.metrics.task_panic(task);
            let count = panics.len();
            if count >= TOO_MANY {
                self.liveness
                    .fail(&format!("{task} panicked {count} times in a minute"));
            }
            if count > REMEMBERED {
                panics.pop_front();
            }
            let doublings = u32::try_from(panics.len() - 1).unwrap_or(0);
            let pause = self.first_pause * 2_u32.saturating_pow(doublings);
            tracing::error!(task, count, ?pause, "a task panicked and is begun again");
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Instant as StdInstant;

    use super::*;

    /// Runs a task that panics `times` times, each time after `apart`.
    async fn panics(times: u32, apart: Duration, memory: Duration) -> (Metrics, Liveness) {
        let metrics = Metrics::new(1);
        let liveness = Liveness::new(MEMORY, StdInstant::now());
        let mut supervisor = Supervisor::new(metrics.clone(), liveness.clone());
        supervisor.first_pause = Duration::from_millis(1);
        supervisor.memory = memory;
        let runs = Cell::new(0);
        let task = || {
            runs.set(runs.get() + 1);
            let run = runs.get();
            async move {
                tokio::time::sleep(apart).await;
                assert!(run > times, "on purpose");
            }
        };
        supervisor.keep("test", task).await;
        assert_eq!(runs.get(), times + 1);
        (metrics, liveness)
    }

    #[tokio::test]
    async fn two_panics_are_survived_and_three_in_a_minute_are_not() {
        let (metrics, liveness) = panics(2, Duration::ZERO, MEMORY).await;
        assert!(liveness.complaints(StdInstant::now()).is_empty());
        let line = "outrigger_task_panics_total{task=\"test\"} 2";
        assert!(metrics.encode().contains(line), "{}", metrics.encode());
        let (_, liveness) = panics(3, Duration::ZERO, MEMORY).await;
        let complaints = liveness.complaints(StdInstant::now());
        assert_eq!(&*complaints[0], "test panicked 3 times in a minute");
    }

    #[tokio::test]
    async fn rare_panics_are_forgotten() {
        let (apart, memory) = (Duration::from_millis(20), Duration::from_millis(10));
        let (_, liveness) = panics(6, apart, memory).await;
        assert!(liveness.complaints(StdInstant::now()).is_empty());
    }
}
