//! The body of an answer on its way to the client: recorded, and broken off so
//! that it can be seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::WorkerParts;
use crate::forward::AnswerBody;
use crate::model::{Failure, Kind};
use crate::net::http1::{Answer, Relayed};
use crate::net::{Permit, Underway};
use crate::reply;
use crate::telemetry::record::Record;
use crate::upstream::UpstreamError;

/// What of a body was read before its head went out.
pub(super) enum Peeked {
    Nothing,
    Data(Bytes),
    /// Boxed: what is rare would make every answer as large.
    Trailers(Box<HeaderMap>),
    End,
}

impl Peeked {
    fn frame(frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Self::Trailers(Box::new(trailers)),
                // There is no third kind.
                Err(_) => Self::Nothing,
            },
        }
    }
}

/// Reads what is there already, without waiting: a body that fails before a
/// byte of the answer went out becomes an answer of ours. The client would see
/// its connection closed without a word, and might take that for leave to ask
/// again.
pub(super) async fn peek(body: &mut AnswerBody) -> Result<Peeked, Failure> {
    if body.is_end_stream() {
        return Ok(Peeked::Nothing);
    }
    std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => Ok(Peeked::Nothing),
            Poll::Ready(None) => Ok(Peeked::End),
            Poll::Ready(Some(Ok(frame))) => Ok(Peeked::frame(frame)),
            Poll::Ready(Some(Err(error))) => Err(Failure::from(&error)),
        })
    })
    .await
}

/// A response body whose end, failure or disappearance is recorded.
pub struct RecordedBody {
    pub(super) body: AnswerBody,
    /// `None` where a tunnel has taken it.
    pub(super) record: Option<Box<Record>>,
    /// The request's place among those in flight.
    pub(super) _permit: Option<Permit>,
    pub(super) _underway: Underway,
    pub(super) parts: Rc<WorkerParts>,
    pub(super) peeked: Peeked,
    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) faulty: bool,
}

impl RecordedBody {
    /// A panic breaks this answer off and nothing else: the connection is
    /// reset, so that half an answer is not taken for a whole one.
    fn next_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        // A body that panicked is not polled again: the error ends it.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(any(test, feature = "fault-injection"))]
            crate::telemetry::fault::in_body(self.faulty);
            match std::mem::replace(&mut self.peeked, Peeked::Nothing) {
                Peeked::Nothing => Pin::new(&mut self.body).poll_frame(context),
                Peeked::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Peeked::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
                Peeked::End => {
                    self.peeked = Peeked::End;
                    Poll::Ready(None)
                }
            }
        }));
        polled.unwrap_or_else(|_| {
            self.parts.metrics.task_panic("request");
            let error = UpstreamError::connecting(Kind::Internal, "a panic was caught");
            Poll::Ready(Some(Err(error)))
        })
    }
}

impl Body for RecordedBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = self.get_mut();
        let frame = this.next_frame(context);
        let Some(record) = &mut this.record else {
            return frame;
        };
        match &frame {
            Poll::Ready(Some(Err(error))) => {
                record.failed(reply::recorded(Failure::from(error)));
            }
            Poll::Ready(None) => record.completed(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let peeked = matches!(self.peeked, Peeked::Data(_) | Peeked::Trailers(_));
        !peeked && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let peeked = match &self.peeked {
            Peeked::Nothing | Peeked::End => return rest,
            // Trailers alone: without chunks there is no place for them.
            Peeked::Trailers(_) => return SizeHint::default(),
            Peeked::Data(data) => data.len() as u64,
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + peeked);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + peeked);
        }
        hint
    }
}

impl Answer for RecordedBody {
    fn take_relayed(&mut self) -> Option<Box<Relayed>> {
        self.body.take_relayed()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // A body is not polled for its end once it says that it is there.
        if self.is_end_stream()
            && let Some(record) = &mut self.record
        {
            record.completed();
        }
    }
}
