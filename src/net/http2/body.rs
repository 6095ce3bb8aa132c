//! The body of a request on a stream.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::{Body, Frame, SizeHint};

use crate::net::http1::decimal;

/// Streams a request's body; its window opens as it is taken. Dropped before
/// its end, the rest is refused once the answer is sent (RFC 9113 §8.1).
#[derive(Debug)]
pub struct Http2Body {
    stream: RecvStream,
    /// As announced; h2 sees to it that it holds.
    left: Option<u64>,
    data_ended: bool,
    wanted: Option<Wanted>,
}

/// Whether somebody waits for the body of a request that expects to be told.
pub(super) type Wanted = Rc<Cell<bool>>;

impl Http2Body {
    /// `None` where the head says that there is no body.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Option<Self> {
        if stream.is_end_stream() {
            return None;
        }
        let expects = headers.get(EXPECT).is_some_and(|value| {
            // As of HTTP/1.
            value.as_bytes().eq_ignore_ascii_case(b"100-continue")
        });
        Some(Self {
            stream,
            left: announced(headers),
            data_ended: false,
            wanted: expects.then(Rc::default),
        })
    }

    /// Where it says that it is waited for, if its client wants to know.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.wanted.clone()
    }
}

/// The length, if there is one and all values agree on it.
fn announced(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = decimal(lengths.next()?.as_bytes())?;
    lengths
        .all(|other| decimal(other.as_bytes()) == Some(length))
        .then_some(length)
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.data_ended {
            let data = this.stream.poll_data(context);
            if let Some(wanted) = &this.wanted {
                wanted.set(data.is_pending());
            }
            match ready!(data) {
                Some(Ok(data)) => {
                    // Fails for a stream that is gone only.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A stream that was reset did not end, whatever the reason.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(context)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
