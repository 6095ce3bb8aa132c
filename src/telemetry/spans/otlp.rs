//! OTLP: how spans become the messages of `opentelemetry/proto` that traces
//! need. A test decodes what is encoded here with the public definitions.
//!
//! Their fields are written one behind the other: of a tree of owned ones, two
//! pieces of memory for each attribute were two thirds of what a span costs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;

use super::{Attribute, Resource, Span, SpanKind};

/// Path of the traces' receiver below the endpoint (OTLP/HTTP).
pub(super) const TRACES_PATH: &str = "/v1/traces";

/// `trace_flags` (W3C): sampled; the trace id is random.
const SAMPLED: u32 = 0x01;
const RANDOM: u32 = 0x02;
/// Whether it is known that the parent is elsewhere, and whether it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// The clock that turns instants into times of day; read once per batch.
struct Anchor {
    instant: Instant,
    unix: Duration,
}

impl Anchor {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            unix: since.unwrap_or_default(),
        }
    }

    fn unix_nanos(&self, at: Instant) -> u64 {
        let time = self.unix.saturating_sub(self.instant.duration_since(at));
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The body of an export request (`ExportTraceServiceRequest`).
pub(super) fn encode(spans: &[Span]) -> Vec<u8> {
    let anchor = Anchor::now();
    // `ScopeSpans` of each resource.
    let mut groups: Vec<(&Arc<Resource>, Fields)> = Vec::new();
    let mut one = Fields::default();
    for span in spans {
        one.0.clear();
        one.span(span, &anchor);
        let known = groups
            .iter()
            .position(|(known, _)| *known == &span.resource);
        let index = known.unwrap_or_else(|| {
            groups.push((&span.resource, Fields::scope()));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(index) {
            group.bytes(2, &one.0);
        }
    }
    let mut request = Fields::default();
    for (resource, group) in groups {
        let mut resource_spans = Fields::default();
        resource_spans.bytes(1, &Fields::resource(resource).0);
        resource_spans.bytes(2, &group.0);
        request.bytes(1, &resource_spans.0);
    }
    request.0
}

/// Spans that a collector says it did not take, although it answered well.
pub(super) fn rejected(answer: &[u8]) -> usize {
    let rejected = ExportResponse::decode(answer)
        .ok()
        .and_then(|answer| answer.partial_success)
        .map_or(0, |partial| partial.rejected_spans);
    usize::try_from(rejected).unwrap_or(0)
}

/// Fields of a message in the wire format of Protocol Buffers. What has its
/// default is left out, as proto3 has it, but where it stands in a `oneof`.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    /// `Resource`.
    fn resource(resource: &Resource) -> Self {
        let Resource { service, version } = resource;
        let mut fields = Self::default();
        for (key, value) in [
            ("service.name", service.name()),
            ("service.namespace", service.domain()),
            ("telemetry.sdk.name", env!("CARGO_PKG_NAME")),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ] {
            fields.attribute(1, key, &Attribute::from(value));
        }
        if let Some(version) = version {
            fields.attribute(1, "service.version", &Attribute::from(&**version));
        }
        fields
    }

    /// `ScopeSpans` before any span.
    fn scope() -> Self {
        let mut scope = Self::default();
        scope.bytes(1, env!("CARGO_PKG_NAME").as_bytes());
        scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
        let mut fields = Self::default();
        fields.bytes(1, &scope.0);
        fields
    }

    /// `Span`.
    fn span(&mut self, span: &Span, anchor: &Anchor) {
        let Span {
            resource: _,
            ids,
            kind,
            started,
            ended,
            work: _,
        } = span;
        let (kind, remote) = match kind {
            // Nothing is said of a parent where there is none.
            SpanKind::Server if ids.parent.is_some() => (2, IS_REMOTE),
            SpanKind::Server => (2, 0),
            SpanKind::Client => (3, 0),
        };
        let random = if ids.random { RANDOM } else { 0 };
        let description = span.describe();
        self.bytes(1, &ids.trace_id.0);
        self.bytes(2, &ids.span_id);
        if let Some(state) = ids.state.as_deref().filter(|state| !state.is_empty()) {
            self.bytes(3, state.as_bytes());
        }
        if let Some(parent) = &ids.parent {
            self.bytes(4, parent);
        }
        self.bytes(5, description.name.as_bytes());
        self.number(6, kind);
        self.fixed64(7, anchor.unix_nanos(*started));
        self.fixed64(8, anchor.unix_nanos(*ended));
        for (key, value) in &description.attributes {
            self.attribute(9, key, value);
        }
        if description.failed {
            let mut status = Self::default();
            status.number(3, 2);
            self.bytes(15, &status.0);
        }
        self.fixed32(16, SAMPLED | random | HAS_IS_REMOTE | remote);
    }

    /// `KeyValue`, with the `AnyValue` in it.
    fn attribute(&mut self, tag: u32, key: &str, value: &Attribute<'_>) {
        let value_len = match value {
            Attribute::Text(text) => 1 + varint_len(text.len() as u64) + text.len(),
            Attribute::Number(number) => 1 + varint_len(number.cast_unsigned()),
        };
        let key_len = 1 + varint_len(key.len() as u64) + key.len();
        let len = key_len + 1 + varint_len(value_len as u64) + value_len;
        self.head(tag, len);
        self.bytes(1, key.as_bytes());
        self.head(2, value_len);
        match value {
            Attribute::Text(text) => self.bytes(1, text.as_bytes()),
            Attribute::Number(number) => self.number(3, number.cast_unsigned()),
        }
    }

    /// A text, bytes, or a message that is encoded already.
    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.head(tag, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// What comes before `len` bytes of a text, bytes or a message.
    fn head(&mut self, tag: u32, len: usize) {
        self.key(tag, 2);
        self.varint(len as u64);
    }

    fn number(&mut self, tag: u32, number: u64) {
        self.key(tag, 0);
        self.varint(number);
    }

    fn fixed64(&mut self, tag: u32, number: u64) {
        self.key(tag, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, tag: u32, number: u32) {
        self.key(tag, 5);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn key(&mut self, tag: u32, wire_type: u32) {
        self.varint((tag << 3 | wire_type).into());
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }
}

/// Bytes of a number: seven bits in each.
const fn varint_len(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}
