//! The body of a response, and where its connection goes at its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::exchange::{Exchange, Waiting};
use crate::model::Kind;
use crate::net::http1::{BodyDecoder, Piece};
use crate::upstream::connection::Connection;
use crate::upstream::error::UpstreamError;

/// Streams a response's body; gives the connection back at its clean end, and
/// closes it when dropped before.
pub struct ResponseBody {
    pub(super) exchange: Option<Box<Exchange>>,
    pub(super) decoder: BodyDecoder,
    pub(super) keep_alive: bool,
    pub(super) idle_limit: Option<Duration>,
}

/// A connection after `101 Switching Protocols`.
pub struct Switched {
    pub connection: Connection,
    /// Bytes that followed the head.
    pub leftover: Bytes,
}

impl ResponseBody {
    /// The connection and what followed the head, after a 101.
    pub fn into_switched(mut self) -> Option<Switched> {
        let exchange = *self.exchange.take()?;
        let mut connection = exchange.connection;
        let leftover = connection.buffer.split().freeze();
        connection.deadline.disarm();
        Some(Switched {
            connection,
            leftover,
        })
    }

    /// Gives the connection back (or closes it) once nothing more can come.
    pub(super) fn finish_if_done(&mut self) {
        if !self.decoder.is_done() {
            return;
        }
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        // SMUG-7: reused only after a clean end with nothing left over.
        let clean = self.keep_alive
            && exchange.request.is_complete()
            && !exchange.peer_closed
            && exchange.connection.buffer.is_empty();
        let usual = !exchange.has_grown();
        if clean {
            let Exchange {
                connection,
                pool,
                request,
                ..
            } = *exchange;
            pool.spares().keep_head(request.into_head());
            pool.put_back(connection, usual);
        }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        loop {
            let Some(exchange) = &mut self.exchange else {
                return Poll::Ready(None);
            };
            exchange.poll_send(context)?;
            let piece = self
                .decoder
                .next_piece(&mut exchange.connection.buffer)
                .map_err(|error| exchange.error(Kind::UpstreamProtocol, error.to_string()))?;
            match piece {
                Piece::Data(data) => {
                    self.finish_if_done();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Piece::Trailers(trailers) => {
                    self.finish_if_done();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Piece::End => {
                    self.finish_if_done();
                    return Poll::Ready(None);
                }
                Piece::More => ready!(self.poll_more(context))?,
            }
        }
    }

    /// Reads once; at the peer's close the decoder decides what that means.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(Ok(()));
        };
        match exchange.poll_read(context, self.decoder.exact_remaining()) {
            Poll::Ready(Ok(0)) => Poll::Ready(match self.decoder.finish_at_close() {
                true => Ok(()),
                false => {
                    Err(exchange.error(Kind::UpstreamClosed, "closed within the response body"))
                }
            }),
            Poll::Ready(Ok(_)) => {
                exchange.progressed = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                Poll::Ready(Err(exchange.error(Kind::UpstreamClosed, error.to_string())))
            }
            Poll::Pending => {
                let limit = exchange.limit_of(Waiting::Body, self.idle_limit);
                ready!(exchange.poll_limit(Waiting::Body, limit, context));
                Poll::Ready(Err(exchange.expired(Waiting::Body)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_next(context));
        if matches!(frame, Some(Err(_))) {
            // Never reused, never polled again.
            this.exchange = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none() || self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder
            .exact_remaining()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
