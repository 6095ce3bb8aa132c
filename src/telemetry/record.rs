//! The record of one request: metrics and log lines, exactly once, when its
//! body ends, fails or is dropped.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};

use super::log::{AccessLine, ErrorLine};
use super::metrics::{PeerMetrics, ServiceShard};
use super::recorder::{RecordedFailure, Recorder};
use super::spans::{Host, HttpWork, Path, Span, SpanKind, Work};
use crate::model::{Cause, RequestId, SpanIds, TraceId, TraceIdText};

/// Status logged and counted for a client that left before any answer; nobody
/// reads it.
const CLIENT_CLOSED: u16 = 499;

/// What a sampled request's record needs to leave a span.
pub struct SpanSeed {
    pub ids: SpanIds,
    /// As the client spoke it.
    pub version: Version,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Who was asked.
    pub host: Option<Host>,
}

/// A request from its complete head to the last byte of its answer.
pub struct Record {
    recorder: Rc<Recorder>,
    started: Instant,
    upstream_started: Option<Instant>,
    upstream_ended: Option<Instant>,
    complete: bool,
    status: Option<u16>,
    failure: Option<RecordedFailure>,
    pub method: Method,
    pub target: Option<PathAndQuery>,
    /// The client, as found through trusted proxies.
    pub client: IpAddr,
    /// `None` until it is known.
    pub request_id: Option<RequestId>,
    pub trace_id: Option<TraceId>,
    /// `x-trace-id` where it is another text; a safe id; anything else must not get here.
    pub house_trace_id: Option<HeaderValue>,
    /// Set while the request is sampled and spans are wanted.
    span: Option<Box<SpanSeed>>,
    /// Strategy and subject of the authenticated caller.
    pub identity: Option<(&'static str, Option<Arc<str>>)>,
    pub upstream: UpstreamFacts,
    about_us: bool,
}

/// What is known of the upstream that served (or failed) a request.
#[derive(Debug, Default)]
pub struct UpstreamFacts {
    pub address: Option<Arc<str>>,
    /// 1 for the first; 0 when none was made.
    pub attempt: u32,
    pub reused: bool,
    /// How long connecting took or was tried, where it was.
    pub connect: Option<Duration>,
}

impl Record {
    /// Begins with the complete head. On the heap: it is handed on to the end
    /// of the answer.
    pub fn begin(recorder: Rc<Recorder>, method: Method, client: IpAddr) -> Box<Self> {
        recorder.shard.in_flight(recorder.direction()).inc();
        Box::new(Self {
            recorder,
            started: Instant::now(),
            upstream_started: None,
            upstream_ended: None,
            complete: false,
            status: None,
            failure: None,
            method,
            target: None,
            client,
            request_id: None,
            trace_id: None,
            house_trace_id: None,
            span: None,
            identity: None,
            upstream: UpstreamFacts::default(),
            about_us: false,
        })
    }

    /// The cells of this worker.
    pub fn shard(&self) -> &ServiceShard {
        &self.recorder.shard
    }

    /// Whether a sampled request is to leave a span: somebody wants it.
    pub fn wants_span(&self) -> bool {
        self.recorder.spans.wants_spans()
    }

    /// The request leaves a span when it ends, or, with `None`, does not.
    pub fn leave_span(&mut self, seed: Option<SpanSeed>) {
        self.span = seed.map(Box::new);
    }

    /// Who was asked in the end, where there was a choice.
    pub fn asked_of(&mut self, scheme: &'static str, host: impl FnOnce() -> Host) {
        if let Some(seed) = &mut self.span {
            seed.scheme = scheme;
            seed.host = Some(host());
        }
    }

    /// Another operation of the same request; kept if the request leaves a span.
    pub fn add_span(&self, span: Span) {
        if self.span.is_some() {
            self.recorder.spans.push(span);
        }
    }

    /// The upstream is asked from now on.
    pub fn upstream_begins(&mut self) {
        self.upstream_started = Some(Instant::now());
    }

    /// The tunnel that the request became broke off.
    pub fn tunnel_broke(&self, error: &dyn Display) {
        let request_id = self.request_id.as_ref().map(RequestId::as_str);
        let trace_id = self.trace_id.map(tracing::field::display);
        tracing::debug!(request_id, trace_id, %error, "a tunnel broke off");
    }

    /// An answer with this status goes out.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// The request asked for the state of the sidecar or its service: whatever
    /// the status, it is no error, and what turned has a line of its own.
    pub fn asks_about_us(&mut self) {
        self.about_us = true;
    }

    /// The sidecar answers itself, or breaks the answer off; the first failure
    /// is the one that counts.
    pub fn failed(&mut self, failure: RecordedFailure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }

    /// The last byte of the answer was handed over.
    pub fn completed(&mut self) {
        self.complete = true;
        if self.upstream_started.is_some() && self.upstream_ended.is_none() {
            self.upstream_ended = Some(Instant::now());
        }
    }

    fn push_span(&self, seed: SpanSeed, ended: Instant) {
        let SpanSeed {
            ids,
            version,
            scheme,
            host,
        } = seed;
        let recorder = &self.recorder;
        let peer = recorder.peer.as_deref();
        let (kind, client, dialled) = match peer {
            None => (SpanKind::Server, Some(self.client), None),
            Some(_) => (SpanKind::Client, None, self.upstream.address.clone()),
        };
        let work = HttpWork {
            method: self.method.clone(),
            path: Path::of(self.target.as_ref()),
            version: Some(version),
            scheme,
            host,
            status: self.status,
            cause: self.failure.as_ref().map(|failure| failure.cause),
            client,
            dialled,
            peer: peer.map(PeerMetrics::shared_name),
            resends: match peer {
                Some(_) => self.upstream.attempt.saturating_sub(1),
                None => 0,
            },
        };
        recorder.spans.push(Span {
            resource: Arc::clone(&recorder.resource),
            ids,
            kind,
            started: self.started,
            ended,
            work: Work::Http(Box::new(work)),
        });
    }

    fn log(&self, status: u16, total: Duration, upstream: Duration) {
        let Self {
            recorder,
            failure,
            request_id,
            trace_id,
            house_trace_id,
            upstream: facts,
            ..
        } = self;
        // A failure that has its own line gets no second one, unless every
        // request gets one.
        let told = failure
            .as_ref()
            .is_some_and(|failure| recorder.log.shows(failure.level));
        let wanted = match told || self.about_us {
            true => recorder.log.wants(200, false),
            false => recorder.log.wants(status, failure.is_some()),
        };
        if failure.is_none() && !wanted {
            return;
        }
        let request_id = request_id.as_ref().map_or("", RequestId::as_str);
        let trace_id = trace_id.map(TraceId::text);
        let trace_id = trace_id.as_ref().map(TraceIdText::as_str);
        let house_trace_id = house_trace_id.as_ref().and_then(|id| id.to_str().ok());
        let dependency = recorder.peer.as_deref().map(PeerMetrics::name);
        if let Some(failure) = failure {
            recorder.log.error(&ErrorLine {
                level: failure.level,
                service: &recorder.service,
                cause: failure.cause,
                status: failure.status,
                detail: &failure.detail,
                dependency,
                upstream_address: facts.address.as_deref(),
                attempt: facts.attempt,
                reused: facts.reused,
                connect: facts.connect,
                wait: self.upstream_started.map(|_| upstream),
                total,
                generation: recorder.generation,
                request_id,
                trace_id,
                house_trace_id,
                peer: Some(self.client),
            });
        }
        if wanted {
            let identity = self.identity.as_ref();
            recorder.log.access(&AccessLine {
                service: &recorder.service,
                method: self.method.as_str(),
                path: self.target.as_ref().map_or("", PathAndQuery::path),
                status,
                cause: failure.as_ref().map(|failure| failure.cause),
                detail: failure.as_ref().map(|failure| &*failure.detail),
                bytes: None,
                total,
                upstream,
                request_id,
                trace_id,
                house_trace_id,
                peer: Some(self.client),
                strategy: identity.map(|(strategy, _)| *strategy),
                subject: identity.and_then(|(_, subject)| subject.as_deref()),
                generation: recorder.generation,
                dependency,
                upstream_address: facts.address.as_deref(),
                attempt: facts.attempt,
                reused: facts.reused,
            });
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ended = self
            .upstream_ended
            .filter(|_| self.complete)
            .unwrap_or_else(Instant::now);
        let total = ended.duration_since(self.started);
        let upstream = self
            .upstream_started
            .map_or(Duration::ZERO, |started| ended.duration_since(started));
        if !self.complete && self.failure.is_none() {
            self.failure = Some(RecordedFailure {
                cause: Cause::ClientClosed,
                level: tracing::Level::DEBUG,
                status: CLIENT_CLOSED,
                detail: Cow::Borrowed("the client left before the end of the answer"),
            });
        }
        let status = self.status.unwrap_or(CLIENT_CLOSED);
        let recorder = &self.recorder;
        recorder
            .shard
            .request(recorder.direction(), &self.method, status, total, upstream);
        if let Some(failure) = &self.failure {
            recorder.shard.proxy_error(failure.cause);
        }
        recorder.shard.in_flight(recorder.direction()).dec();
        self.log(status, total, upstream);
        if let Some(seed) = self.span.take() {
            self.push_span(*seed, ended);
        }
    }
}
