//! HTTP/2 toward an upstream: a few connections per worker, many streams each.
//!
//! Unlike HTTP/1.1 a connection cannot be driven by the request that needs it,
//! because it serves others too: one local task per connection does that.

mod body;
mod classify;
mod upload;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, Response, Uri, Version, uri};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::body::RequestBody;
use super::error::UpstreamError;
use super::h1::{Framing, RequestHead};
use super::pool::Pool;
use crate::model::Kind;
use crate::net::LocalExecutor;
use crate::net::tls::Wire;

pub(super) use body::H2ResponseBody;
use classify::{classify, error_text, is_reset, loses_connection};
use upload::{H2RequestBody, Upload, UploadLimits};

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
    /// A stream on it saw that it is gone.
    lost: Rc<Cell<bool>>,
    address: Arc<str>,
}

/// A connection with room for one more stream.
pub struct Room {
    connection: Multiplexed,
    /// How long connecting took, where it was done for this place.
    connect: Option<Duration>,
}

/// Counts a stream while it lives.
struct StreamCount(Rc<Cell<u32>>);

/// A response whose head is complete.
pub(super) struct H2Response {
    pub(super) response: Response<H2ResponseBody>,
    pub(super) address: Arc<str>,
    pub(super) reused: bool,
    pub(super) connect: Option<Duration>,
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
        open.retain(|connection| !connection.lost.get() && !connection.sender.is_closed());
        open.iter()
            .find(|connection| connection.streams.get() < STREAMS_PER_CONNECTION)
            .cloned()
    }

    /// A connection for one more stream, opened if need be.
    pub(super) async fn room(&self, pool: &Pool) -> Result<Room, UpstreamError> {
        if let Some(connection) = self.usable() {
            return Ok(Room {
                connection,
                connect: None,
            });
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = self.usable() {
            return Ok(Room {
                connection,
                connect: None,
            });
        }
        let connection = pool.connect_for(Wire::Http2).await?;
        let (address, connect) = (Arc::clone(connection.address()), connection.connect_time());
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
            failed.connect = connect;
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
            lost: Rc::default(),
            address,
        };
        self.open.borrow_mut().push(connection.clone());
        Ok(Room {
            connection,
            connect,
        })
    }
}

impl Room {
    /// Sends a request and waits for the response head, within the limits of
    /// both sides. On failure the body comes back for a retry.
    pub(super) async fn send(
        mut self,
        pool: &Pool,
        head: &RequestHead,
        body: RequestBody,
    ) -> Result<H2Response, (UpstreamError, RequestBody)> {
        let Self {
            connection,
            connect,
        } = &mut self;
        let (address, connect) = (Arc::clone(&connection.address), *connect);
        let reused = connect.is_none();
        let fail = |kind: Kind, detail: String, sent: bool| UpstreamError {
            kind,
            detail,
            address: Some(Arc::clone(&address)),
            reused,
            connect,
            sent,
            received: false,
        };
        let limits = UploadLimits {
            response: pool.upstream().spec().response_timeout,
            // A gRPC stream may be silent for as long as its client likes.
            client: (!is_grpc(&head.headers)).then(|| pool.client_idle_timeout()),
        };
        let scheme = match pool.upstream().is_secure() {
            true => uri::Scheme::HTTPS,
            false => uri::Scheme::HTTP,
        };
        let upload = Upload::new(body, limits, pool.deadline());
        let request = match request(head, &upload, scheme) {
            Ok(request) => request,
            Err(error) => {
                let error = fail(Kind::BadRequest, error.to_string(), false);
                return Err((error, upload.take_back()));
            }
        };
        connection.streams.set(connection.streams.get() + 1);
        let stream = StreamCount(Rc::clone(&connection.streams));
        let response = tokio::select! {
            biased;
            response = connection.sender.send_request(request) => response.map_err(|error| {
                connection
                    .lost
                    .set(connection.lost.get() || loses_connection(&error));
                // The body's own failure resets the stream, and says less there.
                let (kind, sent) = match upload.failure() {
                    Some(kind) => (kind, true),
                    None => classify(&error),
                };
                let mut failed = fail(kind, error_text(&error), sent);
                // A stream that the app ended is its answer, if a poor one.
                failed.received = sent && is_reset(&error);
                failed
            }),
            late = std::future::poll_fn(|context| upload.poll_late(context)) => {
                Err(fail(late, "no response head in time".into(), true))
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => return Err((error, upload.take_back())),
        };
        upload.answered();
        let idle_limit = pool.upstream().spec().body_idle_timeout;
        let idle_limit = (!is_streaming(response.headers())).then_some(idle_limit);
        let of = Arc::clone(&address);
        let response = response.map(|incoming| {
            H2ResponseBody::new(incoming, pool.deadline(), idle_limit, of, upload, stream)
        });
        Ok(H2Response {
            response,
            address,
            reused,
            connect,
        })
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    has_type(headers, b"application/grpc")
}

fn is_streaming(headers: &HeaderMap) -> bool {
    has_type(headers, b"text/event-stream") || is_grpc(headers)
}

fn has_type(headers: &HeaderMap, prefix: &[u8]) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(prefix))
}

fn request(
    head: &RequestHead,
    upload: &Rc<Upload>,
    scheme: uri::Scheme,
) -> Result<Request<H2RequestBody>, http::Error> {
    let mut headers = head.headers.clone();
    head.ours.insert_into(&mut headers);
    let authority = headers.remove(HOST);
    let authority = authority
        .as_ref()
        .map_or(&b"localhost"[..], |host| host.as_bytes());
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(head.target.as_bytes())
        .build()?;
    let mut request = Request::new(H2RequestBody::new(upload));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    if let Framing::Length(length) = head.framing {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    *request.headers_mut() = headers;
    Ok(request)
}
