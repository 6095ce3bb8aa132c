//! One connection to an upstream, taken from its pool.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::net::deadline::Deadline;
use crate::net::stream::Stream;

/// One connection, exclusively held.
pub struct Connection {
    pub(super) stream: Stream,
    /// Read but not yet consumed.
    pub(super) buffer: BytesMut,
    pub(super) deadline: Deadline,
    /// Requests completed on it.
    pub(super) requests: u32,
    pub(super) address: Arc<str>,
    /// How long it took to open.
    pub(super) opened_in: Duration,
    pub(super) idle_since_ms: u64,
}

impl Connection {
    /// The remote address, for the log.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether it served a request before.
    pub fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// How long it took to open, for the first request on it.
    pub fn connect_time(&self) -> Option<Duration> {
        (!self.is_reused()).then_some(self.opened_in)
    }

    /// The stream itself, after a protocol switch.
    pub fn into_stream(self) -> Stream {
        self.stream
    }
}
