//! A span as a line, for a person who looks at what is traced.

use std::time::SystemTime;

use tracing::Level;

use super::line::{Line, LineFormat};
use crate::telemetry::spans::{Attribute, Span, SpanKind};

/// One line per span (`tracing.exporter: stdout`).
pub(super) fn write(span: &Span, format: LineFormat, now: SystemTime) -> Vec<u8> {
    let Span {
        resource,
        ids,
        kind,
        started,
        ended,
        work: _,
    } = span;
    let description = span.describe();
    let mut line = Line::begin(format, now, Level::INFO);
    line.message("span");
    line.text("service", resource.service.key());
    line.text(
        "kind",
        match kind {
            SpanKind::Server => "server",
            SpanKind::Client => "client",
        },
    );
    line.text("name", &description.name);
    line.milliseconds("duration_ms", ended.duration_since(*started));
    line.text("trace_id", ids.trace_id.text().as_str());
    line.text("span_id", span_text(&ids.span_id).as_str());
    if let Some(parent) = &ids.parent {
        line.text("parent_id", span_text(parent).as_str());
    }
    line.flag("error", description.failed);
    for (name, value) in &description.attributes {
        match value {
            Attribute::Text(text) => line.text(name, text),
            Attribute::Number(number) => line.number(name, *number),
        }
    }
    line.finish()
}

fn span_text(id: &[u8; 8]) -> String {
    let mut text = [0; 16];
    crate::model::hex::write(id, &mut text);
    text.iter().copied().map(char::from).collect()
}
