//! The trace context of one request.

use http::{HeaderMap, HeaderValue};

use super::house::HouseId;
use super::ids::IdGenerator;
use super::sampling::samples;
use super::state::TraceState;
use super::write::Carried;
use super::{b3, house, state, w3c};
use crate::model::{SpanIds, TraceId, TracingSpec};

pub use super::sampling::Caller;

/// Services a request may go through; a longer way is taken for a loop (508).
pub const MAX_DEPTH: u16 = 64;

/// Ids, sampling and what else travels with a request.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) trace_id: [u8; 16],
    /// Of our own span: the parent of whatever comes next.
    pub(super) span_id: [u8; 8],
    /// The caller's span.
    pub(super) parent: Option<[u8; 8]>,
    /// The caller's decision.
    parent_decision: Option<b3::Decision>,
    pub(super) sampled: bool,
    /// B3's debug flag, from a trusted caller.
    pub(super) debug: bool,
    /// W3C Level 2: the caller says that the trace id is random.
    pub(super) random: bool,
    pub(super) state: TraceState,
    /// `x-trace-id` where it is not the trace id.
    pub(super) house_id: Option<HeaderValue>,
    pub(super) depth: u16,
    pub(super) parent_service: Option<HeaderValue>,
    /// What there was to read.
    pub(super) carried: Carried,
}

/// The request went through more than [`MAX_DEPTH`] services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request went through more than {MAX_DEPTH} services")]
pub struct TooDeep;

impl Context {
    /// From the headers of a request: W3C before B3 before the house's. Without
    /// a valid one a new trace begins. Sampling is settled by
    /// [`Context::decide`].
    pub fn read(headers: &HeaderMap, ids: &IdGenerator) -> Self {
        let carried = Carried::of(headers);
        let mut context = Self {
            trace_id: [0; 16],
            span_id: ids.span_id(),
            parent: None,
            parent_decision: None,
            sampled: false,
            debug: false,
            random: false,
            state: TraceState::default(),
            house_id: None,
            depth: 0,
            parent_service: None,
            carried,
        };
        if carried.is_empty() {
            context.trace_id = ids.trace_id();
            return context;
        }
        context.depth = house::read_depth(headers);
        context.parent_service = house::read_parent_service(headers);
        let house_id = house::read_id(headers);
        if let Some(parent) = w3c::read(headers) {
            context.trace_id = parent.trace_id;
            context.parent = Some(parent.parent_id);
            context.random = parent.random;
            context.parent_decision = Some(if parent.sampled {
                b3::Decision::Sample
            } else {
                b3::Decision::Drop
            });
            context.read_state(headers);
        } else {
            let b3 = b3::read(headers);
            context.parent_decision = b3.decision;
            if let Some((trace_id, parent)) = b3.ids {
                context.trace_id = trace_id;
                context.parent = Some(parent);
            } else if let Some(HouseId::Trace(id)) = &house_id {
                context.trace_id = *id;
            } else {
                context.trace_id = ids.trace_id();
            }
        }
        if let Some(HouseId::Text(text)) = house_id {
            context.house_id = Some(text);
        }
        context
    }

    /// An app that copies only the W3C headers keeps depth and parent in our
    /// member. The larger depth counts, so that neither way hides a loop.
    fn read_state(&mut self, headers: &HeaderMap) {
        self.state = state::read(headers);
        self.depth = self.depth.max(self.state.depth.unwrap_or(0));
        if self.parent_service.is_none() {
            self.parent_service = self.state.parent_service.take();
        }
    }

    /// Settles sampling: a trusted caller's decision is followed, everybody
    /// else gets one of ours about the same trace id.
    pub fn decide(&mut self, spec: &TracingSpec, caller: &Caller) {
        let followed = self
            .parent_decision
            .filter(|_| caller.is_trusted(spec.trust_parent));
        self.settle(followed, spec.sampling_rate);
    }

    /// Settles sampling for a call of the app: the decision its headers carry
    /// is the one it was given.
    pub fn follow(&mut self, spec: &TracingSpec) {
        self.settle(self.parent_decision, spec.sampling_rate);
    }

    fn settle(&mut self, followed: Option<b3::Decision>, rate: f64) {
        self.debug = followed == Some(b3::Decision::Debug);
        self.sampled = match followed {
            Some(b3::Decision::Sample | b3::Decision::Debug) => true,
            Some(b3::Decision::Drop) => false,
            None => samples(self.trace_id, rate),
        };
    }

    /// The context of a call that `service`'s sidecar makes itself while it
    /// serves this request: same trace and decision, a span of its own, one
    /// level deeper.
    #[must_use]
    pub fn child(&self, service: &HeaderValue, ids: &IdGenerator) -> Self {
        Self {
            span_id: ids.span_id(),
            parent: Some(self.span_id),
            depth: self.depth.saturating_add(1),
            parent_service: Some(service.clone()),
            ..self.clone()
        }
    }

    /// Makes what the app passed on into the context of the call it makes: our
    /// span is the call's own, under the span the app was given, one level
    /// deeper, and `service` is the caller.
    pub fn become_call(&mut self, service: &HeaderValue) {
        self.depth = self.depth.saturating_add(1);
        self.parent_service = Some(service.clone());
    }

    /// Says whether the request may go on.
    ///
    /// # Errors
    /// Beyond [`MAX_DEPTH`].
    pub const fn check_depth(&self) -> Result<(), TooDeep> {
        match self.depth > MAX_DEPTH {
            true => Err(TooDeep),
            false => Ok(()),
        }
    }

    /// Of the whole trace.
    pub const fn trace_id(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    /// `x-trace-id` where it is not the trace id, but another safe text.
    pub const fn house_id(&self) -> Option<&HeaderValue> {
        self.house_id.as_ref()
    }

    /// What a span of this context is known by.
    pub fn span_ids(&self) -> SpanIds {
        SpanIds {
            trace_id: self.trace_id(),
            span_id: self.span_id,
            parent: self.parent,
            random: self.random,
            state: self.state.copy(),
        }
    }

    /// Of our own span.
    pub const fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Of the caller's span.
    pub const fn parent_id(&self) -> Option<[u8; 8]> {
        self.parent
    }

    /// Whether spans are recorded.
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Services the request went through before this one.
    pub const fn depth(&self) -> u16 {
        self.depth
    }
}
