//! HTTP/2 toward an upstream: a few connections per worker, many streams each.
//!
//! Unlike HTTP/1.1 a connection cannot be driven by the request that needs it,
//! because it serves others too: one local task per connection does that.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, Uri, Version, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::body::{BodyError, RequestBody};
use super::error::UpstreamError;
use super::h1::{Framing, RequestHead};
use super::pool::Pool;
use crate::model::Kind;
use crate::net::LocalExecutor;
use crate::net::deadline::Deadline;

/// Streams on one connection before another is opened.
const STREAMS_PER_CONNECTION: u32 = 100;
/// Receive windows toward the app (SPEC §2.4 has the same toward clients).
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes buffered per stream toward an app that does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest response header list (SPEC §2.3).
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// The HTTP/2 connections of one pool.
#[derive(Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Multiplexed>>,
    /// Held while connecting, so that a burst opens one connection.
    connecting: Mutex<()>,
}

#[derive(Clone)]
struct Multiplexed {
    sender: SendRequest<H2RequestBody>,
    streams: Rc<Cell<u32>>,
    address: Arc<str>,
}

/// Counts a stream while it lives.
struct StreamCount(Rc<Cell<u32>>);

/// Streams a request's body; a failure resets the stream.
struct H2RequestBody(RequestBody);

/// Streams a response's body; dropping it resets the stream (RFC 9113 §5.4.2).
pub struct H2ResponseBody {
    incoming: Incoming,
    deadline: Deadline,
    idle_limit: Option<Duration>,
    address: Arc<str>,
    _stream: StreamCount,
}

/// A response whose head is complete.
pub(super) struct H2Response {
    pub(super) response: Response<H2ResponseBody>,
    pub(super) address: Arc<str>,
    pub(super) reused: bool,
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Connections {
    /// No new stream from now on; open ones finish.
    pub(super) fn retire(&self) {
        self.open.borrow_mut().clear();
    }

    fn usable(&self) -> Option<Multiplexed> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.sender.is_closed());
        open.iter()
            .find(|connection| connection.streams.get() < STREAMS_PER_CONNECTION)
            .cloned()
    }

    async fn get(&self, pool: &Pool) -> Result<(Multiplexed, bool), UpstreamError> {
        if let Some(connection) = self.usable() {
            return Ok((connection, true));
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = self.usable() {
            return Ok((connection, true));
        }
        let connection = pool.connect().await?;
        let address = Arc::clone(connection.address());
        let io = TokioIo::new(connection.into_stream());
        let handshake = Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            .handshake(io);
        let (sender, driver) = handshake.await.map_err(|error| {
            let mut failed = UpstreamError::connecting(Kind::UpstreamProtocol, error.to_string());
            failed.address = Some(Arc::clone(&address));
            failed
        })?;
        // Ends when the connection closes, or the last sender and stream are gone.
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an HTTP/2 connection to an upstream broke off");
            }
        });
        let connection = Multiplexed {
            sender,
            streams: Rc::default(),
            address,
        };
        self.open.borrow_mut().push(connection.clone());
        Ok((connection, false))
    }

    /// Sends a request and waits for the response head, within the upstream's
    /// response timeout.
    pub(super) async fn send(
        &self,
        pool: &Pool,
        head: &RequestHead,
        body: RequestBody,
    ) -> Result<H2Response, UpstreamError> {
        let (mut connection, reused) = self.get(pool).await?;
        let address = Arc::clone(&connection.address);
        let fail = |kind: Kind, detail: String, sent: bool| UpstreamError {
            kind,
            detail,
            address: Some(Arc::clone(&address)),
            reused,
            sent,
            received: false,
        };
        let request = request(head, body)
            .map_err(|error| fail(Kind::BadRequest, error.to_string(), false))?;
        connection.streams.set(connection.streams.get() + 1);
        let stream = StreamCount(Rc::clone(&connection.streams));
        let deadline = pool.deadline();
        deadline.arm(pool.upstream().spec().response_timeout);
        let response = tokio::select! {
            biased;
            response = connection.sender.send_request(request) => response,
            () = std::future::poll_fn(|context| deadline.poll_expired(context)) => {
                return Err(fail(Kind::ResponseTimeout, "no response head in time".into(), true));
            }
        };
        deadline.disarm();
        let response = response.map_err(|error| {
            let (kind, sent) = classify(&error);
            fail(kind, error_text(&error), sent)
        })?;
        let idle_limit = pool.upstream().spec().body_idle_timeout;
        let idle_limit = (!is_streaming(&response)).then_some(idle_limit);
        let of = Arc::clone(&address);
        let response = response.map(|incoming| H2ResponseBody {
            incoming,
            deadline,
            idle_limit,
            address: of,
            _stream: stream,
        });
        Ok(H2Response {
            response,
            address,
            reused,
        })
    }
}

fn is_streaming(response: &Response<Incoming>) -> bool {
    response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            let value = value.as_bytes();
            value.starts_with(b"text/event-stream") || value.starts_with(b"application/grpc")
        })
}

fn request(head: &RequestHead, body: RequestBody) -> Result<Request<H2RequestBody>, http::Error> {
    let mut headers = head.headers.clone();
    let authority = headers.remove(HOST);
    let authority = authority
        .as_ref()
        .map_or(&b"localhost"[..], |host| host.as_bytes());
    let uri = Uri::builder()
        .scheme(uri::Scheme::HTTP)
        .authority(authority)
        .path_and_query(&head.target[..])
        .build()?;
    let mut request = Request::new(H2RequestBody(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    if let Framing::Length(length) = head.framing {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// What failed, and whether the request may have reached the app.
fn classify(error: &hyper::Error) -> (Kind, bool) {
    if error.is_canceled() {
        // hyper's word for: never handed to the connection.
        return (Kind::UpstreamClosed, false);
    }
    if let Some(error) = find::<BodyError>(error) {
        return match error {
            BodyError::TooLarge => (Kind::BodyTooLarge, true),
            BodyError::Malformed(_) => (Kind::BadRequest, true),
            BodyError::Client(_) => (Kind::ClientClosed, true),
        };
    }
    match find::<h2::Error>(error) {
        // Not processed, by RFC 9113 §8.7.
        Some(error) if error.reason() == Some(Reason::REFUSED_STREAM) => {
            (Kind::UpstreamClosed, false)
        }
        Some(error) if error.is_io() || error.is_go_away() => (Kind::UpstreamClosed, true),
        Some(error) if error.is_reset() => (Kind::UpstreamClosed, true),
        Some(_) => (Kind::UpstreamProtocol, true),
        None => (Kind::UpstreamClosed, true),
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

fn error_text(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Body for H2RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Body for H2ResponseBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let fail = |kind: Kind, detail: String, address: &Arc<str>| UpstreamError {
            kind,
            detail,
            address: Some(Arc::clone(address)),
            reused: false,
            sent: true,
            received: true,
        };
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(frame) => {
                self.deadline.disarm();
                Poll::Ready(frame.map(|frame| {
                    frame.map_err(|error| {
                        let (kind, _) = classify(&error);
                        fail(kind, error_text(&error), &self.address)
                    })
                }))
            }
            Poll::Pending => {
                let Some(limit) = self.idle_limit else {
                    return Poll::Pending;
                };
                if !self.deadline.is_armed() {
                    self.deadline.arm(limit);
                }
                self.deadline.poll_expired(context).map(|()| {
                    let detail = "the response body stalled".to_owned();
                    Some(Err(fail(Kind::ResponseTimeout, detail, &self.address)))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
