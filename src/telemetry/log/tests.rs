use std::sync::Mutex;

use super::*;
use crate::model::Cause;

const PATIENCE: Duration = Duration::from_secs(10);

/// An output that remembers.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("text")
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SETTINGS: LogSettings = LogSettings {
    level: LogLevel::Info,
    format: LogFormat::Json,
    access: AccessLog::All,
};

/// What `write` leaves in the log, without the times.
fn logged(settings: LogSettings, write: impl FnOnce(&LogHandle)) -> String {
    let memory = Memory::default();
    let (handle, subscriber) = detached(settings, memory.clone()).expect("a log");
    tracing::subscriber::with_default(subscriber, || write(&handle));
    assert!(handle.flush(PATIENCE));
    let text = memory.text();
    text.lines()
        .map(|line| {
            let time = match line.strip_prefix("{\"timestamp\":\"") {
                Some(rest) => rest.split('"').next().unwrap_or_default(),
                None => line.split(' ').next().unwrap_or_default(),
            };
            assert_eq!(time.len(), 24, "{line}");
            format!("{}\n", line.replace(time, "TIME"))
        })
        .collect()
}

fn access_line() -> AccessLine<'static> {
    AccessLine {
        service: "shop/users",
        method: "GET",
        path: "/users/\"7\"",
        status: 200,
        cause: None,
        detail: None,
        bytes: Some(1234),
        total: Duration::from_micros(2500),
        upstream: Duration::from_micros(2480),
        request_id: "req-1",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        house_trace_id: None,
        peer: Some("::ffff:203.0.113.9".parse().expect("address")),
        strategy: Some("api-key"),
        subject: Some("web"),
        generation: 3,
        dependency: None,
        upstream_address: Some("127.0.0.1:13001"),
        attempt: 1,
        reused: true,
    }
}

fn error_line() -> ErrorLine<'static> {
    ErrorLine {
        level: tracing::Level::WARN,
        service: "shop/users",
        cause: Cause::UpstreamConnectRefused,
        status: 502,
        detail: "Connection refused (os error 111)",
        dependency: None,
        upstream_address: Some("127.0.0.1:13001"),
        attempt: 2,
        reused: false,
        connect: Some(Duration::from_micros(150)),
        wait: None,
        total: Duration::from_micros(420),
        generation: 3,
        request_id: "req-1",
        trace_id: None,
        house_trace_id: None,
        peer: Some("127.0.0.1".parse().expect("address")),
    }
}

fn everything(handle: &LogHandle) {
    handle.access(&access_line());
    handle.error(&error_line());
    let error = io::Error::other("inner\nforged line");
    tracing::warn!(
        service = "shop/users",
        generation = 3_u64,
        level = "twice",
        error = &error as &dyn std::error::Error,
        "a monitor\nfailed"
    );
    tracing::debug!("not shown");
    tracing::info!(target: "hyper::proto", "not shown: another crate below WARN");
    tracing::error!(target: "hyper::proto", rate = 0.5, ok = false, "shown");
}

#[test]
fn lines_in_json() {
    let text = logged(SETTINGS, everything);
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("json");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn lines_in_text() {
    let format = LogFormat::Text;
    insta::assert_snapshot!(logged(LogSettings { format, ..SETTINGS }, everything));
}

#[test]
fn access_lines_follow_the_setting() {
    let count = |access| {
        let text = logged(LogSettings { access, ..SETTINGS }, |handle| {
            let line = access_line();
            handle.access(&line);
            handle.access(&AccessLine {
                status: 500,
                ..line.clone()
            });
            let cause = Some(Cause::AuthDenied);
            handle.access(&AccessLine {
                status: 401,
                cause,
                ..line
            });
        });
        text.lines().count()
    };
    assert_eq!(count(AccessLog::Off), 0);
    assert_eq!(count(AccessLog::Errors), 2);
    assert_eq!(count(AccessLog::All), 3);
}

#[test]
fn the_level_changes_while_running() {
    let text = logged(SETTINGS, |handle| {
        let client = ErrorLine {
            level: tracing::Level::DEBUG,
            ..error_line()
        };
        tracing::debug!("hidden");
        handle.error(&client);
        handle.set_level(LogLevel::Debug);
        tracing::debug!("shown");
        handle.error(&client);
        handle.apply(LogSettings {
            level: LogLevel::Error,
            ..SETTINGS
        });
        tracing::warn!("hidden");
        handle.error(&error_line());
    });
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.contains("hidden"));
}

#[test]
fn a_flood_of_errors_becomes_a_summary() {
    let memory = Memory::default();
    let (handle, _subscriber) = detached(SETTINGS, memory.clone()).expect("a log");
    for _ in 0..1000 {
        handle.error(&error_line());
    }
    // The thousand may straddle the turn of a second, hence the sums.
    let deadline = Instant::now() + PATIENCE;
    let accounted = || {
        let text = memory.text();
        let failed = |line: &&str| line.contains("request failed");
        let summarised = |line: &str| {
            let json: serde_json::Value = serde_json::from_str(line).expect("json");
            json["count"].as_u64()
        };
        let written = text.lines().filter(failed).count() as u64;
        (written, text.lines().filter_map(summarised).sum::<u64>())
    };
    while accounted().0 + accounted().1 < 1000 {
        assert!(Instant::now() < deadline, "no summary came");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let (written, summarised) = accounted();
    assert_eq!(written + summarised, 1000);
    assert!((100..=300).contains(&written), "{written}");
}

/// A guard against an accidental allocation storm or lock, not a benchmark.
#[test]
fn an_access_line_is_cheap() {
    let line = access_line();
    let began = Instant::now();
    let rounds = 10_000;
    for _ in 0..rounds {
        std::hint::black_box(line.write(LineFormat::Json, SystemTime::UNIX_EPOCH));
    }
    let each = began.elapsed() / rounds;
    assert!(each < Duration::from_micros(100), "{each:?}");
}
