//! Diagnostic events of `tracing` as lines of the same kind as all others.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Shared;
use super::line::Line;

/// Turns events into lines. Spans are not used for logging.
pub(super) struct EventLines {
    pub(super) shared: std::sync::Arc<Shared>,
}

impl<S: Subscriber> Layer<S> for EventLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let format = self.shared.controls.format();
        let mut line = Line::begin(format, SystemTime::now(), *metadata.level());
        event.record(&mut Fields(&mut line));
        // Our own module paths tell a reader of the log nothing.
        if !metadata.target().starts_with("outrigger") {
            line.text("target", metadata.target());
        }
        self.shared.queue.push(line.finish());
    }
}

struct Fields<'a>(&'a mut Line);

/// Fields that would repeat a name the line already has.
fn distinct(name: &'static str) -> &'static str {
    match name {
        "timestamp" => "field_timestamp",
        "level" => "field_level",
        "target" => "field_target",
        name => name,
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.message(value);
        } else {
            self.0.text(distinct(field.name()), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_str(field, &chain(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(distinct(field.name()), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.number(distinct(field.name()), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.flag(distinct(field.name()), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.float(distinct(field.name()), value);
    }
}

/// An error and its sources; no `Display` repeats its source.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
