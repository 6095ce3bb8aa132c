//! Looks after one target: asks it how it is, again and again.
//!
//! Runs on the control runtime; what it finds goes into a [`CheckCell`] that
//! `/health` and the probes read. It never stops traffic.
//!
//! What is asked is a [`Question`]: [`AppQuestion`] and [`DependencyQuestion`]
//! here. Another kind of target (a database) plugs in by an implementation of
//! its own, handed to [`start`] with the cell that its service's health shows.

mod probe;
mod question;
#[cfg(test)]
mod tests;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::health::{Change, CheckCell, Verdict};
use crate::model::ProbeSpec;
use crate::telemetry::metrics::HealthGauge;
use crate::telemetry::supervise::Supervisor;

pub use probe::ProbeError;
pub use question::{AppQuestion, Asking, DependencyQuestion, Question};

/// After a failure the target is asked this often, so that an outage and its
/// end are seen soon (SPEC §5).
const SUSPICIOUS_INTERVAL: Duration = Duration::from_secs(1);
/// Intervals vary by this share, so that monitors do not march in step.
const JITTER: f64 = 0.1;
/// An answer is waited for no longer than so many intervals: with the next
/// pause it is as old as a result may be before it counts as stale.
const LONGEST_ANSWER: u32 = 2;

/// What is looked after.
pub struct Target {
    /// For logs: `domain/name`.
    pub service: Arc<str>,
    /// For logs: `app`, `database`, or a dependency's name.
    pub what: Arc<str>,
    pub question: Box<dyn Question>,
    pub timing: ProbeSpec,
    pub cell: Arc<CheckCell>,
    pub gauge: Arc<HealthGauge>,
}

/// Starts the monitor; dropping the handle ends it. It goes on from what the
/// cell holds. Must be called on the control runtime.
pub fn start(target: Target, supervisor: Supervisor) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let looking_after = || look_after(&target);
        supervisor.keep("monitor", looking_after).await;
    }))
}

async fn look_after(target: &Target) {
    let ProbeSpec {
        interval,
        timeout,
        unhealthy_threshold,
        healthy_threshold,
    } = target.timing;
    let mut verdict = Verdict::new(unhealthy_threshold, healthy_threshold, target.cell.last());
    let timeout = timeout.min(interval.saturating_mul(LONGEST_ANSWER));
    loop {
        let asked = Instant::now();
        let outcome = tokio::time::timeout(timeout, target.question.ask()).await;
        let outcome = outcome.unwrap_or(Err(ProbeError::Timeout));
        let (now, took) = (Instant::now(), asked.elapsed());
        let traffic = target.question.traffic();
        let heard = traffic.map(super::Traffic::take).unwrap_or_default();
        let change = verdict.learn(outcome.is_ok(), heard);
        let change = change.filter(|change| change.is_news(target.cell.state(now.into_std())));
        target.cell.record(verdict.is_up(), took, now.into_std());
        target.gauge.set(verdict.is_up(), target.cell.lifetime());
        report(target, change, outcome.as_ref().err());
        let soon = asked + jittered(interval.min(SUSPICIOUS_INTERVAL));
        if !verdict.is_settled() {
            tokio::time::sleep_until(soon).await;
            continue;
        }
        let failure = async {
            match traffic {
                Some(traffic) => traffic.fails().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(asked + jittered(interval)) => {}
            // A request met what a look would: no need to wait for the next one.
            () = failure => tokio::time::sleep_until(soon).await,
        }
    }
}

/// One line per change, not one per look.
fn report(target: &Target, change: Option<Change>, error: Option<&ProbeError>) {
    let (service, what) = (&*target.service, &*target.what);
    match (change, error) {
        (Some(Change::Up), _) => tracing::info!(service, what, "is up"),
        (Some(Change::Down), Some(error)) => {
            let address = target.question.address();
            tracing::warn!(service, what, address, %error, "is down");
        }
        (Some(Change::Down), None) | (None, _) => {}
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - JITTER * fastrand::f64())
}
