//! A question as part of a trace: its headers, and the span it leaves.

use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;

use crate::auth::call::{Call, CallTrace};
use crate::model::{Cause, UpstreamTarget};
use crate::telemetry::spans::{Host, HttpWork, Path, Span, SpanKind, Work};
use crate::trace::Context;
use crate::upstream::h1::RequestHead;
use crate::upstream::{Upstream, UpstreamResponse};

/// A question under way. Nothing where the request is not traced.
pub(super) struct Asking<'a>(Option<Traced<'a>>);

struct Traced<'a> {
    trace: CallTrace<'a>,
    context: Context,
    started: Instant,
}

impl<'a> Asking<'a> {
    /// Gives the question its own place in the trace.
    pub(super) fn begin(call: &Call<'a>, head: &mut RequestHead) -> Self {
        Self(call.trace.map(|trace| {
            let context = trace.context.child(trace.service, trace.ids);
            context.write(&mut head.headers, &mut head.ours, trace.propagate);
            Traced {
                trace,
                context,
                started: Instant::now(),
            }
        }))
    }

    /// Leaves the span with the request; whether it is kept is decided there.
    pub(super) fn end(
        self,
        head: &RequestHead,
        upstream: &Upstream,
        answer: Option<&UpstreamResponse>,
    ) {
        let Some(Traced {
            trace,
            context,
            started,
        }) = self.0
        else {
            return;
        };
        let host = match &upstream.spec().target {
            UpstreamTarget::Tcp { host, port } => Some(Host::Known {
                host: Arc::clone(host),
                port: *port,
            }),
            _ => None,
        };
        let target = PathAndQuery::try_from(head.target.as_bytes()).ok();
        let work = HttpWork {
            method: head.method.clone(),
            path: Path::of(target.as_ref()),
            version: None,
            scheme: if upstream.is_secure() {
                "https"
            } else {
                "http"
            },
            host,
            status: answer.map(|answer| answer.status.as_u16()),
            cause: answer.is_none().then_some(Cause::AuthUnavailable),
            client: None,
            dialled: answer.map(|answer| Arc::clone(&answer.address)),
            peer: None,
            resends: 0,
        };
        trace.asked.replace(Some(Box::new(Span {
            resource: Arc::clone(trace.resource),
            ids: context.span_ids(),
            kind: SpanKind::Client,
            started,
            ended: Instant::now(),
            work: Work::Http(Box::new(work)),
        })));
    }
}
