//! Metrics, logs, spans and the record of one request.
//!
//! [`metrics`] is the only place that names a metric; [`log`] is the only
//! writer of standard output while the daemon runs.

#[cfg(any(test, feature = "fault-injection"))]
pub mod fault;
pub mod log;
pub mod metrics;
pub mod readiness;
pub mod record;
pub mod recorder;
pub mod spans;
pub mod supervise;
