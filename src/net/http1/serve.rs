//! One connection: request after request, each answered before the next is
//! looked at.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Frame;

use super::ParserLimits;
use super::Spares;
use super::answer::{self, Asked, Length, Sending};
use super::body::Http1Body;
use super::head::{Head, Refused};
use super::relayed::{Answer, Relayed};
use super::wire::{HeadError, Wire};
use crate::drain::Phase;
use crate::net::client_body::{ClientBody, ClientRequest};
use crate::net::client_io::ClientIo;
use crate::net::connection::End;
use crate::net::stream::Stream;
use crate::net::watch::Watch;

/// A body is not asked for more while this much waits to be written.
const STAGED_BYTES: usize = 64 * 1024;

/// Serves HTTP/1.1 on a stream until the connection ends; gives the stream back
/// with bytes that were read too far.
///
/// Heads are read into those of `spares`. `watch` keeps the limits, `phase` says when to drain; whoever changes it
/// wakes all connections. A request whose client goes away is dropped.
pub async fn serve_http1<F, R, B>(
    io: ClientIo,
    watch: &Rc<Watch>,
    (limits, spares): (ParserLimits, &Spares),
    phase: &Cell<Phase>,
    service: F,
) -> (End, Stream, Bytes)
where
    F: Fn(ClientRequest) -> R,
    R: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (stream, prefix) = io.into_parts();
    let wire = Rc::new(RefCell::new(Wire::new(stream, prefix, Rc::clone(watch))));
    let end = {
        // Here for all requests of the connection.
        let mut place = std::pin::pin!(None);
        let mut talk = Talk {
            wire: &wire,
            watch,
            limits,
            spares,
            phase,
            service,
            stage: Stage::Head,
            asked: Asked::NOTHING,
            keep_alive: true,
            ends: false,
            began: false,
        };
        std::future::poll_fn(|context| talk.poll(place.as_mut(), context)).await
    };
    let wire = Rc::into_inner(wire).expect("bodies hold it weakly");
    let (stream, leftover) = wire.into_inner().into_parts();
    (end, stream, leftover)
}

/// Where a connection stands.
enum Stage<B> {
    /// Between requests, or within a head.
    Head,
    /// A request is being served.
    Request,
    /// Its answer is being sent.
    Answer(B, Sending),
    /// What is staged has to go out before the next request is looked at.
    Flush,
    /// The same, and then the connection ends so.
    Last(Ending),
}

/// How a connection ends once all is written.
#[derive(Clone, Copy)]
enum Ending {
    Finished,
    Agreed,
    Refused(u16),
}

struct Talk<'a, F, B> {
    wire: &'a Rc<RefCell<Wire>>,
    watch: &'a Watch,
    limits: ParserLimits,
    spares: &'a Spares,
    phase: &'a Cell<Phase>,
    service: F,
    stage: Stage<B>,
    /// The request being served.
    asked: Asked,
    keep_alive: bool,
    /// The client sends nothing after it.
    ends: bool,
    /// Something of the answer's body was staged.
    began: bool,
}

impl<F, R, B> Talk<'_, F, B>
where
    F: Fn(ClientRequest) -> R,
    R: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll(&mut self, mut place: Pin<&mut Option<R>>, context: &mut Context<'_>) -> Poll<End> {
        if self.phase.get() == Phase::Cut {
            return Poll::Ready(End::Cut);
        }
        loop {
            let step = match &self.stage {
                Stage::Head => self.poll_head(place.as_mut(), context),
                Stage::Request => self.poll_request(place.as_mut(), context),
                Stage::Answer(..) => self.poll_answer(context),
                Stage::Flush | Stage::Last(_) => self.poll_flush(context),
            };
            match step {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => return self.watch.poll_stalled(context).map(End::Stalled),
            }
        }
    }

    /// Takes up the next request.
    fn poll_head(
        &mut self,
        mut place: Pin<&mut Option<R>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let mut wire = self.wire.borrow_mut();
        let head = match wire.poll_head(self.limits, self.spares, context) {
            Poll::Ready(Ok(Some(head))) => head,
            Poll::Ready(Ok(None)) => return Poll::Ready(Err(End::Agreed)),
            Poll::Ready(Err(HeadError::Refused(refused))) => {
                drop(wire);
                self.refuse(refused);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(HeadError::Broken(error))) => return Poll::Ready(Err(broken(error))),
            // What has begun to come is served first.
            Poll::Pending if self.is_closing() && !wire.has_input() && !self.watch.is_in_head() => {
                return Poll::Ready(Err(End::Finished));
            }
            Poll::Pending => return Poll::Pending,
        };
        let bodiless = wire.decoder().is_done();
        drop(wire);
        let Head {
            parts,
            keep_alive,
            ends,
            trailers,
            ..
        } = head;
        self.keep_alive = keep_alive;
        self.ends = ends;
        self.asked = Asked {
            head: parts.method == Method::HEAD,
            version: parts.version,
            trailers,
        };
        let body = match bodiless {
            true => ClientBody::Empty,
            false => ClientBody::Http1(Http1Body::new(self.wire)),
        };
        place.set(Some((self.service)(ClientRequest { head: parts, body })));
        self.stage = Stage::Request;
        Poll::Ready(Ok(()))
    }

    fn is_closing(&self) -> bool {
        self.phase.get() >= Phase::Closing
    }

    /// A bare answer, as there is nothing known to say (SPEC §2.3).
    fn refuse(&mut self, Refused(status): Refused) {
        let code = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let answer = (code, &HeaderMap::new(), None);
        self.write_head(Asked::NOTHING, answer, Length::None, false);
        self.stage = Stage::Last(Ending::Refused(status));
    }

    fn write_head(
        &self,
        asked: Asked,
        answer: (StatusCode, &HeaderMap, Option<&Relayed>),
        length: Length,
        keep_alive: bool,
    ) -> answer::Written {
        let mut wire = self.wire.borrow_mut();
        let date = |out: &mut Vec<u8>| self.watch.append_date(out);
        answer::write_head(wire.head_room(), asked, answer, length, keep_alive, date)
    }

    fn poll_request(
        &mut self,
        mut place: Pin<&mut Option<R>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let Some(request) = place.as_mut().as_pin_mut() else {
            return Poll::Ready(Err(End::Finished));
        };
        let Poll::Ready(mut response) = request.poll(context) else {
            if let Poll::Ready(Err(error)) = self.wire.borrow_mut().poll_continue(context) {
                return Poll::Ready(Err(broken(error)));
            }
            return self.poll_gone(context);
        };
        place.set(None);
        let length = match (
            response.body().is_end_stream(),
            response.body().size_hint().exact(),
        ) {
            (true, _) => Length::None,
            (false, Some(length)) => Length::Known(length),
            (false, None) => Length::Unknown,
        };
        let keep_alive = self.keep_alive && !self.is_closing();
        let relayed = response.body_mut().take_relayed();
        let head = (response.status(), response.headers(), relayed.as_deref());
        let written = self.write_head(self.asked, head, length, keep_alive);
        self.keep_alive = written.keep_alive;
        self.began = false;
        // After a switch both go on.
        self.ends &= response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if written.sending == Sending::Nothing {
            drop(response);
            self.stage = self.after_answer();
        } else {
            self.stage = Stage::Answer(response.into_body(), written.sending);
        }
        Poll::Ready(Ok(()))
    }

    /// A client that has gone needs no answer.
    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let gone = self.wire.borrow_mut().poll_gone(context);
        gone.map(|()| Err(broken("the client left before the end of the answer")))
    }

    /// Sends what there is of the body.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Stage::Answer(body, sending) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        let mut wire = self.wire.borrow_mut();
        loop {
            if wire.staged_bytes() >= STAGED_BYTES {
                match wire.poll_flush(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // It may read from the connection itself.
            drop(wire);
            let frame = Pin::new(&mut *body).poll_frame(context);
            wire = self.wire.borrow_mut();
            let over = match frame {
                Poll::Ready(Some(Ok(frame))) => {
                    self.began = true;
                    stage_frame(frame, sending, &mut wire) || body.is_end_stream()
                }
                Poll::Ready(Some(Err(error))) => {
                    // What came before it is the client's. A head alone is
                    // not said: half of an answer that nobody began.
                    if self.began || !wire.is_unsent() {
                        let _ = wire.poll_flush(context);
                    }
                    return Poll::Ready(Err(broken(error)));
                }
                Poll::Ready(None) => true,
                Poll::Pending => break,
            };
            if over {
                if let Err(end) = finish(sending, &mut wire) {
                    let _ = wire.poll_flush(context);
                    return Poll::Ready(Err(end));
                }
                drop(wire);
                self.stage = self.after_answer();
                return Poll::Ready(Ok(()));
            }
        }
        if let Poll::Ready(Err(error)) = wire.poll_flush(context) {
            return Poll::Ready(Err(broken(error)));
        }
        drop(wire);
        self.poll_gone(context)
    }

    /// What comes once an answer is staged.
    fn after_answer(&self) -> Stage<B> {
        // The rest of a body that has come already is nobody's; one that has
        // not ends the connection.
        let mut wire = self.wire.borrow_mut();
        let whole = wire.skip_body().unwrap_or(false);
        if whole && self.keep_alive {
            Stage::Flush
        } else if whole && self.ends && !wire.has_input() {
            Stage::Last(Ending::Agreed)
        } else {
            Stage::Last(Ending::Finished)
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let flushed = self.wire.borrow_mut().poll_flush(context);
        match flushed {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(error))),
            Poll::Pending => return Poll::Pending,
        }
        match self.stage {
            Stage::Last(Ending::Finished) => return Poll::Ready(Err(End::Finished)),
            Stage::Last(Ending::Agreed) => return Poll::Ready(Err(End::Agreed)),
            Stage::Last(Ending::Refused(status)) => return Poll::Ready(Err(End::Refused(status))),
            _ => self.stage = Stage::Head,
        }
        if self.wire.borrow().has_input() {
            // The next request came with this one: its time has begun. First
            // it is others' turn, and the reactor's.
            self.watch.bytes_came();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> End {
    End::Broken(error.into())
}

/// Stages a frame of an answer's body; whether it was the last one.
fn stage_frame(frame: Frame<Bytes>, sending: &mut Sending, wire: &mut Wire) -> bool {
    let mut data = match frame.into_data() {
        Ok(data) => data,
        Err(frame) => {
            if let Sending::Chunked(announced) = sending {
                let mut chunk = Vec::new();
                answer::write_last_chunk(frame.trailers_ref(), announced, &mut chunk);
                wire.stage_slice(&chunk);
                *sending = Sending::Nothing;
            }
            return true;
        }
    };
    match sending {
        Sending::Nothing => return true,
        // No byte more than was announced (RFC 9112 §6.3).
        Sending::Length(left) => {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
            wire.stage(data);
        }
        Sending::Chunked(_) if data.is_empty() => {}
        Sending::Chunked(_) => {
            let mut line = Vec::new();
            answer::write_size_line(data.len(), &mut line);
            wire.stage_slice(&line);
            wire.stage(data);
            wire.stage_slice(b"\r\n");
        }
        Sending::UntilClose => wire.stage(data),
    }
    false
}

/// The body has ended.
fn finish(sending: &mut Sending, wire: &mut Wire) -> Result<(), End> {
    match sending {
        Sending::Length(1..) => return Err(broken("an answer shorter than it was announced")),
        Sending::Chunked(_) => wire.stage_slice(b"0\r\n\r\n"),
        Sending::Length(0) | Sending::Nothing | Sending::UntilClose => {}
    }
    *sending = Sending::Nothing;
    Ok(())
}
