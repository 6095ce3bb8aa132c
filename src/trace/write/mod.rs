//! Trace headers of requests that go on, and of responses.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::Context;
use super::state::TRACESTATE;
use super::w3c::{TRACEPARENT, TraceParent};
use super::{b3, house};
use crate::model::{FieldLines, Propagation};

/// Every header that carries a context in; none of those that were read outlives
/// [`Context::write`] unless it is written anew, so that no two formats tell
/// different stories.
pub static CARRIERS: [HeaderName; 11] = [
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

/// Which of [`CARRIERS`] a request has, a bit each: one walk over its headers
/// instead of two look-ups for each of them, of which most requests have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Carried(u16);

impl Carried {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = 0;
        for name in headers.keys() {
            // In the order of `CARRIERS`.
            let index = match name.as_str() {
                "traceparent" => 0,
                "tracestate" => 1,
                "b3" => 2,
                "x-b3-traceid" => 3,
                "x-b3-spanid" => 4,
                "x-b3-parentspanid" => 5,
                "x-b3-sampled" => 6,
                "x-b3-flags" => 7,
                "x-trace-id" => 8,
                "x-parent-service-id" => 9,
                "x-trace-depth" => 10,
                _ => continue,
            };
            found |= 1 << index;
        }
        Self(found)
    }

    /// Whether there is nothing to read.
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn names(self) -> impl Iterator<Item = &'static HeaderName> {
        let indices = (0..CARRIERS.len()).filter(move |index| self.0 & (1 << index) != 0);
        indices.filter_map(|index| CARRIERS.get(index))
    }
}

impl Context {
    /// Takes the trace headers that were read out of `headers`, and writes the
    /// chosen formats into `ours`. Ids are written whether sampled or not
    /// (SAMP-2).
    pub fn write(&self, headers: &mut HeaderMap, ours: &mut FieldLines, propagate: &[Propagation]) {
        for name in self.carried.names() {
            headers.remove(name);
        }
        for format in propagate {
            match format {
                Propagation::W3c => self.write_w3c(ours),
                Propagation::House => self.write_house(ours),
                Propagation::B3 => self.as_b3().write_single(ours),
                Propagation::B3Multi => self.as_b3().write_multi(ours),
            }
        }
    }

    /// Writes `x-trace-id, x-trace-service, x-trace-depth` of a response;
    /// `service` is `domain/name`.
    pub fn write_response(&self, service: &HeaderValue, ours: &mut FieldLines) {
        self.write_house_id(ours);
        ours.line(house::SERVICE_START).value(service).end();
        self.write_depth(ours);
    }

    fn write_w3c(&self, ours: &mut FieldLines) {
        let parent = TraceParent {
            trace_id: self.trace_id,
            parent_id: self.span_id,
            sampled: self.sampled,
            random: self.random,
        };
        parent.write(ours);
        let own = self
            .sampled
            .then_some((self.depth, self.parent_service.as_ref()));
        self.state.write(own, ours);
    }

    fn write_house(&self, ours: &mut FieldLines) {
        self.write_house_id(ours);
        self.write_depth(ours);
        if let Some(parent) = &self.parent_service {
            ours.push(&house::PARENT_SERVICE, parent);
        }
    }

    fn write_house_id(&self, ours: &mut FieldLines) {
        let line = ours.line(house::TRACE_ID_START);
        match &self.house_id {
            Some(id) => line.value(id).end(),
            None => line.hex(&self.trace_id).end(),
        }
    }

    fn write_depth(&self, ours: &mut FieldLines) {
        let line = ours.line(house::DEPTH_START);
        // As deep as most are: in one digit.
        match self.depth {
            0 => line.text("0").end(),
            depth => line.number(u64::from(depth)).end(),
        }
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
