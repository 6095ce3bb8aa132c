//! The only writer of standard output while the daemon runs.
//!
//! Diagnostic events (`tracing`), access lines and error lines are built by
//! the thread that has something to say, then handed to one bounded queue that
//! an OS thread of its own writes out. Whatever becomes of standard output,
//! nobody waits: lines are dropped and counted
//! (`outrigger_log_lines_dropped_total`).
//!
//! Crates we use may log header values at their lower levels, so they are held
//! at WARN whatever the level is.

mod event;
mod limit;
mod line;
mod queue;
mod request;
mod span;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use line::LineFormat;
pub use request::{AccessLine, ErrorLine};

use super::spans::Span;
use crate::model::{AccessLog, LogFormat, LogLevel, ProcessSettings};
use event::EventLines;
use limit::Limiter;
use queue::Queue;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("standard output cannot be used")]
    Output(#[source] io::Error),
    #[error("the log's thread cannot be started")]
    Thread(#[source] io::Error),
    #[error("a log was already set up in this process")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// What can be changed while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    pub level: LogLevel,
    pub format: LogFormat,
    pub access: AccessLog,
}

impl LogSettings {
    /// The part of the process settings that concerns the log.
    pub const fn of(settings: &ProcessSettings) -> Self {
        Self {
            level: settings.log_level,
            format: settings.log_format,
            access: settings.access_log,
        }
    }
}

/// The log: writes access and error lines and changes the settings. Cheap to
/// clone; a worker keeps one.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    controls: Arc<Controls>,
}

/// Settings and counters that the writer needs as well.
#[derive(Debug)]
struct Controls {
    terminal: bool,
    json: AtomicU8,
    level: AtomicU8,
    access: AtomicU8,
    limiter: Limiter,
}

/// Sets the log up for the whole process, writing to standard output; lines
/// that are lost are added to `dropped`
/// ([`Metrics::lines_dropped`](crate::telemetry::metrics::Metrics::lines_dropped)).
pub fn init(settings: LogSettings, dropped: Arc<AtomicU64>) -> Result<LogHandle, LogError> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    // A descriptor of our own: `io::stdout()` has a lock and a buffer.
    let output = stdout
        .as_fd()
        .try_clone_to_owned()
        .map_err(LogError::Output)?;
    let (handle, subscriber) = build(settings, dropped, File::from(output), terminal)?;
    tracing::subscriber::set_global_default(subscriber).map_err(LogError::Twice)?;
    Ok(handle)
}

/// A log that writes to `output` and is the subscriber of nobody but who asks:
/// for tests, and for commands that print for themselves.
pub fn detached(
    settings: LogSettings,
    output: impl Write + Send + 'static,
) -> Result<(LogHandle, impl tracing::Subscriber + Send + Sync), LogError> {
    build(settings, Arc::default(), output, false)
}

fn build(
    settings: LogSettings,
    dropped: Arc<AtomicU64>,
    output: impl Write + Send + 'static,
    terminal: bool,
) -> Result<(LogHandle, impl tracing::Subscriber + Send + Sync), LogError> {
    let controls = Arc::new(Controls {
        terminal,
        json: AtomicU8::new(0),
        level: AtomicU8::new(0),
        access: AtomicU8::new(0),
        limiter: Limiter::new(Instant::now()),
    });
    controls.apply(settings);
    let summarised = Arc::clone(&controls);
    let summaries = move || summarised.summaries();
    let queue = Queue::start(output, dropped, summaries).map_err(LogError::Thread)?;
    let shared = Arc::new(Shared { queue, controls });
    let subscriber = EventLines {
        shared: Arc::clone(&shared),
    };
    Ok((LogHandle { shared }, subscriber))
}

impl LogHandle {
    /// One line for a request that ended, if `accessLog` asks for it. The
    /// sidecar's own answers have a cause; where only errors are asked for, more
    /// than 100 a second of one become a summary, as with [`Self::error`].
    pub fn access(&self, line: &AccessLine<'_>) {
        let controls = &self.shared.controls;
        let errors_alone = controls.access.load(Ordering::Relaxed) == ACCESS_ERRORS;
        let wanted = match line.cause {
            Some(cause) if errors_alone => controls.limiter.admit(cause, Instant::now()),
            _ => self.wants(line.status, line.cause.is_some()),
        };
        if wanted {
            let format = controls.format();
            self.shared
                .queue
                .push(line.write(format, SystemTime::now()));
        }
    }

    /// Whether a request with this status gets an access line; ask before
    /// putting one together.
    pub fn wants(&self, status: u16, ours: bool) -> bool {
        match self.shared.controls.access.load(Ordering::Relaxed) {
            ACCESS_OFF => false,
            ACCESS_ERRORS => status >= 500 || ours,
            _ => true,
        }
    }

    /// One line for an answer the sidecar made, if the level shows it. More
    /// than 100 a second of one cause become a summary.
    pub fn error(&self, line: &ErrorLine<'_>) {
        let controls = &self.shared.controls;
        if self.shows(line.level) && controls.limiter.admit(line.cause, Instant::now()) {
            let format = controls.format();
            self.shared
                .queue
                .push(line.write(format, SystemTime::now()));
        }
    }

    /// One line for a span, whatever the level: somebody asked to see them.
    pub fn span(&self, span: &Span) {
        let format = self.shared.controls.format();
        let line = span::write(span, format, SystemTime::now());
        self.shared.queue.push(line);
    }

    /// Whether lines of this level are written.
    pub fn shows(&self, level: tracing::Level) -> bool {
        verbosity(level) <= self.shared.controls.verbosity()
    }

    /// Applies changed settings.
    pub fn apply(&self, settings: LogSettings) {
        self.shared.controls.apply(settings);
        filter_events();
    }

    /// Changes the level alone (`PUT /log-level`).
    pub fn set_level(&self, level: LogLevel) {
        let number = verbosity(tracing_level(level));
        self.shared.controls.level.store(number, Ordering::Relaxed);
        filter_events();
    }

    /// Waits until everything logged so far is written or dropped, at most
    /// `patience`. Blocks: for the end of the process. Returns whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.queue.flush(patience)
    }
}

/// Has every place that may log ask again whether it is to. What a place was told
/// it remembers, so that being below the level costs a comparison.
fn filter_events() {
    tracing::callsite::rebuild_interest_cache();
}

const ACCESS_OFF: u8 = 0;
const ACCESS_ERRORS: u8 = 1;
const ACCESS_ALL: u8 = 2;

impl Controls {
    fn apply(&self, settings: LogSettings) {
        let LogSettings {
            level,
            format,
            access,
        } = settings;
        let json = match format {
            LogFormat::Auto => !self.terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        let access = match access {
            AccessLog::Off => ACCESS_OFF,
            AccessLog::Errors => ACCESS_ERRORS,
            AccessLog::All => ACCESS_ALL,
        };
        self.json.store(u8::from(json), Ordering::Relaxed);
        self.access.store(access, Ordering::Relaxed);
        let number = verbosity(tracing_level(level));
        self.level.store(number, Ordering::Relaxed);
    }

    /// The level that is set, as [`verbosity`] counts.
    fn verbosity(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    fn format(&self) -> LineFormat {
        if self.json.load(Ordering::Relaxed) == 0 {
            LineFormat::Text
        } else {
            LineFormat::Json
        }
    }

    fn summaries(&self) -> Vec<Vec<u8>> {
        let (format, now) = (self.format(), SystemTime::now());
        self.limiter
            .take_suppressed()
            .map(|(cause, count)| request::summary(format, now, cause, count))
            .collect()
    }
}

/// 1 = errors only, 5 = everything.
const fn verbosity(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 1,
        tracing::Level::WARN => 2,
        tracing::Level::INFO => 3,
        tracing::Level::DEBUG => 4,
        tracing::Level::TRACE => 5,
    }
}

const fn tracing_level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}

#[cfg(test)]
mod tests;
