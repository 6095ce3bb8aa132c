//! One HTTP/2 client connection, and what keeps its streams moving.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::client_body::{ClientBody, ClientRequest};
use super::client_io::ClientIo;
use super::connection::End;
use super::deadline::Deadline;
use super::http1::Answer;
use super::watch::{Stalled, Watch};
use crate::drain::Phase;

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
    F: Future<Output = Response<B>> + 'static,
    B: Answer<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let answering = service(ClientRequest {
            head: Box::new(head),
            body: ClientBody::Http2(body),
        });
        paced(answering)
    });
    let connection = builder(watch, limits).serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let mut closing = false;
    let came_late = phase.get() >= Phase::Announced;
    std::future::poll_fn(|context: &mut Context<'_>| {
        let phase = phase.get();
        if phase == Phase::Cut {
            return Poll::Ready(End::Cut);
        }
        match connection.as_mut().poll(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error.into())),
            Poll::Pending => {}
        }
        let announced = phase >= Phase::Announced && (!came_late || watch.asked());
        if (announced || phase >= Phase::Closing || watch.ends()) && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
            match connection.as_mut().poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error.into())),
                Poll::Pending => {}
            }
        }
        if watch.is_flooded() {
            connection.as_mut().graceful_shutdown();
            // Once more, for the GOAWAY to leave; what it says does not matter.
            let _ = connection.as_mut().poll(context);
            return Poll::Ready(End::Flooded);
        }
        match watch.poll_stalled(context) {
            Poll::Ready(Stalled::Idle) if !closing && !watch.is_lingering() => {
                closing = true;
                watch.takes_leave();
                connection.as_mut().graceful_shutdown();
                context.waker().wake_by_ref();
                Poll::Pending
            }
            // Among others: the GOAWAY above was not answered by closing.
            stalled => stalled.map(End::Stalled),
        }
    })
    .await
}

/// The answer as hyper is to have it: its fields in a map, its body watched.
async fn paced<B: Answer<Data = Bytes>>(
    answering: impl Future<Output = Response<B>>,
) -> Result<Response<Paced<B>>, Infallible> {
    let mut response = answering.await;
    if let Some(relayed) = response.body_mut().take_relayed() {
        relayed.join(response.headers_mut());
    }
    let stall = STREAM.try_with(Rc::clone).ok();
    if let Some(stall) = stall.as_ref().filter(|_| !response.body().is_end_stream()) {
        // The window may be closed from the first byte on.
        stall.handed_over();
    }
    Ok(response.map(|body| Paced { body, stall }))
}

fn builder(watch: &Rc<Watch>, limits: H2Limits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor {
        watch: Rc::clone(watch),
    });
    builder
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(H2_ERROR_RESETS);
    builder
}

tokio::task_local! {
    /// The stream that a task serves: hyper keeps task and stream to itself.
    static STREAM: Rc<StreamStall>;
}

/// How long a stream's client has not taken what was ready for it. Its window
/// is its own to open, so the connection's writes tell nothing.
struct StreamStall {
    limit: Duration,
    watch: Rc<Watch>,
    /// Made with the first piece of body: many answers have but one.
    deadline: OnceCell<Deadline>,
}

impl StreamStall {
    fn handed_over(&self) {
        self.deadline
            .get_or_init(|| self.watch.another_deadline())
            .arm(self.limit);
    }

    fn taken(&self) {
        if let Some(deadline) = self.deadline.get() {
            deadline.disarm();
        }
    }

    /// To be polled after the stream itself, which makes the deadline.
    fn poll_expired(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.deadline.get() {
            Some(deadline) => deadline.poll_expired(context),
            None => Poll::Pending,
        }
    }
}

/// A response body that tells when hyper asks for more, which it does only
/// while the stream's window is open.
struct Paced<B> {
    body: B,
    stall: Option<Rc<StreamStall>>,
}

impl<B: Body + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Self { body, stall } = self.get_mut();
        let frame = Pin::new(body).poll_frame(context);
        if let Some(stall) = stall {
            match &frame {
                Poll::Ready(Some(Ok(_))) => stall.handed_over(),
                Poll::Ready(_) | Poll::Pending => stall.taken(),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the streams of a connection on its own worker; one whose client does
/// not read is let go, which resets it.
struct StreamExecutor {
    watch: Rc<Watch>,
}

impl Clone for StreamExecutor {
    fn clone(&self) -> Self {
        Self {
            watch: Rc::clone(&self.watch),
        }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let stall = Rc::new(StreamStall {
            limit: self.watch.write_stall(),
            watch: Rc::clone(&self.watch),
            deadline: OnceCell::new(),
        });
        let stream = STREAM.scope(Rc::clone(&stall), future);
        // Ends with its connection, which owns the other half of its channels.
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                _ = stream => {}
                () = std::future::poll_fn(|context| stall.poll_expired(context)) => {}
            }
        });
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
