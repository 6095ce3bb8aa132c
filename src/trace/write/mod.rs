//! Trace headers of requests that go on, and of responses.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::Context;
use super::state::TRACESTATE;
use super::w3c::{TRACEPARENT, TraceParent};
use super::{b3, house};
use crate::model::Propagation;

/// Every header that carries a context in; none of them outlives [`Context::write`]
/// unless it is written anew, so that no two formats tell different stories.
pub const CARRIERS: [HeaderName; 11] = [
    TRACEPARENT,
    TRACESTATE,
    b3::SINGLE,
    b3::TRACE_ID,
    b3::SPAN_ID,
    b3::PARENT_SPAN_ID,
    b3::SAMPLED,
    b3::FLAGS,
    house::TRACE_ID,
    house::PARENT_SERVICE,
    house::DEPTH,
];

impl Context {
    /// Replaces the trace headers of a request by the chosen formats. Ids are
    /// written whether sampled or not (SAMP-2).
    pub fn write(&self, headers: &mut HeaderMap, propagate: &[Propagation]) {
        for name in &CARRIERS {
            headers.remove(name);
        }
        for format in propagate {
            match format {
                Propagation::W3c => self.write_w3c(headers),
                Propagation::House => self.write_house(headers),
                Propagation::B3 => self.as_b3().write_single(headers),
                Propagation::B3Multi => self.as_b3().write_multi(headers),
            }
        }
    }

    /// `x-trace-id, x-trace-service, x-trace-depth` of a response; `service` is
    /// `domain/name`.
    pub fn write_response(&self, headers: &mut HeaderMap, service: &HeaderValue) {
        headers.insert(house::TRACE_ID, self.house_id_value());
        headers.insert(house::TRACE_SERVICE, service.clone());
        headers.insert(house::DEPTH, HeaderValue::from(self.depth));
    }

    fn write_w3c(&self, headers: &mut HeaderMap) {
        let parent = TraceParent {
            trace_id: self.trace_id,
            parent_id: self.span_id,
            sampled: self.sampled,
            random: self.random,
        };
        headers.insert(TRACEPARENT, parent.header());
        let own = self
            .sampled
            .then_some((self.depth, self.parent_service.as_ref()));
        if let Some(state) = self.state.header(own) {
            headers.insert(TRACESTATE, state);
        }
    }

    fn write_house(&self, headers: &mut HeaderMap) {
        headers.insert(house::TRACE_ID, self.house_id_value());
        headers.insert(house::DEPTH, HeaderValue::from(self.depth));
        if let Some(parent) = &self.parent_service {
            headers.insert(house::PARENT_SERVICE, parent.clone());
        }
    }

    fn house_id_value(&self) -> HeaderValue {
        self.house_id.clone().unwrap_or_else(|| {
            HeaderValue::from_str(self.trace_id().text().as_str())
                .expect("hex digits are visible ASCII")
        })
    }

    const fn as_b3(&self) -> b3::Outgoing {
        b3::Outgoing {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent: self.parent,
            sampled: self.sampled,
            debug: self.debug,
        }
    }
}

#[cfg(test)]
mod tests;
