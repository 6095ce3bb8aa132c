//! HTTP in, SQL out.

mod answer;
mod gate;
mod request;
mod route;
mod rows;
mod run;
mod server;
mod span;
mod stream;
mod transactions;
mod words;

use std::sync::Arc;

use super::runtime::Parts;
use crate::pg::Databases;
use crate::snapshot::Current;
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::SpanQueue;
use transactions::Transactions;

pub(super) use server::serve;

/// The door and all it needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    current: Current,
    databases: Databases,
    metrics: Metrics,
    /// Whether others than this machine can reach it: then every service needs a
    /// token.
    exposed: bool,
    transactions: Transactions,
    spans: SpanQueue,
    log: LogHandle,
}

impl Door {
    pub(super) fn new(parts: &Parts, exposed: bool) -> Self {
        Self {
            inner: Arc::new(Inner {
                current: parts.current.clone(),
                databases: parts.databases.clone(),
                metrics: parts.metrics.clone(),
                exposed,
                transactions: Transactions::default(),
                spans: parts.spans.clone(),
                log: parts.log.clone(),
            }),
        }
    }
}
