//! A trace and a place in it, as every room may know them.

use std::fmt;

use super::hex;

/// A whole trace's id (W3C trace-context §3.2.2.3); as text 32 lower-case hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Where a span is in its trace.
#[derive(Debug, Clone)]
pub struct SpanIds {
    pub trace_id: TraceId,
    pub span_id: [u8; 8],
    /// `None` for the first span of a trace.
    pub parent: Option<[u8; 8]>,
    /// The caller says that the trace id is random (W3C Level 2).
    pub random: bool,
    /// Valid `tracestate` as it came, unless it is very long.
    pub state: Option<Box<str>>,
}

/// A [`TraceId`] as text, on the stack.
#[derive(Clone, Copy)]
pub struct TraceIdText([u8; 32]);

impl TraceId {
    /// The text, without allocation.
    pub fn text(self) -> TraceIdText {
        TraceIdText(hex::digits(&self.0))
    }
}

impl TraceIdText {
    /// 32 lower-case hex digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text().as_str())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text().as_str())
    }
}
