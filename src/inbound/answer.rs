//! Answers: ours and the app's, and their one ending.

use std::rc::Rc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Method, Response, Version};
use http_body::Body;

use super::{WorkerParts, whole};
use crate::auth::Denied;
use crate::forward::{self, AnswerBody, Seen};
use crate::model::{Failure, Kind, ServiceName, TraceId, TraceIdText};
use crate::net::{ClientBody, Permit, Underway};
use crate::reply::{self, ReplyContext};
use crate::telemetry::record::Record;
use crate::trace::{self, RequestId};
use crate::upstream::h1::Switched;

use super::body::{Peeked, RecordedBody};
use super::tunnel::{PendingTunnel, TunnelSlot};

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
    http1: bool,
    /// The body was not read to its end, so the connection cannot go on.
    unread: bool,
}

impl Shape {
    pub(super) fn of(parts: &Parts, seen: Seen, body: &ClientBody) -> Self {
        let http1 = parts.version < Version::HTTP_2;
        Self {
            grpc: seen.has(Seen::CONTENT_TYPE) && reply::is_grpc(&parts.headers),
            head: parts.method == Method::HEAD,
            http1,
            unread: http1 && !body.is_end_stream(),
        }
    }
}

/// What a request gathered on its way, besides its record.
pub(super) struct Passage {
    pub(super) parts: Rc<WorkerParts>,
    /// The place among the requests in flight.
    pub(super) permit: Option<Permit>,
    /// Where tracing is on.
    pub(super) trace: Option<trace::Context>,
    /// The app switched protocols.
    pub(super) switched: Option<Box<Switched>>,
    pub(super) peeked: Peeked,
    /// How long a tunnel may be silent.
    pub(super) idle: std::time::Duration,
    /// The client speaks HTTP/1, where a response can announce the close.
    pub(super) http1: bool,
    /// A test wants the answer's body to panic.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) faulty_body: bool,
}

/// What happens to the connection once the answer is out.
pub struct Ending {
    /// Dropped when the last byte was handed over.
    pub underway: Underway,
    /// This is the last response of the connection (drain, changed settings).
    pub close: bool,
    /// Where a protocol switch leaves what comes after it.
    pub tunnel: TunnelSlot,
}

/// The answer to a refused request.
pub(super) fn refuse(
    service: &ServiceName,
    refusal: Refusal,
    shape: &Shape,
    record: &mut Record,
) -> Response<AnswerBody> {
    let Refusal { failure, relay } = refusal;
    let mut response = match relay {
        Some(answer) if !shape.grpc => whole(*answer),
        _ => {
            let request_id = record.request_id.as_ref().map(RequestId::as_str);
            let mut context = ReplyContext::new(service, request_id.unwrap_or_default());
            let trace_id = record.trace_id.map(TraceId::text);
            context.trace_id = trace_id.as_ref().map(TraceIdText::as_str);
            context.grpc = shape.grpc;
            context.head = shape.head;
            // 499 is for the log only: who closed just its half still reads, and
            // sent less than it announced (RFC 9112 §8).
            let told = match failure.kind {
                Kind::ClientClosed => Kind::BadRequest,
                kind => kind,
            };
            whole(reply::problem(told, &context))
        }
    };
    // After a request that somebody may read differently nothing more is read.
    let doubtful = shape.http1 && failure.kind == Kind::BadRequest;
    if shape.unread || doubtful {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    record.failed(reply::recorded(failure));
    response
}

/// Ties the record to the end of the body.
pub(super) fn finish(
    mut response: Response<AnswerBody>,
    mut record: Box<Record>,
    passage: Passage,
    id: &RequestId,
    ending: Ending,
) -> Response<RecordedBody> {
    let Passage {
        parts,
        permit,
        trace: _,
        switched,
        peeked,
        http1,
        idle,
        #[cfg(any(test, feature = "fault-injection"))]
        faulty_body,
    } = passage;
    record.answered(response.status().as_u16());
    let closes = ending.close && http1 && switched.is_none();
    forward::sign(&mut response, id, closes);
    if let Some(switched) = switched {
        let pending = PendingTunnel {
            switched,
            record,
            permit,
            idle,
        };
        ending.tunnel.replace(Some(pending));
        let underway = ending.underway;
        return response.map(|body| RecordedBody {
            body,
            record: None,
            _permit: None,
            _underway: underway,
            parts,
            peeked: Peeked::Nothing,
            #[cfg(any(test, feature = "fault-injection"))]
            faulty: false,
        });
    }
    response.map(|body| RecordedBody {
        body,
        record: Some(record),
        _permit: permit,
        _underway: ending.underway,
        parts,
        peeked,
        #[cfg(any(test, feature = "fault-injection"))]
        faulty: faulty_body,
    })
}
