//! The body of a response, with the limit on its silence.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::StreamCount;
use super::classify::{classify, error_text};
use super::upload::Upload;
use crate::model::Kind;
use crate::net::deadline::Deadline;
use crate::upstream::error::UpstreamError;

/// Streams a response's body; dropping it resets the stream (RFC 9113 §5.4.2).
pub struct H2ResponseBody {
    incoming: Incoming,
    deadline: Deadline,
    idle_limit: Option<Duration>,
    address: Arc<str>,
    upload: Rc<Upload>,
    _stream: StreamCount,
}

impl Drop for H2ResponseBody {
    fn drop(&mut self) {
        // h2 resets a stream only when both halves are let go.
        drop(self.upload.give_up());
    }
}

impl H2ResponseBody {
    /// `deadline` is disarmed; without an `idle_limit` silence is no failure.
    pub(super) fn new(
        incoming: Incoming,
        deadline: Deadline,
        idle_limit: Option<Duration>,
        address: Arc<str>,
        upload: Rc<Upload>,
        stream: StreamCount,
    ) -> Self {
        Self {
            incoming,
            deadline,
            idle_limit,
            address,
            upload,
            _stream: stream,
        }
    }
}

impl Body for H2ResponseBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let fail = |kind: Kind, detail: String, address: &Arc<str>| UpstreamError {
            kind,
            detail,
            address: Some(Arc::clone(address)),
            reused: false,
            connect: None,
            sent: true,
            received: true,
        };
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(frame) => {
                self.deadline.disarm();
                Poll::Ready(frame.map(|frame| {
                    frame.map_err(|error| {
                        let (kind, _) = classify(&error);
                        fail(kind, error_text(&error), &self.address)
                    })
                }))
            }
            Poll::Pending => {
                let Some(limit) = self.idle_limit else {
                    return Poll::Pending;
                };
                if !self.deadline.is_armed() {
                    self.deadline.arm(limit);
                }
                self.deadline.poll_expired(context).map(|()| {
                    let detail = "the response body stalled".to_owned();
                    Some(Err(fail(Kind::ResponseTimeout, detail, &self.address)))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
