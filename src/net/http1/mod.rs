//! HTTP/1 on a client's connection (RFC 9112): requests read, answers written,
//! in one task and without a copy between them.
//!
//! `httparse` finds the parts of a head, as in hyper; what a head means and how
//! an answer is framed is decided here, strictly. Written instead of using
//! hyper's server because that took a third of a request's instructions, most
//! of a connection's memory, and let nobody see what it refused.

mod answer;
mod body;
mod decode;
mod fields;
mod head;
mod relayed;
mod serve;
mod spares;
#[cfg(test)]
mod tests;
mod wire;

pub use body::Http1Body;
pub use decode::{BodyDecoder, BodyFraming, Piece};
pub use fields::{
    Span, Spans, decimal, for_each_field, is_named, spans_of, spans_where, tokens, write_field,
};
pub use relayed::{Answer, Relayed};
pub use serve::serve_http1;
pub use spares::Spares;

/// Bounds of the HTTP/1 parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParserLimits {
    /// Of a head; at least 8 KiB are read before it is refused.
    pub header_bytes: usize,
    pub header_count: usize,
}

/// The smallest bound of a head, whatever is configured.
const MIN_HEAD_BYTES: usize = 8 * 1024;

impl ParserLimits {
    /// So many bytes without a complete head are refused.
    fn most_bytes(self) -> usize {
        self.header_bytes.max(MIN_HEAD_BYTES)
    }
}

/// Why bytes are not framed as RFC 9112 wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("malformed field")]
    Field,
    #[error("malformed chunk")]
    Chunk,
    #[error("malformed trailers, or larger than 16 KiB")]
    Trailers,
}
