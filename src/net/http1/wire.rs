//! The bytes of a connection, both ways.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::decode::{BodyDecoder, Piece};
use super::head::{self, Head, Refused};
use super::{FramingError, ParserLimits, Spares};
use crate::net::client_body::ClientBodyError;
use crate::net::stream::Stream;
use crate::net::watch::Watch;

/// Room of a first read: nearly every head fits.
const READ_BYTES: usize = 4 * 1024;
/// Reads of a body grow to this while they come back full.
const MAX_READ_BYTES: usize = 64 * 1024;
/// Pieces of an answer up to this size are copied behind its head, so that one
/// buffer is written.
const COPIED_BYTES: usize = 4 * 1024;
/// Room that an idle connection may keep for what comes next.
const KEPT_INPUT_BYTES: usize = 16 * 1024;
/// Room that the written head's buffer may keep.
const KEPT_OUTPUT_BYTES: usize = 8 * 1024;
/// Slices of one write.
const SLICES: usize = 8;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's stream with what was read and what is to be written. Shared by
/// the connection and the body of the request it is serving.
pub(super) struct Wire {
    stream: Stream,
    watch: Rc<Watch>,
    input: BytesMut,
    read_bytes: usize,
    /// Up to here `input` is no complete head.
    looked_at: usize,
    output: Vec<u8>,
    /// Of `output`.
    written: usize,
    /// Written after `output`.
    behind: VecDeque<Bytes>,
    behind_bytes: usize,
    /// Of the request being served.
    decoder: BodyDecoder,
    /// How many requests came; a body of an earlier one gets nothing any more.
    turn: u32,
    /// `100 Continue` is still owed.
    expected: bool,
    /// It was staged, and is not on its way yet.
    continues: bool,
    /// Nothing of the answer whose head was staged last has been written.
    unsent: bool,
    /// The client closed its writing side.
    closed: bool,
    /// The connection's task, while somebody else reads the body.
    owner: Option<Waker>,
}

impl Wire {
    /// `prefix` was read before.
    pub(super) fn new(stream: Stream, prefix: Bytes, watch: Rc<Watch>) -> Self {
        if !prefix.is_empty() {
            watch.bytes_came();
        }
        Self {
            stream,
            watch,
            input: BytesMut::from(prefix),
            read_bytes: READ_BYTES,
            looked_at: 0,
            output: Vec::new(),
            written: 0,
            behind: VecDeque::new(),
            behind_bytes: 0,
            decoder: BodyDecoder::Done,
            turn: 0,
            expected: false,
            continues: false,
            unsent: false,
            closed: false,
            owner: None,
        }
    }

    /// The stream, and what was read and not used.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.input.freeze())
    }

    /// The next head; `None` where the client closed before one began.
    ///
    /// # Errors
    /// A refusal, or that the client broke off within a head.
    pub(super) fn poll_head(
        &mut self,
        limits: ParserLimits,
        spares: &Spares,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Head>, HeadError>> {
        loop {
            if self.may_be_head(limits) {
                self.looked_at = self.input.len();
                if let Some(head) = head::take_head(&mut self.input, limits, spares)? {
                    self.looked_at = 0;
                    self.decoder = BodyDecoder::new(head.framing);
                    self.turn = self.turn.wrapping_add(1);
                    self.expected = head.expects && !self.decoder.is_done();
                    return Poll::Ready(Ok(Some(head)));
                }
            }
            if self.input.is_empty() {
                // No room is made before it is needed, and none is kept that a
                // body needed. What TLS has taken in shows only when it is read.
                self.read_bytes = READ_BYTES;
                if self.input.capacity() > KEPT_INPUT_BYTES {
                    self.input = BytesMut::new();
                }
                if self.input.capacity() < READ_BYTES && !self.stream.holds_back() {
                    ready!(self.stream.poll_readable(context));
                }
            }
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(match self.input.is_empty() {
                    true => Ok(None),
                    false => Err(HeadError::Broken(io::ErrorKind::UnexpectedEof.into())),
                });
            }
        }
    }

    /// A head ends with a line: while none comes, parsing again what was seen
    /// before would make slow heads dear.
    fn may_be_head(&self, limits: ParserLimits) -> bool {
        let unseen = self.input.get(self.looked_at..).unwrap_or_default();
        !unseen.is_empty()
            && (self.looked_at == 0
                || unseen.contains(&b'\n')
                || self.input.len() >= limits.most_bytes())
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(self.read_bytes);
        let room = self.input.capacity() - self.input.len();
        let stream = Pin::new(&mut self.stream);
        let count = ready!(tokio_util::io::poll_read_buf(
            stream,
            context,
            &mut self.input
        ))?;
        if count == 0 {
            self.closed = true;
        } else {
            self.watch.bytes_came();
        }
        if count == room {
            self.read_bytes = (self.read_bytes * 2).min(MAX_READ_BYTES);
        }
        Poll::Ready(Ok(count))
    }

    /// Which request is being served.
    pub(super) fn turn(&self) -> u32 {
        self.turn
    }

    /// The body of the request being served.
    pub(super) fn decoder(&self) -> &BodyDecoder {
        &self.decoder
    }

    /// The next piece of the body of the request being served.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Piece, ClientBodyError>> {
        if std::mem::take(&mut self.expected) && self.input.is_empty() {
            self.stage_slice(CONTINUE);
            self.continues = true;
        }
        let _ = self.poll_continue(context).map_err(ClientBodyError::Io)?;
        loop {
            let piece = match self.decoder.next_piece(&mut self.input) {
                Ok(piece) => piece,
                Err(error) => return Poll::Ready(Err(ClientBodyError::Malformed(error))),
            };
            if !matches!(piece, Piece::More) {
                if self.decoder.is_done()
                    && let Some(owner) = self.owner.take()
                    && !owner.will_wake(context.waker())
                {
                    // It is for the connection again to see whether the client
                    // is still there.
                    owner.wake();
                }
                return Poll::Ready(Ok(piece));
            }
            if self.closed || ready!(self.poll_read(context)).map_err(ClientBodyError::Io)? == 0 {
                return Poll::Ready(Err(ClientBodyError::Incomplete));
            }
        }
    }

    /// Sends `100 Continue` on, where that was staged. To be polled by whoever
    /// waits while a request is served: its client waits for it, too.
    pub(super) fn poll_continue(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.continues {
            ready!(self.poll_flush(context))?;
            self.continues = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The rest of a body that nobody wanted, if it has come already: then the
    /// connection can go on.
    ///
    /// # Errors
    /// Where it is not framed as it has to be.
    pub(super) fn skip_body(&mut self) -> Result<bool, FramingError> {
        while !self.decoder.is_done() {
            if let Piece::More = self.decoder.next_piece(&mut self.input)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ready once the client has gone while its request is being served. What
    /// it sends meanwhile is the next request's.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.decoder.is_done() {
            // Whoever reads the body sees it.
            let owner = self.owner.get_or_insert_with(|| context.waker().clone());
            owner.clone_from(context.waker());
            return Poll::Pending;
        }
        if self.closed && self.input.is_empty() {
            return Poll::Ready(());
        }
        if !self.input.is_empty() || self.stream.poll_readable(context).is_pending() {
            return Poll::Pending;
        }
        match self.poll_read(context) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Whether a request has begun to come.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Where a head is to be written. `100 Continue` is not owed any more.
    pub(super) fn head_room(&mut self) -> &mut Vec<u8> {
        self.expected = false;
        self.continues = false;
        self.unsent = self.staged_bytes() == 0;
        &mut self.output
    }

    /// Whether not a byte of the answer has been written.
    pub(super) fn is_unsent(&self) -> bool {
        self.unsent
    }

    /// Appends bytes of an answer.
    pub(super) fn stage(&mut self, bytes: Bytes) {
        if self.behind.is_empty() && bytes.len() <= COPIED_BYTES {
            self.append(&bytes);
        } else {
            self.behind_bytes += bytes.len();
            self.behind.push_back(bytes);
        }
    }

    /// Appends a few bytes of an answer.
    pub(super) fn stage_slice(&mut self, bytes: &[u8]) {
        match self.behind.is_empty() {
            true => self.append(bytes),
            false => {
                self.behind_bytes += bytes.len();
                self.behind.push_back(Bytes::copy_from_slice(bytes));
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        // A client that is always a little behind never lets it become empty.
        if self.written >= COPIED_BYTES {
            self.output.drain(..self.written);
            self.written = 0;
        }
        self.output.extend_from_slice(bytes);
    }

    /// Bytes that are held for what is to be written.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.output.capacity() + self.behind_bytes
    }

    /// Bytes that wait to be written.
    pub(super) fn staged_bytes(&self) -> usize {
        self.output.len() - self.written + self.behind_bytes
    }

    /// Ready once all that was staged is written.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.staged_bytes() > 0 {
            let outcome = self.poll_write(context);
            self.watch.wrote(&outcome);
            match ready!(outcome)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.unstage(written),
            }
        }
        if self.stream.holds_back() {
            let outcome = Pin::new(&mut self.stream).poll_flush(context);
            self.watch.flushed(&outcome);
            ready!(outcome)?;
        }
        self.output.shrink_to(KEPT_OUTPUT_BYTES);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let head = self.output.get(self.written..).unwrap_or_default();
        if self.behind.is_empty() {
            return stream.poll_write(context, head);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let head = (!head.is_empty()).then_some(head);
        let behind = self.behind.iter().map(|one| &one[..]);
        let staged = head.into_iter().chain(behind);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(staged) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        stream.poll_write_vectored(context, slices.get(..count).unwrap_or_default())
    }

    fn unstage(&mut self, mut written: usize) {
        let of_head = written.min(self.output.len() - self.written);
        self.written += of_head;
        self.unsent = false;
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        written -= of_head;
        self.behind_bytes -= written;
        while let Some(front) = self.behind.front_mut() {
            if written < front.len() {
                return front.advance(written);
            }
            written -= front.len();
            self.behind.pop_front();
        }
    }
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum HeadError {
    Refused(Refused),
    Broken(io::Error),
}

impl From<Refused> for HeadError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<io::Error> for HeadError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}
