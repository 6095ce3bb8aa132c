//! A response from an upstream, whatever was spoken to it.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::body::RequestBody;
use super::connection::Connection;
use super::error::UpstreamError;
use super::h1::{Exchange, RequestHead, ResponseBody};
use super::h2::{H2ResponseBody, Room};
use super::pool::Pool;
use crate::net::http1::Relayed;

/// A response whose head is complete.
pub struct UpstreamResponse {
    pub status: StatusCode,
    pub fields: UpstreamFields,
    /// What `Connection` named, where the fields of the upstream's hop are left
    /// out already; `None` where they may be among the headers.
    pub named: Option<Vec<HeaderName>>,
    pub body: UpstreamBody,
    /// For the log.
    pub address: Arc<str>,
    /// Served by a connection that had served before.
    pub reused: bool,
    /// How long connecting took, where it was done for this request.
    pub connect: Option<Duration>,
}

/// Its fields.
#[derive(Debug)]
pub enum UpstreamFields {
    /// As they came in HTTP/1, without those of that hop.
    Came(Box<Relayed>),
    Map(HeaderMap),
}

impl UpstreamFields {
    /// The values of a field, its name in small letters.
    pub fn values(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        let (came, map) = match self {
            Self::Came(came) => (Some(came), None),
            Self::Map(map) => (None, Some(map)),
        };
        let of_map = map.into_iter().flat_map(move |map| map.get_all(name));
        came.into_iter()
            .flat_map(move |came| came.values(name))
            .chain(of_map.map(HeaderValue::as_bytes))
    }

    /// All of them.
    pub fn into_map(self) -> HeaderMap {
        match self {
            Self::Came(came) => came.into_map(),
            Self::Map(map) => map,
        }
    }
}

/// Its body, streamed.
pub enum UpstreamBody {
    Http1(ResponseBody),
    Http2(Box<H2ResponseBody>),
}

/// What became of an attempt; on failure with the body, for another one. Boxed:
/// it is handed from hand to hand.
pub type Attempt = Result<Box<UpstreamResponse>, Box<(UpstreamError, RequestBody)>>;

/// One attempt on this connection, in HTTP/1.1.
pub fn request(
    pool: &Rc<Pool>,
    connection: Connection,
    head: &RequestHead,
    body: RequestBody,
) -> impl Future<Output = Attempt> + use<> {
    Exchange::new(connection, Rc::clone(pool), head, body).response()
}

/// One attempt on this connection, in HTTP/2.
///
/// # Errors
/// What failed, and the body for another attempt.
pub async fn request_http2(
    pool: &Rc<Pool>,
    room: Room,
    head: &RequestHead,
    body: RequestBody,
) -> Attempt {
    let sent = room.send(pool, head, body).await.map_err(Box::new)?;
    let (parts, body) = sent.response.into_parts();
    Ok(Box::new(UpstreamResponse {
        status: parts.status,
        fields: UpstreamFields::Map(parts.headers),
        named: None,
        body: UpstreamBody::Http2(Box::new(body)),
        address: sent.address,
        reused: sent.reused,
        connect: sent.connect,
    }))
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(context),
            Self::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
