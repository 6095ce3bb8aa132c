//! Answers to calls: ours and the dependency's, and their one ending.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, Version};
use http_body::{Body, Frame, SizeHint};

use crate::drain::Phase;
use crate::forward::{self, AnswerBody, TunnelEnd};
use crate::model::{Failure, Kind, ServiceName, TraceId, TraceIdText};
use crate::net::deadline::Deadlines;
use crate::net::http1::{Answer, Relayed};
use crate::net::stream::Stream;
use crate::net::{ClientBody, Permit, Underway};
use crate::reply::{self, ReplyContext};
use crate::telemetry::record::Record;
use crate::trace::{self, RequestId};
use crate::upstream::UpstreamError;
use crate::upstream::cluster::Pick;
use crate::upstream::h1::Switched;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Methods that may be called with: everything but `CONNECT` and `TRACE`.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What of a request shapes an answer of ours.
pub(super) struct Shape {
    grpc: bool,
    head: bool,
    pub(super) http1: bool,
    /// The connection cannot go on after an answer of ours.
    unread: bool,
}

impl Shape {
    pub(super) fn of(parts: &Parts, body: &ClientBody) -> Self {
        let http1 = parts.version < Version::HTTP_2;
        Self {
            grpc: reply::is_grpc(&parts.headers),
            head: parts.method == Method::HEAD,
            http1,
            unread: http1 && !body.is_end_stream(),
        }
    }
}

/// Where a call leaves a protocol switch for its connection to run.
pub type CallTunnelSlot = Rc<RefCell<Option<CallTunnel>>>;

/// What happens to the app's connection once the answer is out.
pub struct CallEnding {
    /// Dropped when the last byte was handed over.
    pub underway: Underway,
    /// This is the last response of the connection.
    pub close: bool,
    pub tunnel: CallTunnelSlot,
    /// Given back at the end of the body or tunnel.
    pub in_flight: Permit,
}

/// A switch both sides have agreed to.
pub struct CallTunnel {
    switched: Box<Switched>,
    record: Box<Record>,
    /// Keeps the address's count of requests in flight.
    _pick: Option<Pick>,
    _in_flight: Permit,
    idle: Duration,
}

impl CallTunnel {
    /// Copies until both sides are done, idle for too long, or drained.
    pub async fn run(
        self,
        app: Stream,
        leftover: Bytes,
        deadlines: &Deadlines,
        phase: &Cell<Phase>,
    ) {
        let Self {
            switched,
            mut record,
            _pick: pick,
            _in_flight: in_flight,
            idle,
        } = self;
        let end = forward::tunnel(app, leftover, *switched, idle, deadlines, phase).await;
        if let TunnelEnd::Broken(error) = end {
            record.tunnel_broke(&error);
        }
        record.completed();
        drop((pick, in_flight));
    }
}

/// The answer to a call that failed. `next_hop` names whom it was for, so that
/// a caller behind the app can tell that it was not the app's own sidecar that
/// could not be reached (RFC 9209 §2.1.2).
pub(super) fn refuse(
    service: Option<&ServiceName>,
    next_hop: Option<&str>,
    failure: Failure,
    shape: &Shape,
    record: Option<&mut Record>,
    id: &RequestId,
) -> Response<AnswerBody> {
    let mut context = ReplyContext::door(id.as_str());
    context.service = service;
    context.allow = METHODS;
    context.grpc = shape.grpc;
    context.head = shape.head;
    let trace_id = record.as_ref().and_then(|record| record.trace_id);
    let trace_id = trace_id.map(TraceId::text);
    context.trace_id = trace_id.as_ref().map(TraceIdText::as_str);
    let mut response = reply::problem(failure.kind, &context).map(AnswerBody::Whole);
    let headers = response.headers_mut();
    if let Some(next_hop) = next_hop {
        let status = reply::proxy_status(service, failure.kind);
        if let Ok(status) = HeaderValue::from_str(&format!("{status}; next-hop=\"{next_hop}\"")) {
            headers.insert(PROXY_STATUS, status);
        }
    }
    if shape.unread || (shape.http1 && failure.kind == Kind::BadRequest) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(record) = record {
        record.failed(reply::recorded(failure));
    }
    response
}

/// What a call gathered on its way, besides its record.
#[derive(Default)]
pub(super) struct Passage {
    pub(super) pick: Option<Pick>,
    pub(super) switched: Option<Box<Switched>>,
    /// Where tracing is on.
    pub(super) trace: Option<trace::Context>,
    /// How long a tunnel may be silent.
    pub(super) idle: Duration,
}

/// Ties the record to the end of the body.
pub(super) fn finish(
    mut response: Response<AnswerBody>,
    mut record: Option<Box<Record>>,
    passage: Passage,
    http1: bool,
    id: &RequestId,
    ending: CallEnding,
) -> Response<CallBody> {
    let Passage {
        mut pick,
        switched,
        trace: _,
        idle,
    } = passage;
    if let Some(record) = &mut record {
        record.answered(response.status().as_u16());
    }
    let mut in_flight = Some(ending.in_flight);
    let closes = ending.close && http1 && switched.is_none();
    forward::sign(&mut response, id, closes);
    if let Some(switched) = switched
        && let (Some(record), Some(in_flight)) = (record.take(), in_flight.take())
    {
        ending.tunnel.replace(Some(CallTunnel {
            switched,
            record,
            _pick: pick.take(),
            _in_flight: in_flight,
            idle,
        }));
    }
    response.map(|body| CallBody {
        body,
        record,
        pick,
        _in_flight: in_flight,
        _underway: ending.underway,
    })
}

/// A response body whose end, failure or disappearance is recorded.
pub struct CallBody {
    body: AnswerBody,
    /// `None` where a tunnel has taken it.
    record: Option<Box<Record>>,
    pick: Option<Pick>,
    /// `None` where a tunnel has taken it.
    _in_flight: Option<Permit>,
    _underway: Underway,
}

impl CallBody {
    fn ended(&mut self) {
        if let Some(record) = &mut self.record {
            record.completed();
        }
        if let Some(pick) = self.pick.take() {
            pick.completed();
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        let Some(record) = &mut this.record else {
            return frame;
        };
        match &frame {
            Poll::Ready(Some(Err(error))) => {
                record.failed(reply::recorded(Failure::from(error)));
                if let (Some(pick), true) = (this.pick.take(), error.is_theirs()) {
                    pick.broke_off();
                }
            }
            Poll::Ready(None) => this.ended(),
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

impl Answer for CallBody {
    fn take_relayed(&mut self) -> Option<Box<Relayed>> {
        self.body.take_relayed()
    }
}

impl Drop for CallBody {
    fn drop(&mut self) {
        // A body is not polled for its end once it says that it is there.
        if self.body.is_end_stream() {
            self.ended();
        }
    }
}
