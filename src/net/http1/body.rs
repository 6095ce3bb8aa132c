//! The body of a request.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::decode::Piece;
use super::wire::Wire;
use crate::net::client_body::ClientBodyError;

/// Reads the body of one request from its connection as it is polled, which is
/// the back-pressure. When the connection has gone on without it, it fails.
pub struct Http1Body {
    /// The connection's own.
    wire: Weak<RefCell<Wire>>,
    turn: u32,
}

impl Http1Body {
    /// Of the request whose head was taken last.
    pub(super) fn new(wire: &Rc<RefCell<Wire>>) -> Self {
        Self {
            turn: wire.borrow().turn(),
            wire: Rc::downgrade(wire),
        }
    }
}

impl Http1Body {
    /// The connection, while it serves this request.
    fn with_wire<T>(&self, look: impl FnOnce(&mut Wire) -> T) -> Option<T> {
        let wire = self.wire.upgrade()?;
        let mut wire = wire.borrow_mut();
        (wire.turn() == self.turn).then(|| look(&mut wire))
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let Some(piece) = self.with_wire(|wire| wire.poll_piece(context)) else {
            return Poll::Ready(Some(Err(ClientBodyError::Abandoned)));
        };
        piece.map(|piece| match piece {
            Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Piece::End | Piece::More) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with_wire(|wire| wire.decoder().is_done())
            .unwrap_or_default()
    }

    fn size_hint(&self) -> SizeHint {
        self.with_wire(|wire| wire.decoder().exact_remaining())
            .flatten()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
