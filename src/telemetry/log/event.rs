//! Diagnostic events of `tracing` as lines of the same kind as all others.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::line::Line;
use super::{Shared, verbosity};

/// How the targets of our own events begin: with the crate's name.
const OURS: &str = "outrigger";

/// Turns events into lines: our own at the level that is set, other crates'
/// never below WARN, for theirs may hold header values. Spans are not used for
/// logging.
pub(super) struct EventLines {
    pub(super) shared: std::sync::Arc<Shared>,
}

impl Subscriber for EventLines {
    /// The answer is remembered: see `filter_events`.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let shown = self.shared.controls.verbosity();
        let most = if metadata.target().starts_with(OURS) {
            shown
        } else {
            shown.min(verbosity(Level::WARN))
        };
        verbosity(*metadata.level()) <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.shared.controls.verbosity() {
            0 | 1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let format = self.shared.controls.format();
        let mut line = Line::begin(format, SystemTime::now(), *metadata.level());
        event.record(&mut Fields(&mut line));
        // Our own module paths tell a reader of the log nothing.
        if !metadata.target().starts_with(OURS) {
            line.text("target", metadata.target());
        }
        self.shared.queue.push(line.finish());
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
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
