//! Looks after one target: asks it how it is, again and again.
//!
//! Runs on the control runtime; what it finds goes into a [`CheckCell`] that
//! `/health` and the probes read. It never stops traffic.

mod probe;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use super::pool::Upstream;
use crate::health::CheckCell;
use crate::model::{AppHealthCheck, HealthCheckSpec, ProbeSpec};
use crate::telemetry::metrics::HealthGauge;
use crate::telemetry::supervise::Supervisor;

pub use probe::ProbeError;
use probe::{Expectation, Probe};
use verdict::{Change, Verdict};

/// After a failure the target is asked this often, so that an outage and its
/// end are seen soon (SPEC §5).
const SUSPICIOUS_INTERVAL: Duration = Duration::from_secs(1);
/// The path asked for where no `healthCheck` is written: an app that has no
/// such route answers 404, and so is up.
const DEFAULT_PATH: &str = "/health";
/// Intervals vary by this share, so that monitors do not march in step.
const JITTER: f64 = 0.1;

/// What is looked after.
pub struct Target {
    /// For logs: `domain/name`.
    pub service: Arc<str>,
    /// For logs: `app`, or a dependency's name.
    pub what: Arc<str>,
    pub upstream: Arc<Upstream>,
    pub check: HealthCheckSpec,
    pub cell: Arc<CheckCell>,
    pub gauge: Arc<HealthGauge>,
}

/// Starts the monitor; dropping the handle ends it. `None` where `healthCheck`
/// is off. Must be called on the control runtime.
pub fn start(target: Target, supervisor: Supervisor) -> Option<AbortOnDropHandle<()>> {
    let timing = target.check.probe()?.clone();
    let probe = match &target.check {
        HealthCheckSpec::Check(AppHealthCheck::Grpc, _) => Probe::Grpc,
        HealthCheckSpec::Check(AppHealthCheck::Path(path), _) => Probe::Http {
            path: Arc::clone(path),
            expects: Expectation::Success,
        },
        HealthCheckSpec::Unset(_) => Probe::Http {
            path: Arc::from(DEFAULT_PATH),
            expects: Expectation::AnyAnswer,
        },
        HealthCheckSpec::Off => return None,
    };
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let looking_after = || look_after(&target, &probe, &timing);
        supervisor.keep("monitor", looking_after).await;
    })))
}

async fn look_after(target: &Target, probe: &Probe, timing: &ProbeSpec) {
    let mut verdict = Verdict::new(timing.unhealthy_threshold, timing.healthy_threshold);
    loop {
        let asked = Instant::now();
        let outcome = tokio::time::timeout(timing.timeout, probe.ask(&target.upstream)).await;
        let outcome = outcome.unwrap_or(Err(ProbeError::Timeout));
        let took = asked.elapsed();
        let change = verdict.learn(outcome.is_ok());
        target.cell.record(verdict.is_up(), took, Instant::now());
        target.gauge.set(verdict.is_up());
        report(target, change, outcome.as_ref().err());
        let pause = match verdict.is_settled() {
            true => timing.interval,
            false => timing.interval.min(SUSPICIOUS_INTERVAL),
        };
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// One line per change, not one per probe.
fn report(target: &Target, change: Option<Change>, error: Option<&ProbeError>) {
    let (service, what) = (&*target.service, &*target.what);
    match (change, error) {
        (Some(Change::Up), _) => tracing::info!(service, what, "is up"),
        (Some(Change::Down), Some(error)) => {
            tracing::warn!(service, what, %error, "is down");
        }
        (Some(Change::Down), None) | (None, _) => {}
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - JITTER * fastrand::f64())
}
