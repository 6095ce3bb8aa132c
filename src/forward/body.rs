//! The body of a response on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::hop::{Names, strip_trailers};
use crate::net::http1::{Answer, Relayed};
use crate::upstream::{UpstreamBody, UpstreamError};

/// An answer: ours, or the upstream's streamed.
pub enum AnswerBody {
    /// Made here; taken when it is handed over.
    Whole(Bytes),
    Upstream {
        body: UpstreamBody,
        /// Named by the response's `Connection`: not to come as trailers.
        named: Names,
        /// What its head says, where that stayed as it came.
        relayed: Option<Box<Relayed>>,
    },
}

impl Answer for AnswerBody {
    fn take_relayed(&mut self) -> Option<Box<Relayed>> {
        match self {
            Self::Whole(_) => None,
            Self::Upstream { relayed, .. } => relayed.take(),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream { body, named, .. } => {
                let mut frame = ready!(Pin::new(body).poll_frame(context));
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    for name in &*named {
                        trailers.remove(name);
                    }
                    strip_trailers(trailers);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream { body, .. } => body.size_hint(),
        }
    }
}
