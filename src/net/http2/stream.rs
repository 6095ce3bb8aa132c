//! One request on a connection, from its head to the last byte of its answer.

use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::Wanted;
use crate::net::deadline::Deadline;
use crate::net::http1::Answer;
use crate::net::watch::Watch;

/// Where a request's future lives; used again by the next one, as it is large.
pub(super) type Place<F> = Pin<Box<Option<F>>>;

/// Fields that HTTP/2 has other means for (RFC 9113 §8.2.2).
static CONNECTION_FIELDS: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Another value in every answer.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A stream: over when all of the answer has been handed to the connection, or
/// nobody waits for it any more.
pub(super) struct Stream<F, B> {
    place: Option<Place<F>>,
    reply: SendResponse<Bytes>,
    /// `Expect: 100-continue`, until that has been said.
    expected: Option<Wanted>,
    answer: Option<Sending<B>>,
    watch: Rc<Watch>,
}

/// What a stream leaves.
pub(super) struct Over<F> {
    /// Empty.
    pub(super) place: Option<Place<F>>,
    /// An answer that broke off: to be reset once what came before that is out,
    /// since a reset takes with it what is not.
    pub(super) broken: Option<(SendStream<Bytes>, Reason)>,
}

/// An answer whose body is on its way.
struct Sending<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// Waits for the client's window; whether it is the last.
    piece: Option<(Bytes, bool)>,
    /// Since when, if it was ever waited for. The window is the client's to
    /// open, so the connection's writes tell nothing.
    stall: Option<Deadline>,
}

impl<F, B> Stream<F, B> {
    pub(super) fn new(
        place: Place<F>,
        reply: SendResponse<Bytes>,
        expected: Option<Wanted>,
        watch: Rc<Watch>,
    ) -> Self {
        Self {
            place: Some(place),
            reply,
            expected,
            answer: None,
            watch,
        }
    }
}

// What is pinned is in a box.
impl<F, B> Unpin for Stream<F, B> {}

impl<F, B> Future for Stream<F, B>
where
    F: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Over<F>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Over<F>> {
        let this = self.get_mut();
        let mut broken = None;
        if this.answer.is_some() || ready!(this.poll_answer(context)).is_continue() {
            let failed = match &mut this.answer {
                Some(answer) => ready!(answer.poll(&this.watch, context)),
                None => None,
            };
            let answer = this.answer.take();
            broken = failed.and_then(|reason| Some((answer?.stream, reason)));
        }
        let place = this.place.take();
        Poll::Ready(Over { place, broken })
    }
}

impl<F, B> Stream<F, B>
where
    F: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Waits for the answer and sends its head; `Break` when that was all.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        let request = self
            .place
            .as_mut()
            .and_then(|place| place.as_mut().as_pin_mut());
        let answered = request.map(|request| request.poll(context));
        let response = match answered {
            Some(Poll::Ready(response)) => Some(response),
            // A client that has reset its stream needs no answer.
            Some(Poll::Pending) => match self.reply.poll_reset(context) {
                Poll::Pending => {
                    self.say_continue();
                    return Poll::Pending;
                }
                Poll::Ready(_) => None,
            },
            None => None,
        };
        if let Some(place) = &mut self.place {
            place.set(None);
        }
        let Some(mut response) = response else {
            return Poll::Ready(Break(()));
        };
        // Relayed ones have lost theirs on the way.
        for name in &CONNECTION_FIELDS {
            response.headers_mut().remove(name);
        }
        if let Some(relayed) = response.body_mut().take_relayed() {
            relayed.join(response.headers_mut());
        }
        let (head, body) = response.into_parts();
        let mut head = Response::from_parts(head, ());
        let ends = body.is_end_stream();
        let length = body.size_hint().exact().filter(|_| !ends);
        complete(head.headers_mut(), length, &self.watch);
        match self.reply.send_response(head, ends) {
            Ok(stream) if !ends => {
                self.answer = Some(Sending {
                    body,
                    stream,
                    piece: None,
                    stall: None,
                });
                Poll::Ready(Continue(()))
            }
            Ok(_) => Poll::Ready(Break(())),
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                self.reply.send_reset(Reason::INTERNAL_ERROR);
                Poll::Ready(Break(()))
            }
        }
    }
}

impl<F, B> Stream<F, B> {
    /// Says once that the body is wanted, to a client that waits for it
    /// (RFC 9110 §10.1.1).
    fn say_continue(&mut self) {
        if self.expected.take_if(|wanted| wanted.get()).is_some() {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            // Fails for a stream that is gone only.
            let _ = self.reply.send_informational(interim);
        }
    }
}

/// Adds what an answer has to have.
fn complete(headers: &mut HeaderMap, length: Option<u64>, watch: &Watch) {
    if !headers.contains_key(DATE) {
        let mut text = Vec::new();
        watch.append_date(&mut text);
        if let Ok(date) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            headers.insert(DATE, date);
        }
    }
    if let Some(length) = length
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if let Some(id) = headers.get_mut(&REQUEST_ID) {
        // In the table of fields to refer to it would only displace others
        // (RFC 7541 §7.1.3 lets us say so).
        id.set_sensitive(true);
    }
}

impl<B> Sending<B>
where
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Ready once all has been handed over, or nobody waits for it, or with what
    /// to tell the client where the body broke off.
    fn poll(&mut self, watch: &Rc<Watch>, context: &mut Context<'_>) -> Poll<Option<Reason>> {
        loop {
            if self.stream.poll_reset(context).is_ready() {
                return Poll::Ready(None);
            }
            if self.piece.is_some() && !ready!(self.poll_room(watch, context)) {
                return Poll::Ready(None);
            }
            if let Some((piece, last)) = self.piece.take() {
                // Fails for a stream that is gone only, here and below.
                if self.stream.send_data(piece, last).is_err() || last {
                    return Poll::Ready(None);
                }
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(reason(&*error.into()))),
                None => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(None);
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    // No more than a claim: what is held against a window that
                    // does not open would be kept from other streams.
                    self.stream.reserve_capacity(usize::from(!data.is_empty()));
                    self.piece = Some((data, last));
                }
                Err(frame) => {
                    self.stream.reserve_capacity(0);
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = self.stream.send_trailers(trailers);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Waits until the next piece may be sent; `false` when it never may. A
    /// client that leaves its window closed is let go, which resets the stream.
    fn poll_room(&mut self, watch: &Rc<Watch>, context: &mut Context<'_>) -> Poll<bool> {
        let is_empty = self.piece.as_ref().is_none_or(|(data, _)| data.is_empty());
        while !is_empty && self.stream.capacity() == 0 {
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
                Poll::Pending => {
                    let stall = self.stall.get_or_insert_with(|| watch.another_deadline());
                    if !stall.is_armed() {
                        stall.arm(watch.write_stall());
                    }
                    return stall.poll_expired(context).map(|()| {
                        self.stream.send_reset(Reason::CANCEL);
                        false
                    });
                }
            }
        }
        if let Some(stall) = &self.stall {
            stall.disarm();
        }
        Poll::Ready(true)
    }
}

/// What a body's failure is to the client: what it was to us, if that was HTTP/2.
fn reason(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error
            .downcast_ref::<h2::Error>()
            .and_then(h2::Error::reason)
        {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
