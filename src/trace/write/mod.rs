//! Trace headers of requests that go on, and of responses.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::Context;
use super::state::TRACESTATE;
use super::w3c::{TRACEPARENT, TraceParent};
use super::{b3, house};
use crate::model::Propagation;

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

/// Fields to be sent, none of them twice.
pub(super) type Fields = Vec<(HeaderName, HeaderValue)>;

impl Context {
    /// Takes the trace headers that were read out of `headers`, and writes the
    /// chosen formats into `ours`. Ids are written whether sampled or not
    /// (SAMP-2).
    pub fn write(&self, headers: &mut HeaderMap, ours: &mut Fields, propagate: &[Propagation]) {
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

    /// `x-trace-id, x-trace-service, x-trace-depth` of a response; `service` is
    /// `domain/name`.
    pub fn write_response(
        &self,
        service: &HeaderValue,
        mut set: impl FnMut(HeaderName, HeaderValue),
    ) {
        set(house::TRACE_ID, self.house_id_value());
        set(house::TRACE_SERVICE, service.clone());
        set(house::DEPTH, depth_value(self.depth));
    }

    fn write_w3c(&self, ours: &mut Fields) {
        let parent = TraceParent {
            trace_id: self.trace_id,
            parent_id: self.span_id,
            sampled: self.sampled,
            random: self.random,
        };
        ours.push((TRACEPARENT, parent.header()));
        let own = self
            .sampled
            .then_some((self.depth, self.parent_service.as_ref()));
        if let Some(state) = self.state.header(own) {
            ours.push((TRACESTATE, state));
        }
    }

    fn write_house(&self, ours: &mut Fields) {
        ours.push((house::TRACE_ID, self.house_id_value()));
        ours.push((house::DEPTH, depth_value(self.depth)));
        if let Some(parent) = &self.parent_service {
            ours.push((house::PARENT_SERVICE, parent.clone()));
        }
    }

    fn house_id_value(&self) -> HeaderValue {
        let made = || {
            self.house_text.get_or_init(|| {
                HeaderValue::from_str(self.trace_id().text().as_str())
                    .expect("hex digits are visible ASCII")
            })
        };
        self.house_id.as_ref().unwrap_or_else(made).clone()
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

/// Without allocation for the depths there are.
fn depth_value(depth: u16) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match SMALL.get(usize::from(depth)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(depth),
    }
}

#[cfg(test)]
mod tests;
