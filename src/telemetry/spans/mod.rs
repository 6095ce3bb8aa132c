//! Spans: finished operations of sampled requests, on their way to a collector.
//!
//! A worker pushes [`Span`]s into its own [`SpanBuffer`]; a full one, or the
//! worker's heart-beat, hands them to the one bounded [`SpanQueue`], and the
//! [`Exporter`] on the control runtime encodes and sends them. Nobody on the
//! data path waits: what does not fit is dropped and counted
//! (`outrigger_spans_dropped_total`).
//!
//! A new kind of work is a variant of [`Work`] and what `describe` says of it.

mod describe;
mod export;
mod otlp;
mod queue;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{Method, Version};

use crate::model::{Cause, ServiceName, SpanIds};

pub use describe::{Attribute, Description};
pub use export::{Exporter, Source, Transport};
pub use queue::{SpanBuffer, SpanQueue, channel};

/// Who did the work: OpenTelemetry's resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    pub service: ServiceName,
    pub version: Option<Arc<str>>,
}

/// One finished operation.
#[derive(Debug)]
pub struct Span {
    pub resource: Arc<Resource>,
    pub ids: SpanIds,
    pub kind: SpanKind,
    pub started: Instant,
    pub ended: Instant,
    pub work: Work,
}

/// Which side of a call a span tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came in.
    Server,
    /// A call that went out.
    Client,
}

/// What was done.
#[derive(Debug)]
pub enum Work {
    Http(Box<HttpWork>),
    Sql(Box<SqlWork>),
}

/// One HTTP exchange. Neither header nor parameter values are kept.
#[derive(Debug)]
pub struct HttpWork {
    pub method: Method,
    pub path: Path,
    /// As the client spoke it; of server spans only.
    pub version: Option<Version>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Who was asked.
    pub host: Option<Host>,
    pub status: Option<u16>,
    /// The sidecar answered itself, or broke the answer off.
    pub cause: Option<Cause>,
    /// Of server spans: who asked.
    pub client: Option<IpAddr>,
    /// Of client spans: the address that was dialled.
    pub dialled: Option<Arc<str>>,
    /// Of client spans: the name of what was called.
    pub peer: Option<Arc<str>>,
    /// Attempts after the first.
    pub resends: u32,
}

/// The path of a target: without its query, which may hold what nobody else
/// should see, and copied, so that a span does not keep a request in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Path(Box<str>);

impl Path {
    /// Bytes of a path; what is longer is cut off.
    const MAX_BYTES: usize = 2048;

    /// `/` where there is none.
    pub fn of(target: Option<&PathAndQuery>) -> Self {
        let path = target.map_or("/", PathAndQuery::path);
        let ends = (0..=path.len().min(Self::MAX_BYTES)).rev();
        let cut = ends.filter_map(|end| path.get(..end)).next();
        Self(cut.unwrap_or_default().into())
    }
}

/// Name and port of whoever is asked.
#[derive(Debug, Clone)]
pub enum Host {
    /// `host[:port]`, as the client wrote it and was checked.
    Asked(Box<str>),
    /// As configured.
    Known { host: Arc<str>, port: u16 },
}

/// One statement, or what stands for several.
#[derive(Debug)]
pub struct SqlWork {
    /// The first word of the statement, in capitals: `SELECT`.
    pub operation: &'static str,
    pub database: Arc<str>,
    pub host: Option<Host>,
    /// SQLSTATE or a word of ours, where it failed.
    pub error: Option<Arc<str>>,
}
