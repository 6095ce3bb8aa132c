//! HTTP/2 on a client's connection (RFC 9113): `h2` for the protocol, and one
//! task for it and for the requests on it.
//!
//! Without hyper's server around it, which gives every request a task of its
//! own, copies its future five times on the way there, and wakes the connection
//! for each frame: a quarter of what HTTP/2 cost in user space.

mod body;
mod call;
mod stream;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::{Reason, SendStream, server};
use http::Response;

use super::client_body::{ClientBody, ClientRequest};
use super::client_io::ClientIo;
use super::connection::End;
use super::http1::Answer;
use super::watch::{Stalled, Watch};
use crate::drain::Phase;
pub(super) use body::Http2Body;
use call::Call;
use stream::{Over, Place, Stream};

/// Bounds of HTTP/2 on one connection (SPEC §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct H2Limits {
    pub header_bytes: u32,
    pub streams: u32,
}

/// Receive window of a stream.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
/// Receive window of a connection.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes buffered per stream toward a client that does not read.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// Streams a client may reset before we have looked at them.
const H2_PENDING_RESETS: usize = 20;
/// Streams we may have to reset for the client's errors.
const H2_ERROR_RESETS: usize = 100;
/// What DATA frames that wait for the app may lack to 256 bytes each, all in
/// all: each takes a place, however short it is. Room for the short messages of
/// some streams whose app pauses; h2's own bound ended such connections.
const H2_SMALL_FRAMES_BUDGET: usize = 2 * 1024 * 1024;
/// Memory for requests that a connection keeps between them.
const MAX_PLACES: usize = 8;
/// How often protocol and requests are looked after before it is others' turn:
/// a request that came is begun in the second.
const TURNS: usize = 2;

/// Serves HTTP/2 until the connection ends. A drain, or settings that no longer
/// hold, end it by GOAWAY after the open streams. A connection that is opened
/// while the drain is only announced may ask once: otherwise its client would
/// be sent away until it gives up.
pub async fn serve_http2<S, F, B>(
    io: ClientIo,
    watch: &Rc<Watch>,
    limits: H2Limits,
    phase: &Cell<Phase>,
    service: S,
) -> End
where
    S: Fn(ClientRequest) -> F,
    F: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = Talk::new(io, watch, limits, service);
    let mut closing = false;
    let came_late = phase.get() >= Phase::Announced;
    std::future::poll_fn(|context: &mut Context<'_>| {
        let phase = phase.get();
        if phase == Phase::Cut {
            return Poll::Ready(End::Cut);
        }
        match connection.poll(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error.into())),
            Poll::Pending => {}
        }
        let announced = phase >= Phase::Announced && (!came_late || watch.asked());
        if (announced || phase >= Phase::Closing || watch.ends()) && !closing {
            closing = true;
            connection.leave();
            match connection.poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error.into())),
                Poll::Pending => {}
            }
        }
        if watch.is_flooded() {
            connection.leave();
            // Once more, for the GOAWAY to leave; what it says does not matter.
            let _ = connection.poll(context);
            return Poll::Ready(End::Flooded);
        }
        match watch.poll_stalled(context) {
            Poll::Ready(Stalled::Idle) if !closing && !watch.is_lingering() => {
                closing = true;
                watch.takes_leave();
                connection.leave();
                context.waker().wake_by_ref();
                Poll::Pending
            }
            // Among others: the GOAWAY above was not answered by closing.
            stalled => stalled.map(End::Stalled),
        }
    })
    .await
}

fn builder(limits: H2Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buffer_size(H2_SEND_BUFFER)
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(Some(H2_ERROR_RESETS))
        .data_frame_budget(H2_SMALL_FRAMES_BUDGET);
    builder
}

/// The protocol on one connection, and the requests on it.
struct Talk<'a, S, F, B> {
    protocol: Protocol,
    /// GOAWAY is to be sent once there was a handshake.
    leaves: bool,
    service: S,
    watch: &'a Rc<Watch>,
    requests: FuturesUnordered<Stream<F, B>>,
    /// For requests to come.
    places: Vec<Place<F>>,
    /// Answers that broke off.
    broken: Vec<(SendStream<Bytes>, Reason)>,
    /// What the protocol has to be polled for.
    frames: Call,
    /// What the requests have to be polled for.
    progress: Call,
}

/// How far the connection is.
enum Protocol {
    Handshake(server::Handshake<ClientIo, Bytes>),
    Open(server::Connection<ClientIo, Bytes>),
}

impl<'a, S, F, B> Talk<'a, S, F, B>
where
    S: Fn(ClientRequest) -> F,
    F: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn new(io: ClientIo, watch: &'a Rc<Watch>, limits: H2Limits, service: S) -> Self {
        Self {
            protocol: Protocol::Handshake(builder(limits).handshake(io)),
            leaves: false,
            service,
            watch,
            requests: FuturesUnordered::new(),
            places: Vec::new(),
            broken: Vec::new(),
            frames: Call::new(),
            progress: Call::new(),
        }
    }

    /// No new requests; those that are open are served, then it ends.
    fn leave(&mut self) {
        if let Protocol::Open(connection) = &mut self.protocol {
            connection.graceful_shutdown();
        }
        self.leaves = true;
        self.frames.ring();
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.frames.begin(context);
        self.progress.begin(context);
        let ended = self.poll_turns();
        self.frames.rest(context);
        self.progress.rest(context);
        ended
    }

    fn poll_turns(&mut self) -> Poll<Result<(), h2::Error>> {
        for _ in 0..TURNS {
            if self.progress.answer() {
                self.poll_requests();
            }
            if self.frames.answer()
                && let Poll::Ready(ended) = self.poll_frames()
            {
                return Poll::Ready(ended);
            }
            for (mut stream, reason) in self.broken.drain(..) {
                stream.send_reset(reason);
            }
            if !self.progress.is_rung() && !self.frames.is_rung() {
                break;
            }
        }
        Poll::Pending
    }

    /// Lets requests go on that were called for.
    fn poll_requests(&mut self) {
        let mut context = self.progress.context();
        while let Poll::Ready(Some(over)) = self.requests.poll_next_unpin(&mut context) {
            let Over { place, broken } = over;
            self.places
                .extend(place.filter(|_| self.places.len() < MAX_PLACES));
            if let Some(broken) = broken {
                self.broken.push(broken);
                self.frames.ring();
            }
        }
    }

    /// Reads, takes up requests, and writes.
    fn poll_frames(&mut self) -> Poll<Result<(), h2::Error>> {
        let mut context = self.frames.context();
        if let Protocol::Handshake(handshake) = &mut self.protocol {
            let mut connection = ready!(Pin::new(handshake).poll(&mut context))?;
            if self.leaves {
                connection.graceful_shutdown();
            }
            self.protocol = Protocol::Open(connection);
        }
        let Protocol::Open(connection) = &mut self.protocol else {
            return Poll::Pending;
        };
        while let Some((request, reply)) =
            ready!(connection.poll_accept(&mut context)).transpose()?
        {
            let (head, body) = request.into_parts();
            let body = Http2Body::new(body, &head.headers);
            let wanted = body.as_ref().and_then(Http2Body::wanted);
            let request = ClientRequest {
                body: body.map_or(ClientBody::Empty, ClientBody::Http2),
                head: Box::new(head),
            };
            let mut place = self.places.pop().unwrap_or_else(|| Box::pin(None));
            place.set(Some((self.service)(request)));
            let stream = Stream::new(place, reply, wanted, Rc::clone(self.watch));
            self.requests.push(stream);
            self.progress.ring();
        }
        Poll::Ready(Ok(()))
    }
}

/// Runs what a connection to an upstream needs on its own worker.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // Ends with its connection, which owns the other half of its channels.
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
