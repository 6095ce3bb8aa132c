//! The client's side of a connection: bytes, and what their absence means.

use std::cell::{Cell, OnceCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::deadline::{Deadline, Deadlines};
use super::flood::FloodGuard;
use super::stream::Stream;

/// Time limits of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// First byte and complete head.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// A client that does not read.
    pub write_stall: Duration,
}

/// What the connection is doing, shared by its IO, its service and its task.
#[derive(Debug)]
pub struct Watch {
    phase: Cell<IoPhase>,
    /// Requests being served; more than one on HTTP/2 only.
    serving: Cell<u32>,
    multiplexed: Cell<bool>,
    last_request: Cell<bool>,
    /// Whether any byte came.
    heard: Cell<bool>,
    /// Whether any request came.
    asked: Cell<bool>,
    /// On HTTP/2 only.
    flood_guard: OnceCell<FloodGuard>,
    flooded: Cell<bool>,
    timeouts: ClientTimeouts,
    read: Deadline,
    write: Deadline,
}

/// Which time limit the reading side is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IoPhase {
    /// No complete head yet on a new connection, or the first bytes of one on
    /// an old connection.
    Head,
    /// Between requests.
    Idle,
    /// A request is being served; its own limits hold.
    Busy,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stalled {
    /// No complete request head in time.
    Head,
    /// Nothing between requests.
    Idle,
    /// The client does not read.
    Write,
}

impl Watch {
    /// A new connection, waiting for its first head.
    pub fn new(timeouts: ClientTimeouts, deadlines: &Deadlines) -> Rc<Self> {
        let watch = Self {
            phase: Cell::new(IoPhase::Head),
            serving: Cell::new(0),
            multiplexed: Cell::new(false),
            last_request: Cell::new(false),
            heard: Cell::new(false),
            asked: Cell::new(false),
            flood_guard: OnceCell::new(),
            flooded: Cell::new(false),
            timeouts,
            read: deadlines.add(),
            write: deadlines.add(),
        };
        watch.read.arm(timeouts.header);
        Rc::new(watch)
    }

    /// A complete head is there.
    pub fn request_begun(&self) {
        self.serving.set(self.serving.get() + 1);
        self.asked.set(true);
        self.phase.set(IoPhase::Busy);
        self.read.disarm();
    }

    /// The response's last byte was handed over.
    pub fn request_ended(&self) {
        self.serving.set(self.serving.get().saturating_sub(1));
        if self.serving.get() == 0 {
            self.phase.set(IoPhase::Idle);
            self.read.arm(self.timeouts.idle);
        }
    }

    /// The connection turned out to be HTTP/2: it may be silent, or send
    /// frames that are no request, for the idle time.
    pub fn multiplexes(&self) {
        self.multiplexed.set(true);
        self.flood_guard
            .get_or_init(|| FloodGuard::new(self.read.now_ms()));
        self.phase.set(IoPhase::Idle);
        self.read.arm(self.timeouts.idle);
    }

    /// How long a client may leave what it asked for unread.
    pub(super) fn write_stall(&self) -> Duration {
        self.timeouts.write_stall
    }

    /// A disarmed deadline of the same worker.
    pub(super) fn another_deadline(&self) -> Deadline {
        self.write.another()
    }

    /// No further request is wanted on this HTTP/2 connection.
    pub fn end_after_this(&self) {
        self.last_request.set(true);
    }

    /// Whether [`Watch::end_after_this`] was called.
    pub fn ends(&self) -> bool {
        self.last_request.get()
    }

    /// Whether the client sent anything at all.
    pub fn heard(&self) -> bool {
        self.heard.get()
    }

    /// Whether there was a request.
    pub fn asked(&self) -> bool {
        self.asked.get()
    }

    /// Whether a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        self.heard.get() && self.phase.get() == IoPhase::Head
    }

    /// Ready when a limit is reached; wakes the task for that, and when
    /// somebody calls [`Deadlines::wake_all`].
    pub fn poll_stalled(&self, context: &mut Context<'_>) -> Poll<Stalled> {
        if self.write.poll_expired(context).is_ready() {
            return Poll::Ready(Stalled::Write);
        }
        let read_expired = self.read.poll_expired(context).is_ready();
        match self.phase.get() {
            // An answer is still on its way: nothing can be said after half of it.
            IoPhase::Head if read_expired && self.write.is_armed() => Poll::Ready(Stalled::Write),
            IoPhase::Head if read_expired => Poll::Ready(Stalled::Head),
            IoPhase::Idle if read_expired => Poll::Ready(Stalled::Idle),
            IoPhase::Head | IoPhase::Idle | IoPhase::Busy => Poll::Pending,
        }
    }

    /// The client sends frames that only cost: nothing more is read.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    fn look_at(&self, bytes: &[u8]) {
        if let Some(guard) = self.flood_guard.get()
            && !guard.admits(bytes, self.read.now_ms())
        {
            self.flooded.set(true);
        }
    }

    fn bytes_came(&self) {
        self.heard.set(true);
        if self.phase.get() == IoPhase::Idle && !self.multiplexed.get() {
            self.phase.set(IoPhase::Head);
            self.read.arm(self.timeouts.header);
        }
    }

    /// Of a stream that holds bytes back: a client that does not read is seen
    /// only here.
    fn flushed(&self, outcome: &Poll<io::Result<()>>) {
        if outcome.is_ready() {
            self.write.disarm();
        } else if !self.write.is_armed() {
            self.write.arm(self.timeouts.write_stall);
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let (Poll::Ready(Ok(count)), Some(guard)) = (outcome, self.flood_guard.get()) {
            guard.sent(*count);
        }
        if outcome.is_ready() {
            if self.write.is_armed() {
                self.write.disarm();
            }
        } else if !self.write.is_armed() {
            self.write.arm(self.timeouts.write_stall);
        }
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
}

/// The HTTP/2 connection preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's stream that tells its [`Watch`] what happens.
#[derive(Debug)]
pub struct ClientIo {
    pub stream: Stream,
    /// Read already, to be read again.
    prefix: Bytes,
    watch: Rc<Watch>,
}

impl ClientIo {
    /// Wraps an accepted stream.
    pub fn new(stream: Stream, watch: Rc<Watch>) -> Self {
        Self {
            stream,
            prefix: Bytes::new(),
            watch,
        }
    }

    /// Reads until it is clear what the client speaks; `None` when it closed
    /// before that. Nothing is lost.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn spoken(&mut self) -> io::Result<Option<Spoken>> {
        let mut first = Vec::with_capacity(PREFACE.len());
        loop {
            let spoken = match first.len() {
                length if length >= PREFACE.len() && first.starts_with(PREFACE) => Spoken::Http2,
                length if length < PREFACE.len() && PREFACE.starts_with(&first) => {
                    if self.stream.read_buf(&mut first).await? == 0 {
                        return Ok(None);
                    }
                    self.watch.heard.set(true);
                    continue;
                }
                _ => Spoken::Http1,
            };
            self.prefix = Bytes::from(first);
            return Ok(Some(spoken));
        }
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
            buffer.put_slice(&this.prefix.split_to(count));
            this.watch.bytes_came();
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
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
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

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
