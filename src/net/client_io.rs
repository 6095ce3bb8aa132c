//! The client's side of a connection: its bytes.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::LINGER_BYTES;
use super::stream::Stream;
use super::watch::Watch;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
}

/// The HTTP/2 connection preface (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Mostly the whole first request.
const FIRST_READ_BYTES: usize = 2048;

/// A client's stream that tells its [`Watch`] what happens.
#[derive(Debug)]
pub struct ClientIo {
    pub stream: Stream,
    /// Read already, to be read again.
    prefix: Bytes,
    /// Bytes discarded since the writing side was closed.
    lingered: usize,
    watch: Rc<Watch>,
}

impl ClientIo {
    /// Wraps an accepted stream.
    pub fn new(stream: Stream, watch: Rc<Watch>) -> Self {
        Self {
            stream,
            prefix: Bytes::new(),
            lingered: 0,
            watch,
        }
    }

    /// Takes up a connection again that was parked, or whose first bytes were
    /// read before.
    pub fn resumed(stream: Stream, watch: Rc<Watch>, prefix: Bytes) -> Self {
        Self {
            stream,
            prefix,
            lingered: 0,
            watch,
        }
    }

    /// The stream, and what was read of it and not used.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.prefix)
    }

    /// Reads until it is clear what the client speaks; `None` when it closed
    /// before that. Nothing is lost, and nothing takes room before it comes.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn spoken(&mut self) -> io::Result<Option<Spoken>> {
        let mut first = BytesMut::new();
        loop {
            let spoken = match first.len() {
                length if length >= PREFACE.len() && first.starts_with(PREFACE) => Spoken::Http2,
                length if length < PREFACE.len() && PREFACE.starts_with(&first) => {
                    let read = |context: &mut Context<'_>| self.poll_first(context, &mut first);
                    if std::future::poll_fn(read).await? == 0 {
                        return Ok(None);
                    }
                    self.watch.is_heard();
                    continue;
                }
                _ => Spoken::Http1,
            };
            self.prefix = first.freeze();
            return Ok(Some(spoken));
        }
    }

    /// Reads what is there onto the stack first.
    fn poll_first(
        &mut self,
        context: &mut Context<'_>,
        first: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::uninit() }; FIRST_READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        first.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.has_remaining() {
            let count = this.prefix.remaining().min(buffer.remaining());
            let came = this.prefix.split_to(count);
            buffer.put_slice(&came);
            this.watch.bytes_came();
            this.watch.look_at(&came);
            return Poll::Ready(Ok(()));
        }
        if this.watch.is_flooded() {
            // Back to whoever polls the connection, to end it.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some(came) = buffer.filled().get(before..)
            && !came.is_empty()
        {
            this.watch.bytes_came();
            this.watch.look_at(came);
        }
        outcome
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = match slices {
            // What is in one piece costs less that way.
            [one] => Pin::new(&mut this.stream).poll_write(context, one),
            _ => Pin::new(&mut this.stream).poll_write_vectored(context, slices),
        };
        this.watch.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        if this.stream.holds_back() {
            this.watch.flushed(&outcome);
        }
        outcome
    }

    /// On HTTP/2 waits, within bounds, for the client to close too: what it has
    /// sent meanwhile would reset the connection, and could take the GOAWAY
    /// with it that says which requests it may send again (RFC 9113 §6.8). On
    /// HTTP/1 that is done once the stream has been given back.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        if !this.watch.lingers() {
            return Poll::Ready(Ok(()));
        }
        let mut room = [const { MaybeUninit::uninit() }; FIRST_READ_BYTES];
        while this.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut this.stream).poll_read(context, &mut buffer);
            let count = buffer.filled().len();
            if ready!(read).is_err() || count == 0 {
                break;
            }
            this.lingered += count;
        }
        Poll::Ready(Ok(()))
    }
}
