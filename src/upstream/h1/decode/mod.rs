//! A response from bytes: strict, bounded, any bytes accepted without panicking.

mod head;
#[cfg(test)]
mod tests;

pub(in crate::upstream) use head::is_hop_by_hop;
pub(super) use head::{ResponseHead, take_head};

use crate::net::http1::FramingError;

/// Most response header fields (SPEC §2.3).
const MAX_HEADERS: usize = 100;

/// Why bytes are no acceptable response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("no HTTP/1 response head")]
    Head,
    #[error("response head larger than 64 KiB")]
    HeadTooLarge,
    #[error("more than 100 response headers")]
    TooManyHeaders,
    #[error("invalid or differing Content-Length")]
    ContentLength,
    #[error("Transfer-Encoding other than exactly `chunked`, or beside Content-Length")]
    TransferEncoding,
    #[error(transparent)]
    Framing(#[from] FramingError),
}
