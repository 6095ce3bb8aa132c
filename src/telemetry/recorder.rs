//! Where records of requests go, and the lines of what never became one.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::log::{AccessLine, ErrorLine, LogHandle};
use super::metrics::{Direction, PeerMetrics, ServiceShard};
use super::spans::{Resource, SpanBuffer};
use crate::model::Cause;

/// Where records of one worker and service (and peer) go.
pub struct Recorder {
    pub shard: ServiceShard,
    /// Set for calls toward a peer.
    pub peer: Option<Arc<PeerMetrics>>,
    pub log: LogHandle,
    /// `domain/name`.
    pub service: Arc<str>,
    pub generation: u64,
    /// Whose spans these are.
    pub resource: Arc<Resource>,
    pub spans: Rc<SpanBuffer>,
}

/// Why the sidecar answered itself, or broke an answer off.
#[derive(Debug)]
pub struct RecordedFailure {
    pub cause: Cause,
    pub level: tracing::Level,
    pub status: u16,
    /// For the log alone.
    pub detail: Cow<'static, str>,
}

impl Recorder {
    /// The parser refused a request before anybody saw it, with this answer.
    pub fn parser_refused(&self, refusal: &RecordedFailure, peer: IpAddr) {
        self.shard.parser_refused(self.direction(), refusal.status);
        self.log_unread(refusal, peer);
    }

    /// A connection was answered without a complete request on it.
    pub fn answered_unread(&self, refusal: &RecordedFailure, peer: IpAddr) {
        self.shard.proxy_error(refusal.cause);
        self.log_unread(refusal, peer);
    }

    fn log_unread(&self, refusal: &RecordedFailure, peer: IpAddr) {
        if !self.log.shows(refusal.level) {
            // A client's mistake: a line as any other refused request has.
            return self.log_access_unread(refusal, peer);
        }
        self.log.error(&ErrorLine {
            level: refusal.level,
            service: &self.service,
            cause: refusal.cause,
            status: refusal.status,
            detail: &refusal.detail,
            dependency: None,
            upstream_address: None,
            attempt: 0,
            reused: false,
            connect: None,
            wait: None,
            total: Duration::ZERO,
            generation: self.generation,
            request_id: "",
            trace_id: None,
            house_trace_id: None,
            peer: Some(peer),
        });
    }

    fn log_access_unread(&self, refusal: &RecordedFailure, peer: IpAddr) {
        self.log.access(&AccessLine {
            service: &self.service,
            method: "",
            path: "",
            status: refusal.status,
            cause: Some(refusal.cause),
            detail: Some(&refusal.detail),
            bytes: None,
            total: Duration::ZERO,
            upstream: Duration::ZERO,
            request_id: "",
            trace_id: None,
            house_trace_id: None,
            peer: Some(peer),
            strategy: None,
            subject: None,
            generation: self.generation,
            dependency: None,
            upstream_address: None,
            attempt: 0,
            reused: false,
        });
    }

    pub(super) fn direction(&self) -> Direction<'_> {
        self.peer
            .as_deref()
            .map_or(Direction::Inbound, Direction::Outbound)
    }
}
