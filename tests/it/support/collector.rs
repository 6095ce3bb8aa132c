//! A receiver of OTLP over HTTP that reads with the public definitions.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

use super::app::{App, Connection, Next, Received, Script};
use super::wait::{SOON, wait_for};

/// A span as it arrived, with ids as hex.
#[derive(Debug, Clone)]
pub(crate) struct SeenSpan {
    /// `service.namespace/service.name`.
    pub(crate) service: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first of a trace.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    /// 2 server, 3 client.
    pub(crate) kind: i32,
    pub(crate) failed: bool,
    pub(crate) nanos: u64,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl SeenSpan {
    /// An attribute's value, empty when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is_server(&self) -> bool {
        self.kind == 2
    }
}

type Shelf = Arc<Mutex<Vec<SeenSpan>>>;

/// A running collector.
pub(crate) struct Collector {
    pub(crate) app: App,
    spans: Shelf,
}

impl Collector {
    /// Takes everything.
    pub(crate) fn start() -> Self {
        Self::with(|_: &Received, stream: &mut Connection| {
            stream.respond(200, "Content-Type: application/x-protobuf\r\n", b"")?;
            Ok(Next::KeepAlive)
        })
    }

    /// Answers like this; spans are kept whatever the answer.
    pub(crate) fn with(answer: impl Script) -> Self {
        let spans = Shelf::default();
        let shelf = Arc::clone(&spans);
        let app = App::start(
            move |request: &Received, stream: &mut Connection| -> io::Result<Next> {
                lock(&shelf).extend(decode(request));
                answer.answer(request, stream)
            },
        );
        Self { app, spans }
    }

    /// The line of the process settings that exports here; `more` are further
    /// keys.
    pub(crate) fn settings(&self, more: &str) -> String {
        settings(&format!("http://127.0.0.1:{}", self.app.port()), more)
    }

    /// What has arrived so far.
    pub(crate) fn spans(&self) -> Vec<SeenSpan> {
        lock(&self.spans).clone()
    }

    /// Waits for so many spans and takes them.
    #[track_caller]
    pub(crate) fn take(&self, count: usize) -> Vec<SeenSpan> {
        wait_for(&format!("{count} spans arrive"), SOON, || {
            let mut spans = lock(&self.spans);
            (spans.len() >= count).then(|| std::mem::take(&mut *spans))
        })
        .0
    }
}

/// The line of the process settings that exports to an endpoint.
pub(crate) fn settings(endpoint: &str, more: &str) -> String {
    format!("tracing: {{exporter: {{otlp: {{endpoint: \"{endpoint}\"{more}}}}}}}\n")
}

fn lock(shelf: &Shelf) -> std::sync::MutexGuard<'_, Vec<SeenSpan>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The spans of one export request; panics, which the test sees as an exporter
/// that is refused, on anything else.
pub(crate) fn decode(request: &Received) -> Vec<SeenSpan> {
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/v1/traces")
    );
    let kind = request.header("content-type");
    assert_eq!(kind, Some("application/x-protobuf"));
    decode_body(&request.body)
}

/// The spans of a body.
pub(crate) fn decode_body(body: &[u8]) -> Vec<SeenSpan> {
    let request = ExportTraceServiceRequest::decode(body).expect("an export request");
    let mut seen = Vec::new();
    for group in request.resource_spans {
        let resource = texts(group.resource.expect("a resource").attributes);
        let service = format!(
            "{}/{}",
            resource["service.namespace"], resource["service.name"]
        );
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(SeenSpan {
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                state: span.trace_state,
                name: span.name,
                kind: span.kind,
                failed: span.status.is_some_and(|status| status.code == 2),
                nanos: span.end_time_unix_nano - span.start_time_unix_nano,
                attributes: texts(span.attributes),
            });
        }
    }
    seen
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("an unexpected value: {other:?}"),
    };
    attributes
        .into_iter()
        .map(|attribute| {
            let value = attribute.value.and_then(|value| value.value);
            (attribute.key, text(value))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
