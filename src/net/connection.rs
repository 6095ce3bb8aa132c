//! How a client's connection comes to its end.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stream::Stream;
use super::watch::Stalled;

/// An early answer reads and discards at most this before the connection is
/// closed, so that the answer is not lost to a reset (SPEC §2.4).
pub(super) const LINGER_BYTES: usize = 64 * 1024;
/// Nor does it wait longer than this.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(1);
/// How a connection came to its end.
#[derive(Debug)]
pub enum End {
    /// As HTTP wants it. The stream is still open for a tunnel, or lingering.
    Finished,
    /// The same, and the client sends nothing more, as it said.
    Agreed,
    /// The parser refused a request and answered it with this status.
    Refused(u16),
    /// A limit was reached.
    Stalled(Stalled),
    /// The client sent frames that only cost.
    Flooded,
    /// Cut by a drain at its deadline.
    Cut,
    /// The peer broke off, or a response body failed.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// Writes an answer to what is no request and closes the connection so that the
/// client can read it.
pub async fn answer_and_close(mut stream: Stream, answer: &[u8]) {
    // A client that is gone, or does not read, needs no answer.
    let written = tokio::time::timeout(LINGER_TIME, stream.write_all(answer)).await;
    if matches!(written, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Closes a connection on which nothing more comes: nothing can be lost to a
/// reset (RFC 9112 §9.6).
pub async fn close(mut stream: Stream) {
    // TLS says that this is the end; a socket says it by closing.
    if stream.holds_back() {
        let _ = tokio::time::timeout(LINGER_TIME, stream.shutdown()).await;
    }
}

/// Closes the writing side, then discards what the client still sends, within
/// bounds: closing with unread bytes would reset the connection and could take
/// the answer with it.
pub async fn linger(mut stream: Stream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        // Not an array: every connection would be as large as that.
        let mut sink = BytesMut::with_capacity(4096);
        let mut discarded = 0;
        while discarded < LINGER_BYTES {
            sink.clear();
            match stream.read_buf(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(count) => discarded += count,
            }
        }
    };
    // A client that keeps sending is cut.
    let _ = tokio::time::timeout(LINGER_TIME, discard).await;
}
