//! A client's request, whatever it speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};

use super::http1::{FramingError, Http1Body};
use super::http2::Http2Body;

/// A request as it came.
pub struct ClientRequest {
    /// On the heap: it is handed from phase to phase, and is large.
    pub head: Box<Parts>,
    pub body: ClientBody,
}

/// A request's body, streamed.
pub enum ClientBody {
    /// The head says that there is none.
    Empty,
    Http1(Http1Body),
    Http2(Http2Body),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    #[error(transparent)]
    Malformed(FramingError),
    #[error("the client closed within its body")]
    Incomplete,
    #[error(transparent)]
    Io(io::Error),
    #[error("the connection went on without the body")]
    Abandoned,
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(context),
            Self::Http2(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|result| result.map_err(ClientBodyError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
