//! One request and its response on one connection.
//!
//! Nothing runs in a task of its own: whoever awaits the head, and later
//! whoever polls the body, also pushes what is left of the request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::decode::{self, ResponseHead};
use super::encode::{self, RequestHead};
use super::outgoing::Outgoing;
use super::response::ResponseBody;
use crate::model::Kind;
use crate::net::http1::BodyDecoder;
use crate::upstream::body::{BodyError, RequestBody};
use crate::upstream::connection::Connection;
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::Pool;
use crate::upstream::response::{Attempt, UpstreamBody, UpstreamResponse};

/// Interim responses before the real one; more is an attack or a bug.
const MAX_INTERIM_RESPONSES: u32 = 8;
/// First read of a response.
const READ_BYTES: usize = 8 * 1024;
/// Reads grow to this while they come back full.
const MAX_READ_BYTES: usize = 64 * 1024;
/// Staged request bytes beyond which the body is not asked for more.
const STAGED_BYTES: usize = 64 * 1024;

/// A request being exchanged.
pub struct Exchange {
    pub(super) connection: Connection,
    pub(super) pool: Rc<Pool>,
    method: Method,
    pub(super) request: Outgoing,
    body: RequestBody,
    read_bytes: usize,
    /// The last read took all the room it had.
    was_full: bool,
    waiting: Option<Waiting>,
    /// What the current limit waits for has moved. Bytes of a head do not count:
    /// its limit is for the whole of it.
    pub(super) progressed: bool,
    interim_responses: u32,
    received: bool,
    /// The read side failed or ended; the connection is never reused.
    pub(super) peer_closed: bool,
}

/// What the exchange waits for, each with its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The client's next body bytes.
    Client,
    /// The app reading, or the response head.
    Head,
    /// The app's next body bytes.
    Body,
}

impl Exchange {
    /// Prepares the exchange; nothing is sent before it is polled. On the heap
    /// from the beginning: it is handed on until the body has ended.
    pub fn new(
        mut connection: Connection,
        pool: Rc<Pool>,
        head: &RequestHead,
        body: RequestBody,
    ) -> Box<Self> {
        let case = pool.upstream().spec().header_case;
        let mut bytes = pool.spares().head();
        encode::write_head(head, case, &mut bytes);
        let request = Outgoing::new(bytes, head.framing, head.upgrade.is_some(), case);
        if connection.buffer.capacity() == 0 {
            connection.buffer = pool.spares().buffer();
        }
        Box::new(Self {
            connection,
            pool,
            method: head.method.clone(),
            request,
            body,
            read_bytes: READ_BYTES,
            was_full: false,
            waiting: None,
            progressed: false,
            interim_responses: 0,
            received: false,
            peer_closed: false,
        })
    }

    /// Sends the request until the response head is there.
    pub async fn response(mut self: Box<Self>) -> Attempt {
        match std::future::poll_fn(|context| self.poll_head(context)).await {
            Ok(head) => Ok(self.into_response(head)),
            Err(error) => Err(Box::new((error, self.body))),
        }
    }

    fn into_response(self: Box<Self>, head: ResponseHead) -> Box<UpstreamResponse> {
        let idle_limit = self.pool.upstream().spec().body_idle_timeout;
        let address = Arc::clone(self.connection.address());
        let reused = self.connection.is_reused();
        let connect = self.connection.connect_time();
        let mut body = ResponseBody {
            decoder: BodyDecoder::new(head.framing),
            keep_alive: head.keep_alive,
            idle_limit: (!head.streams).then_some(idle_limit),
            exchange: Some(self),
        };
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            body.finish_if_done();
        }
        Box::new(UpstreamResponse {
            status: head.status,
            fields: head.fields,
            named: head.named,
            body: UpstreamBody::Http1(body),
            address,
            reused,
            connect,
        })
    }

    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            self.poll_send(context)?;
            while let Some(head) = self.take_head()? {
                if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(match self.request.upgrade {
                        true => Ok(head),
                        false => Err(self.error(Kind::UpstreamProtocol, "unasked-for 101")),
                    });
                }
                if !head.status.is_informational() {
                    return Poll::Ready(Ok(head));
                }
                self.interim_responses += 1;
                if self.interim_responses > MAX_INTERIM_RESPONSES {
                    let error = self.error(Kind::UpstreamProtocol, "too many interim responses");
                    return Poll::Ready(Err(error));
                }
            }
            match self.poll_read(context, None) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.closed_before_head())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(self.error(Kind::UpstreamClosed, error.to_string())));
                }
                Poll::Pending => {
                    let waiting = self.waiting_for(Waiting::Head);
                    let limit = self.limit_of(waiting, None);
                    ready!(self.poll_limit(waiting, limit, context));
                    return Poll::Ready(Err(self.expired(waiting)));
                }
            }
        }
    }

    fn take_head(&mut self) -> Result<Option<ResponseHead>, UpstreamError> {
        if self.connection.buffer.is_empty() {
            return Ok(None);
        }
        decode::take_head(&mut self.connection.buffer, &self.method)
            .map_err(|error| self.error(Kind::UpstreamProtocol, error.to_string()))
    }

    fn closed_before_head(&self) -> UpstreamError {
        let detail = match (&self.request.broken, self.connection.buffer.is_empty()) {
            (Some(error), true) => error.to_string(),
            (None, true) => "closed before a response".to_owned(),
            (_, false) => "closed within the response head".to_owned(),
        };
        self.error(Kind::UpstreamClosed, detail)
    }

    /// Pushes the request. `Ok` says only that nothing is wrong: what cannot
    /// be sent now has registered its waker.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), UpstreamError> {
        loop {
            if self.request.broken.is_some() {
                return Ok(());
            }
            let body_pending = self.poll_stage(context)?.is_pending();
            if !self.request.has_staged() {
                self.flush(context);
                return Ok(());
            }
            match self.poll_write(context) {
                Poll::Ready(Ok(())) if body_pending && !self.request.has_staged() => {
                    self.flush(context);
                    return Ok(());
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    // It may have answered already, so reading goes on.
                    self.request.break_off(error);
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Moves on what the stream itself holds back (TLS does; others do not).
    fn flush(&mut self, context: &mut Context<'_>) {
        let stream = Pin::new(&mut self.connection.stream);
        if let Poll::Ready(Err(error)) = stream.poll_flush(context) {
            self.request.broken = Some(error);
        }
    }

    /// Moves body frames to the staged bytes while there is room.
    fn poll_stage(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, UpstreamError> {
        while !self.request.body_ended && self.request.staged_bytes < STAGED_BYTES {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(frame) => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    self.progressed = true;
                    self.stage_frame(frame)?;
                }
                Some(Err(error)) => return Err(self.body_failed(&error)),
                None => self.stage_end(None)?,
            }
            if self.body.is_finished() && !self.request.body_ended {
                self.stage_end(None)?;
            }
        }
        Ok(Poll::Ready(()))
    }

    fn stage_frame(&mut self, frame: Frame<Bytes>) -> Result<(), UpstreamError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.stage_end(frame.trailers_ref()),
        };
        if data.is_empty() {
            return Ok(());
        }
        if self.request.chunked {
            self.request.stage(encode::chunk_size_line(data.len()));
            self.request.stage(data);
            self.request.stage(Bytes::from_static(b"\r\n"));
            return Ok(());
        }
        let length = data.len() as u64;
        self.request.owed =
            self.request.owed.checked_sub(length).ok_or_else(|| {
                self.error(Kind::BadRequest, "body longer than its Content-Length")
            })?;
        self.request.stage(data);
        Ok(())
    }

    fn stage_end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), UpstreamError> {
        self.request.body_ended = true;
        if self.request.chunked {
            self.request
                .stage(encode::last_chunk(trailers, self.request.case));
        } else if self.request.owed > 0 {
            return Err(self.error(Kind::ClientClosed, "body shorter than its Content-Length"));
        }
        Ok(())
    }

    fn body_failed(&self, error: &BodyError) -> UpstreamError {
        let detail = match error {
            BodyError::Malformed(cause) | BodyError::Client(cause) => cause.to_string(),
            BodyError::TooLarge | BodyError::Abandoned => error.to_string(),
        };
        self.error(error.kind(), detail)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); 8];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(self.request.staged()) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let stream = Pin::new(&mut self.connection.stream);
        let written = match slices.get(..count).unwrap_or_default() {
            // A head without a body: the kernel has less to do for a `send`.
            [one] => ready!(stream.poll_write(context, one))?,
            several => ready!(stream.poll_write_vectored(context, several))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.request.unstage(written);
        self.progressed = true;
        if !self.request.sent {
            self.request.sent = true;
            self.body.sent_some();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once; `left` is what is known to come.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        left: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        let wanted = match left {
            // It comes faster than it is read: all of it in one go, with room
            // for what must not follow, or as much as a read may have.
            Some(left) if self.was_full => {
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                left.saturating_add(1).clamp(READ_BYTES, MAX_READ_BYTES)
            }
            Some(_) | None => self.read_bytes,
        };
        let buffer = &mut self.connection.buffer;
        buffer.reserve(wanted);
        let room = buffer.capacity() - buffer.len();
        let stream = Pin::new(&mut self.connection.stream);
        let filled = ready!(tokio_util::io::poll_read_buf(stream, context, buffer))?;
        if filled == 0 {
            self.peer_closed = true;
        } else {
            self.received = true;
        }
        self.was_full = filled == room;
        if self.was_full {
            self.read_bytes = (self.read_bytes * 2).min(MAX_READ_BYTES);
        }
        Poll::Ready(Ok(filled))
    }

    /// Whether reads have needed more room than the first.
    pub(super) fn has_grown(&self) -> bool {
        self.read_bytes > READ_BYTES
    }

    /// Which limit applies while nothing moves.
    fn waiting_for(&self, app: Waiting) -> Waiting {
        let client_owes = !self.request.body_ended && self.request.broken.is_none();
        if app == Waiting::Head && client_owes && !self.request.has_staged() {
            Waiting::Client
        } else {
            app
        }
    }

    pub(super) fn limit_of(
        &self,
        waiting: Waiting,
        body_limit: Option<Duration>,
    ) -> Option<Duration> {
        match waiting {
            Waiting::Client => Some(self.pool.client_idle_timeout()),
            Waiting::Head => Some(self.pool.upstream().spec().response_timeout),
            Waiting::Body => body_limit,
        }
    }

    /// Ready once nothing has moved for `limit`.
    pub(super) fn poll_limit(
        &mut self,
        waiting: Waiting,
        limit: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let deadline = &self.connection.deadline;
        if std::mem::take(&mut self.progressed) || self.waiting != Some(waiting) {
            self.waiting = Some(waiting);
            match limit {
                Some(limit) => deadline.arm(limit),
                None => deadline.disarm(),
            }
        }
        deadline.poll_expired(context)
    }

    pub(super) fn expired(&self, waiting: Waiting) -> UpstreamError {
        match waiting {
            Waiting::Client => self.error(Kind::ClientTimeout, "the client's body stalled"),
            Waiting::Head => self.error(Kind::ResponseTimeout, "no response head in time"),
            Waiting::Body => self.error(Kind::ResponseTimeout, "the response body stalled"),
        }
    }

    pub(super) fn error(&self, kind: Kind, detail: impl Into<String>) -> UpstreamError {
        UpstreamError {
            kind,
            detail: detail.into(),
            address: Some(Arc::clone(&self.connection.address)),
            reused: self.connection.requests > 0,
            connect: self.connection.connect_time(),
            sent: self.request.sent,
            received: self.received,
        }
    }
}
