//! One client connection from its first byte to its last.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client_io::ClientIo;
use super::stream::Stream;
use super::watch::{Stalled, Watch};
use crate::drain::Phase;

/// An early answer reads and discards at most this before the connection is
/// closed, so that the answer is not lost to a reset (SPEC §2.4).
pub(super) const LINGER_BYTES: usize = 64 * 1024;
/// Nor does it wait longer than this.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(1);
/// hyper's lower bound for its read buffer.
const MIN_BUFFER_BYTES: usize = 8 * 1024;

/// Bounds of the HTTP/1 parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParserLimits {
    pub header_bytes: usize,
    pub header_count: usize,
}

/// How a connection came to its end.
#[derive(Debug)]
pub enum End {
    /// As HTTP wants it. The stream is still open for a tunnel, or lingering.
    Finished,
    /// The parser refused a request and answered it with this status.
    Refused(u16),
    /// A limit was reached.
    Stalled(Stalled),
    /// The client sent frames that only cost.
    Flooded,
    /// Cut by a drain at its deadline.
    Cut,
    /// The peer broke off, or a response body failed.
    Broken(hyper::Error),
}

/// Serves HTTP/1.1 on a stream until the connection ends; gives the stream back
/// with bytes that were read too far.
///
/// hyper's own timers stay off: its head timeout would also be the idle limit
/// and would cost a timer per request. `watch` keeps the limits, `phase` says
/// when to drain; whoever changes it wakes all connections.
pub async fn serve_http1<S, B>(
    io: ClientIo,
    watch: &Rc<Watch>,
    limits: ParserLimits,
    phase: &Cell<Phase>,
    service: S,
) -> (End, Stream, Bytes)
where
    S: HttpService<Incoming, ResBody = B, Error = Infallible> + Unpin,
    // Needed to get the stream back.
    S::Future: Unpin,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = http1::Builder::new()
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER_BYTES))
        .serve_connection(TokioIo::new(io), service);
    let mut closing = false;
    let end = std::future::poll_fn(|context: &mut Context<'_>| {
        let phase = phase.get();
        if phase == Phase::Cut {
            return Poll::Ready(End::Cut);
        }
        // First what has come already: a shutdown would throw it away.
        match connection.poll_without_shutdown(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => return Poll::Ready(end_of(error)),
            Poll::Pending => {}
        }
        // hyper counts a connection with half a head as idle and would close it.
        if phase >= Phase::Closing && !closing && !watch.is_in_head() {
            closing = true;
            Pin::new(&mut connection).graceful_shutdown();
            match connection.poll_without_shutdown(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
                Poll::Ready(Err(error)) => return Poll::Ready(end_of(error)),
                Poll::Pending => {}
            }
        }
        watch.poll_stalled(context).map(End::Stalled)
    })
    .await;
    let parts = connection.into_parts();
    (end, parts.io.into_inner().stream, parts.read_buf)
}

fn end_of(error: hyper::Error) -> End {
    if !error.is_parse() {
        return End::Broken(error);
    }
    // What hyper's `on_error` answers for these, by its own table.
    End::Refused(if error.is_parse_too_large() {
        if error.to_string().contains("URI") {
            414
        } else {
            431
        }
    } else {
        400
    })
}

/// Writes an answer made without hyper and closes the connection so that the
/// client can read it.
pub async fn answer_and_close(mut stream: Stream, answer: &[u8]) {
    // A client that is gone, or does not read, needs no answer.
    let written = tokio::time::timeout(LINGER_TIME, stream.write_all(answer)).await;
    if matches!(written, Ok(Ok(()))) {
        linger(stream).await;
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
