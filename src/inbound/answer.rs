//! Answers: ours and the app's, and their one ending.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{Arrival, streamed, whole};
use crate::auth::Denied;
use crate::forward::{self, AnswerBody, Client};
use crate::health::{Moment, Scope, View, shows_details};
use crate::model::{Failure, ServiceName};
use crate::net::{Permit, Watch};
use crate::reply::{self, ReplyContext};
use crate::snapshot::Ready;
use crate::telemetry::record::{Record, RecordedFailure};
use crate::trace::{REQUEST_ID, RequestId};
use crate::upstream::UpstreamError;
use crate::upstream::h1::UpstreamResponse;

/// Why a request is not forwarded, or came back without an answer.
pub(super) struct Refusal {
    failure: Failure,
    /// A hook's own answer.
    relay: Option<Box<Response<Bytes>>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            relay: None,
        }
    }
}

impl Refusal {
    pub(super) fn denied(denied: Denied) -> Self {
        let reason = format!("{}: {}", denied.strategy, denied.reason);
        Self {
            failure: Failure::because(denied.kind, reason),
            relay: denied.relay,
        }
    }
}

/// What of a request shapes an answer of ours.
pub(super) struct Shape {
    grpc: bool,
    head: bool,
    /// The body was not read to its end, so the connection cannot go on.
    unread: bool,
}

impl Shape {
    pub(super) fn of(parts: &Parts, body: &Incoming) -> Self {
        Self {
            grpc: reply::is_grpc(&parts.headers),
            head: parts.method == Method::HEAD,
            unread: !body.is_end_stream() && parts.version < Version::HTTP_2,
        }
    }
}

/// What happens to the connection once the answer is out.
pub struct Ending {
    /// Told when the last byte was handed over.
    pub watch: Rc<Watch>,
    /// This is the last response of the connection (drain, changed settings).
    pub close: bool,
}

/// The answer to a refused request.
pub(super) fn refuse(
    service: &ServiceName,
    refusal: Refusal,
    shape: &Shape,
    record: &mut Record,
) -> Response<AnswerBody> {
    let Refusal { failure, relay } = refusal;
    let facts = reply::facts(failure.kind);
    let mut response = match relay {
        Some(answer) => whole(*answer),
        None => {
            let request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok());
            let mut context = ReplyContext::new(service, request_id.unwrap_or_default());
            context.trace_id = record.trace_id.as_deref();
            context.grpc = shape.grpc;
            context.head = shape.head;
            whole(reply::problem(failure.kind, &context))
        }
    };
    if shape.unread {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    record.failed(RecordedFailure {
        cause: facts.cause,
        level: facts.level,
        status: facts.status,
        detail: failure.detail,
    });
    response
}

/// Paths that the sidecar answers itself, before authentication.
pub(super) fn own_path(ready: &Ready, arrival: &Arrival) -> Option<Response<AnswerBody>> {
    let path = ready.spec.health.path.as_deref()?;
    let parts = &arrival.parts;
    let is_health = parts.uri.path() == path && matches!(parts.method, Method::GET | Method::HEAD);
    is_health.then(|| whole(health(ready, arrival)))
}

/// The service's health from its monitors' last results (SPEC §5).
fn health(ready: &Ready, arrival: &Arrival) -> Response<Bytes> {
    let Client {
        address, forwarded, ..
    } = arrival.client;
    let scope = match arrival.parts.uri.query() {
        Some("scope=self") => Scope::Own,
        _ => Scope::All,
    };
    let view = View {
        scope,
        details: shows_details(ready.spec.health.details, address, forwarded),
        draining: false,
    };
    let report = ready.health.report(view, Moment::now());
    let mut response = Response::new(Bytes::from(report.json()));
    if let Ok(status) = StatusCode::from_u16(report.http_status) {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The app's answer, cleaned of what belongs to its connection.
pub(super) fn relay(mut response: UpstreamResponse) -> Response<AnswerBody> {
    forward::strip_response(&mut response.headers);
    streamed(response)
}

/// Ties the record to the end of the body.
pub(super) fn finish(
    mut response: Response<AnswerBody>,
    mut record: Record,
    permit: Option<Permit>,
    id: &RequestId,
    ending: Ending,
) -> Response<RecordedBody> {
    record.answered(response.status().as_u16());
    response
        .headers_mut()
        .insert(REQUEST_ID, id.value().clone());
    if ending.close {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| RecordedBody {
        body,
        record,
        _permit: permit,
        watch: ending.watch,
    })
}

/// A response body whose end, failure or disappearance is recorded.
pub struct RecordedBody {
    body: AnswerBody,
    record: Record,
    /// The request's place among those in flight.
    _permit: Option<Permit>,
    watch: Rc<Watch>,
}

impl Body for RecordedBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Err(error))) => {
                let facts = reply::facts(error.kind);
                this.record.failed(RecordedFailure {
                    cause: facts.cause,
                    level: facts.level,
                    status: facts.status,
                    detail: error.detail.clone().into(),
                });
            }
            Poll::Ready(None) => this.record.completed(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // hyper does not poll a body for its end once it says that it is there.
        if self.body.is_end_stream() {
            self.record.completed();
        }
        self.watch.request_ended();
    }
}
