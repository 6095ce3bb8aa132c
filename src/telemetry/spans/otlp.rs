//! OTLP: the messages of `opentelemetry/proto` that traces need, and how spans
//! become them. A test decodes what is encoded here with the public definitions.

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
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<ProtoResource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoResource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<ProtoSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

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

/// The body of an export request.
pub(super) fn encode(spans: &[Span]) -> Vec<u8> {
    let anchor = Anchor::now();
    let mut groups: Vec<(&Arc<Resource>, Vec<ProtoSpan>)> = Vec::new();
    for span in spans {
        let made = ProtoSpan::of(span, &anchor);
        let known = groups
            .iter_mut()
            .find(|(known, _)| *known == &span.resource);
        match known {
            Some((_, list)) => list.push(made),
            None => groups.push((&span.resource, vec![made])),
        }
    }
    let resource_spans = groups.into_iter().map(|(resource, spans)| ResourceSpans {
        resource: Some(ProtoResource::of(resource)),
        scope_spans: vec![ScopeSpans {
            scope: Some(Scope {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            spans,
        }],
    });
    let request = ExportRequest {
        resource_spans: resource_spans.collect(),
    };
    request.encode_to_vec()
}

/// Spans that a collector says it did not take, although it answered well.
pub(super) fn rejected(answer: &[u8]) -> usize {
    let rejected = ExportResponse::decode(answer)
        .ok()
        .and_then(|answer| answer.partial_success)
        .map_or(0, |partial| partial.rejected_spans);
    usize::try_from(rejected).unwrap_or(0)
}

impl ProtoResource {
    fn of(resource: &Resource) -> Self {
        let Resource { service, version } = resource;
        let mut attributes = vec![
            text("service.name", service.name()),
            text("service.namespace", service.domain()),
            text("telemetry.sdk.name", env!("CARGO_PKG_NAME")),
            text("telemetry.sdk.language", "rust"),
            text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        if let Some(version) = version {
            attributes.push(text("service.version", version));
        }
        Self { attributes }
    }
}

impl ProtoSpan {
    fn of(span: &Span, anchor: &Anchor) -> Self {
        let Span {
            resource: _,
            ids,
            kind,
            started,
            ended,
            work: _,
        } = span;
        let description = span.describe();
        let (kind, remote) = match kind {
            // Nothing is said of a parent where there is none.
            SpanKind::Server if ids.parent.is_some() => (2, IS_REMOTE),
            SpanKind::Server => (2, 0),
            SpanKind::Client => (3, 0),
        };
        let random = if ids.random { RANDOM } else { 0 };
        Self {
            trace_id: ids.trace_id.0.to_vec(),
            span_id: ids.span_id.to_vec(),
            trace_state: ids.state.as_deref().unwrap_or_default().to_owned(),
            parent_span_id: ids.parent.map(Vec::from).unwrap_or_default(),
            name: description.name.into_owned(),
            kind,
            start_time_unix_nano: anchor.unix_nanos(*started),
            end_time_unix_nano: anchor.unix_nanos(*ended),
            attributes: description
                .attributes
                .into_iter()
                .map(|(key, value)| KeyValue {
                    key: key.to_owned(),
                    value: Some(AnyValue::of(value)),
                })
                .collect(),
            status: description.failed.then_some(Status { code: 2 }),
            flags: SAMPLED | random | HAS_IS_REMOTE | remote,
        }
    }
}

impl AnyValue {
    fn of(attribute: Attribute<'_>) -> Self {
        Self {
            value: Some(match attribute {
                Attribute::Text(text) => Value::Text(text.into_owned()),
                Attribute::Number(number) => Value::Number(number),
            }),
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue::of(Attribute::from(value))),
    }
}
