//! What goes into a decision and what comes out of it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};

use crate::model::{AuthReason, FieldLines, Identity, Kind, MtlsName, Propagation, Strategy};
use crate::telemetry::metrics::AuthResult;
use crate::telemetry::spans::{Resource, Span};
use crate::trace::{Context, IdGenerator};

/// A request as authentication sees it. Reserved headers are already gone.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub method: &'a Method,
    /// Raw, as received.
    pub path: &'a str,
    /// Raw, without `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The client, as FWD-1 determines it.
    pub peer: IpAddr,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The request's authority.
    pub host: &'a str,
    /// Names of a verified client certificate.
    pub certificate: Option<&'a [MtlsName]>,
    /// `None` where tracing is off.
    pub trace: Option<CallTrace<'a>>,
}

/// The trace a request is part of, for what is asked on its behalf.
#[derive(Debug, Clone, Copy)]
pub struct CallTrace<'a> {
    /// As far as it is decided while nobody knows the caller.
    pub context: &'a Context,
    pub propagate: &'a [Propagation],
    /// `domain/name`, as trace headers carry it.
    pub service: &'a HeaderValue,
    pub resource: &'a Arc<Resource>,
    pub ids: &'a IdGenerator,
    /// Where the span of a question is left.
    pub asked: &'a RefCell<Option<Box<Span>>>,
}

/// Headers to drop before the app.
pub type RemoveHeaders = Vec<HeaderName>;

/// The request may pass. Apply `remove` first, then `set` (replacing).
#[derive(Debug)]
pub struct Allowed {
    /// The caller; `None` where nobody was asked.
    pub identity: Option<Identity>,
    /// The rule that matched, an index into the policy's rules: it may name
    /// another upstream.
    pub rule: Option<usize>,
    /// Headers toward the app.
    pub set: FieldLines,
    pub remove: RemoveHeaders,
    /// Metric label: a strategy's name, or `none`.
    pub strategy: &'static str,
    /// Metric label, of [`AuthReason`].
    pub reason: &'static str,
}

impl Allowed {
    /// Another one was granted, too: the first one that knows the caller names it.
    pub(super) fn join(kept: &mut Option<Self>, mut other: Self) {
        let Some(kept) = kept else {
            *kept = Some(other);
            return;
        };
        if kept.identity.is_none() && other.identity.is_some() {
            std::mem::swap(kept, &mut other);
        }
        kept.remove.append(&mut other.remove);
    }
}

/// The request is refused, or cannot be judged.
#[derive(Debug)]
pub struct Denied {
    /// What `reply` answers with, unless there is an answer to relay.
    pub kind: Kind,
    /// Metric label: a strategy's name, or `none`.
    pub strategy: &'static str,
    /// Metric label and log text, of [`AuthReason`]; never for the client.
    pub reason: &'static str,
    /// The hook's own answer.
    pub relay: Option<Box<Response<Bytes>>>,
}

impl Denied {
    pub(super) fn new(kind: Kind, strategy: Option<Strategy>, reason: AuthReason) -> Self {
        Self {
            kind,
            strategy: label(strategy),
            reason: reason.as_str(),
            relay: None,
        }
    }

    /// `result` label: whether a decision was reached at all.
    pub fn result(&self) -> AuthResult {
        match self.kind {
            Kind::AuthUnavailable => AuthResult::Unavailable,
            _ => AuthResult::Denied,
        }
    }
}

/// `strategy` label.
pub(super) const fn label(strategy: Option<Strategy>) -> &'static str {
    match strategy {
        Some(strategy) => strategy.as_str(),
        None => "none",
    }
}
