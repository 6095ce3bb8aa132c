//! A request's place in its trace: read, decided, and the span it leaves.

use std::cell::RefCell;

use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::{Arrival, Door};
use crate::auth::CallTrace;
use crate::model::{Failure, Kind};
use crate::snapshot::Ready;
use crate::telemetry::record::{Record, SpanSeed};
use crate::telemetry::spans::{Host, Span};
use crate::trace::{Caller, Context};

/// What a decision about a request depends on.
pub(super) struct Asked<'a> {
    parts: &'a Parts,
    /// Once it is known to be valid.
    host: Option<&'a HeaderValue>,
    /// It came through a proxy, as far as is known.
    forwarded: bool,
    authenticated: bool,
}

impl<'a> Asked<'a> {
    /// Refused before anything was known of it: from a stranger.
    pub(super) const fn unread(parts: &'a Parts) -> Self {
        Self {
            parts,
            host: None,
            forwarded: true,
            authenticated: false,
        }
    }

    /// Nobody knows its caller yet.
    pub(super) const fn arrived(arrival: &'a Arrival) -> Self {
        Self {
            parts: &arrival.parts,
            host: Some(&arrival.host),
            forwarded: arrival.client.forwarded,
            authenticated: false,
        }
    }

    /// Its caller is known.
    pub(super) const fn authenticated(arrival: &'a Arrival) -> Self {
        Self {
            authenticated: true,
            ..Self::arrived(arrival)
        }
    }
}

impl Door {
    /// The trace the request is part of, where tracing is on.
    pub(super) fn read_trace(
        &self,
        ready: &Ready,
        headers: &HeaderMap,
        record: &mut Record,
    ) -> Option<Context> {
        ready.spec.tracing.as_ref()?;
        let context = Context::read(headers, &self.local.parts.ids);
        record.trace_id = Some(context.trace_id());
        record.house_trace_id = context.house_id().cloned();
        Some(context)
    }

    /// Settles sampling as far as the caller is known, and with it whether the
    /// request leaves a span.
    pub(super) fn settle_trace(
        &self,
        ready: &Ready,
        asked: &Asked<'_>,
        record: &mut Record,
        trace: &mut Option<Context>,
    ) {
        let (Some(context), Some(spec)) = (trace, &ready.spec.tracing) else {
            return;
        };
        let caller = Caller {
            authenticated: asked.authenticated,
            peer: self.client.peer,
            forwarded: asked.forwarded,
        };
        context.decide(spec, &caller);
        let sampled = context.is_sampled() && record.wants_span();
        record.leave_span(sampled.then(|| {
            SpanSeed {
                ids: context.span_ids(),
                version: asked.parts.version,
                scheme: self.client.scheme(),
                host: asked
                    .host
                    .and_then(|host| host.to_str().ok())
                    .map(|host| Host::Asked(host.into())),
            }
        }));
    }

    /// Settles sampling as for a caller that nobody knows yet. A request that
    /// went through too many services goes no farther (508).
    pub(super) fn join_trace(
        &self,
        ready: &Ready,
        arrival: &Arrival,
        record: &mut Record,
        trace: &mut Option<Context>,
    ) -> Result<(), Failure> {
        self.settle_trace(ready, &Asked::arrived(arrival), record, trace);
        match trace.as_ref().map(Context::check_depth) {
            Some(Err(error)) => Err(Failure::because(Kind::Loop, error.to_string())),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// What a hook is told of the trace, and where it leaves its span.
    pub(super) fn call_trace<'a>(
        &'a self,
        ready: &'a Ready,
        trace: Option<&'a Context>,
        asked: &'a RefCell<Option<Box<Span>>>,
    ) -> Option<CallTrace<'a>> {
        let (context, spec) = (trace?, ready.spec.tracing.as_ref()?);
        Some(CallTrace {
            context,
            propagate: &spec.propagate,
            service: &ready.trace_name,
            resource: &self.local.service.resource,
            ids: &self.local.parts.ids,
            asked,
        })
    }
}
