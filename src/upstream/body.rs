//! The body of a request on its way to the app.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

use crate::model::Kind;
use crate::net::{ClientBody, ClientBodyError};

/// Up to this much of a body is kept aside so that the request can be sent
/// again (SPEC §2.7 RETRY-2).
pub const REPLAY_BYTES: usize = 16 * 1024;

/// Removes what may not pass from decoded trailers.
pub type TrailerFilter = Rc<dyn Fn(&mut HeaderMap)>;

/// A streamed request body with a ceiling, able to begin again while little of
/// it was read. On the heap where there is one: it is handed from hand to hand,
/// and most requests have none.
pub struct RequestBody(Option<Box<Given>>);

/// A body that there is, or that is watched for its end.
struct Given {
    source: Source,
    /// Bytes that may still come; `u64::MAX` without a ceiling.
    allowance: u64,
    trailer_filter: Option<TrailerFilter>,
    /// What was handed out so far, while that is at most [`REPLAY_BYTES`].
    kept: SmallVec<[Bytes; 1]>,
    kept_bytes: usize,
    /// Kept frames to hand out again.
    replay: std::vec::IntoIter<Bytes>,
    /// More was handed out than is kept.
    overflowed: bool,
    ended: bool,
    /// Told once the client has given all of it.
    delivery: Option<Rc<Delivery>>,
}

/// When the client had given all of a body; for whoever judges how long the
/// other side took.
#[derive(Debug, Default)]
pub struct Delivery(Cell<Option<Instant>>);

impl Delivery {
    /// `None` while the client owes bytes.
    pub fn completed(&self) -> Option<Instant> {
        self.0.get()
    }
}

enum Source {
    Empty,
    Whole(Bytes),
    Client(ClientBody),
}

/// Why a request body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Beyond `limits.bodyBytes`.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// Not framed as HTTP wants it.
    #[error("the client's body is malformed")]
    Malformed(#[source] ClientBodyError),
    /// The client broke off.
    #[error("the client's body broke off")]
    Client(#[source] ClientBodyError),
    /// Taken back by an attempt that failed.
    #[error("the attempt was given up")]
    Abandoned,
}

impl BodyError {
    /// What it is to the request.
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooLarge => Kind::BodyTooLarge,
            Self::Malformed(_) => Kind::BadRequest,
            // The attempt that was given up has told its own failure.
            Self::Client(_) | Self::Abandoned => Kind::ClientClosed,
        }
    }
}

impl From<ClientBodyError> for BodyError {
    fn from(error: ClientBodyError) -> Self {
        match error {
            ClientBodyError::Malformed(_) => Self::Malformed(error),
            _ => Self::Client(error),
        }
    }
}

impl RequestBody {
    /// No body.
    pub const fn empty() -> Self {
        Self(None)
    }

    /// A body made here.
    pub fn whole(bytes: Bytes) -> Self {
        Self(Some(Given::new(Source::Whole(bytes), None)))
    }

    /// The client's body; more than `limit` bytes is an error.
    pub fn client(
        incoming: ClientBody,
        limit: Option<u64>,
        trailer_filter: Option<TrailerFilter>,
    ) -> Self {
        let mut body = Given::new(Source::Client(incoming), trailer_filter);
        body.allowance = limit.unwrap_or(u64::MAX);
        Self(Some(body))
    }

    /// What tells when all of it was given.
    pub fn delivery(&mut self) -> Rc<Delivery> {
        let none = || Given::new(Source::Empty, None);
        self.0.get_or_insert_with(none).delivery()
    }

    /// Whether all of it came and was handed out.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_finished())
    }

    /// Starts over, if everything handed out so far was kept.
    pub fn rewind(&mut self) -> bool {
        self.0.as_mut().is_none_or(|body| body.rewind())
    }

    /// Called once bytes of it went out: a large first frame is let go.
    pub fn sent_some(&mut self) {
        if let Some(body) = &mut self.0
            && body.kept_bytes > REPLAY_BYTES
        {
            body.forget();
        }
    }
}

impl Given {
    fn new(source: Source, trailer_filter: Option<TrailerFilter>) -> Box<Self> {
        Box::new(Self {
            source,
            allowance: u64::MAX,
            trailer_filter,
            kept: SmallVec::new(),
            kept_bytes: 0,
            replay: Vec::new().into_iter(),
            overflowed: false,
            ended: false,
            delivery: None,
        })
    }

    fn delivery(&mut self) -> Rc<Delivery> {
        let known = self.delivery.get_or_insert_default();
        let delivery = Rc::clone(known);
        if self.is_finished() {
            self.delivered();
        }
        delivery
    }

    fn delivered(&self) {
        if let Some(Delivery(at)) = self.delivery.as_deref()
            && at.get().is_none()
        {
            at.set(Some(Instant::now()));
        }
    }

    fn is_finished(&self) -> bool {
        self.replay.len() == 0 && (self.ended || self.source_is_finished())
    }

    fn source_is_finished(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Client(incoming) => incoming.is_end_stream(),
        }
    }

    fn rewind(&mut self) -> bool {
        if self.overflowed {
            return false;
        }
        self.replay = self.kept.iter().cloned().collect::<Vec<_>>().into_iter();
        true
    }

    fn keep(&mut self, data: &Bytes) {
        if self.overflowed {
            return;
        }
        // The first frame is kept whatever its size: it may turn out that not
        // a byte of it was sent.
        if self.kept.is_empty() || self.kept_bytes + data.len() <= REPLAY_BYTES {
            self.kept_bytes += data.len();
            self.kept.push(data.clone());
        } else {
            self.forget();
        }
    }

    /// Gives up the chance to start over, and the memory it costs.
    fn forget(&mut self) {
        self.overflowed = true;
        self.kept.clear();
    }

    fn poll_source(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(
                bytes.copy_to_bytes(bytes.remaining()),
            )))),
            Source::Client(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map(|frame| frame.map(|result| result.map_err(BodyError::from))),
        }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.replay.next() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(self.poll_source(context)) else {
            self.ended = true;
            self.delivered();
            return Poll::Ready(None);
        };
        let mut frame = frame?;
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            if length > self.allowance {
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
            self.allowance -= length;
            let data = data.clone();
            self.keep(&data);
            if self.source_is_finished() {
                self.delivered();
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            // Trailers are not kept: such a request is not sent again.
            self.forget();
            self.delivered();
            if let Some(filter) = &self.trailer_filter {
                filter(trailers);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            None => Poll::Ready(None),
            Some(body) => body.poll_next(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_finished()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_ref().map(|body| &body.source) {
            None | Some(Source::Empty) => SizeHint::with_exact(0),
            Some(Source::Whole(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Some(Source::Client(incoming)) => incoming.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(body: &mut RequestBody) -> Option<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn a_small_body_can_be_sent_again() {
        let mut body = RequestBody::whole(Bytes::from_static(b"hello"));
        assert_eq!(next(&mut body).as_deref(), Some(&b"hello"[..]));
        assert_eq!(next(&mut body), None);
        assert!(body.rewind());
        assert!(!body.is_finished());
        assert_eq!(next(&mut body).as_deref(), Some(&b"hello"[..]));
        assert!(body.is_finished());
    }

    #[test]
    fn a_large_frame_is_kept_only_until_bytes_of_it_went_out() {
        let mut body = RequestBody::whole(Bytes::from(vec![7; REPLAY_BYTES + 1]));
        assert!(next(&mut body).is_some());
        assert!(body.rewind());
        assert!(next(&mut body).is_some());
        body.sent_some();
        assert!(!body.rewind());
    }
}
