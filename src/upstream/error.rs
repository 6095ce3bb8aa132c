//! What went wrong toward an upstream, and what that allows.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Failure, Kind};

/// A failed exchange, with the facts a retry and a log line need.
#[derive(Debug)]
pub struct UpstreamError {
    pub kind: Kind,
    /// For the log: the operating system's or the parser's words.
    pub detail: String,
    /// The address tried last, for the log.
    pub address: Option<Arc<str>>,
    /// The connection had served a request before.
    pub reused: bool,
    /// How long connecting took or was tried, where it was.
    pub connect: Option<Duration>,
    /// At least one byte of the request went out.
    pub sent: bool,
    /// At least one byte of a response came.
    pub received: bool,
}

impl UpstreamError {
    /// Before a connection was there.
    pub fn connecting(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            address: None,
            reused: false,
            connect: None,
            sent: false,
            received: false,
        }
    }

    /// A connection that the operating system could not make.
    pub(super) fn refused(error: &io::Error, address: Arc<str>) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => Kind::ConnectTimeout,
            // EMFILE and ENFILE: it is we who cannot.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Kind::Overloaded,
            _ => Kind::ConnectRefused,
        };
        let mut refused = Self::connecting(kind, error.to_string());
        refused.address = Some(address);
        refused
    }

    /// Whether it speaks against whom was asked, and not against us or the client.
    pub fn is_theirs(&self) -> bool {
        matches!(
            self.kind,
            Kind::ConnectRefused
                | Kind::ConnectTimeout
                | Kind::UpstreamClosed
                | Kind::UpstreamProtocol
                | Kind::UpstreamTls
                | Kind::ResponseTimeout
        )
    }

    /// RETRY-1: nothing of the request can have reached the app.
    pub fn is_provably_unsent(&self) -> bool {
        !self.sent && matches!(self.kind, Kind::ConnectRefused | Kind::UpstreamClosed)
    }

    /// RETRY-2: a kept-alive connection died before the first response byte.
    pub fn died_before_response(&self) -> bool {
        self.reused && !self.received && self.kind == Kind::UpstreamClosed
    }
}

impl From<&UpstreamError> for Failure {
    fn from(error: &UpstreamError) -> Self {
        Self::because(error.kind, error.detail.clone())
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.kind)?;
        if !self.detail.is_empty() {
            write!(formatter, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for UpstreamError {}
