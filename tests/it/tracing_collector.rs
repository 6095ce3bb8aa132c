//! Collectors that are gone, slow, full or in trouble: they cost spans, which
//! are counted, and requests nothing.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::collector::{self, Collector};
use crate::support::daemon::Daemon;
use crate::support::message::{Framing, Reader, framing};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::traced::single;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, shared_machine, wait_until, whole_machine};

const TRACED: &str = "auth: none\ntracing: true\n";
const DROPPED: &str = "outrigger_spans_dropped_total";

fn start(app: &App, process: &str) -> (Tree, Daemon, u16) {
    single(app, TRACED, process)
}

fn dropped(daemon: &Daemon) -> f64 {
    daemon.metrics().sum(DROPPED, &[]).expect("always there")
}

/// Sends requests one after the other on one connection; gives each one's time,
/// sorted.
#[track_caller]
fn time_requests(port: u16, count: usize) -> Vec<Duration> {
    let mut client = Client::connect(port).unwrap();
    let request = Request::get("/");
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(client.exchange(&request).unwrap().status, 200);
            begun.elapsed()
        })
        .collect();
    times.sort();
    times
}

#[test]
fn no_collector_costs_requests_anything() {
    let _machine = whole_machine();
    let app = App::start(scripts::ok);
    let silent = App::start(scripts::silent);
    let refusing = Collector::with(|_: &Received, stream: &mut Connection| {
        stream.respond(400, "", b"")?;
        Ok(Next::KeepAlive)
    });
    let gone = format!("http://127.0.0.1:{}", free_port());
    let slow = format!("http://127.0.0.1:{}", silent.port());
    let (_tree, _daemon, port) = start(&app, "");
    time_requests(port, 200);
    let without = time_requests(port, 500)[250];
    for (what, settings) in [
        ("gone", collector::settings(&gone, ", queue: 50")),
        (
            "slow",
            collector::settings(&slow, ", queue: 50, timeout: 200ms"),
        ),
        ("refusing", refusing.settings(", queue: 50")),
    ] {
        let (_tree, daemon, port) = start(&app, &settings);
        time_requests(port, 200);
        let with = time_requests(port, 500)[250];
        // A fifth of the time is noise on a busy machine; waiting would cost
        // a timeout.
        assert!(
            with < 2 * without + Duration::from_millis(1),
            "{what}: {with:?} {without:?}"
        );
        // What does not fit is counted at once, the rest when it is given up.
        wait_until("all spans are counted as dropped", SOON, || {
            dropped(&daemon) >= 700.0
        });
        assert_eq!(dropped(&daemon), 700.0, "{what}");
        daemon.wait_for_line(&["WARN", "spans cannot be exported"]);
        let told = daemon.output().matches("spans cannot be exported").count();
        assert_eq!(told, 1, "{what}: {}", daemon.output());
    }
    assert!(refusing.spans().len() > 200, "every batch was tried");
}

#[test]
fn a_collector_is_tried_again_when_it_says() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let asked = AtomicUsize::new(0);
    let collector = Collector::with(move |_: &Received, stream: &mut Connection| {
        match asked.fetch_add(1, Ordering::AcqRel) {
            0 => stream.respond(429, "Retry-After: 2\r\n", b"")?,
            1 => return Ok(Next::Close),
            2 => stream.respond(503, "", b"")?,
            _ => stream.respond(200, "", b"")?,
        }
        Ok(Next::KeepAlive)
    });
    let (_tree, daemon, port) = start(
        &app,
        &collector.settings(", headers: {x-tenant: acme, authorization: Bearer not-for-the-log}"),
    );
    time_requests(port, 3);
    collector.take(3);
    let first = Instant::now();
    collector.take(3);
    assert!(
        first.elapsed() > Duration::from_millis(1800),
        "{:?}",
        first.elapsed()
    );
    collector.take(3);
    collector.take(3);
    daemon.wait_for_line(&["INFO", "spans are exported again"]);
    holds_for("nothing is sent twice", Duration::from_millis(1500), || {
        collector.spans().is_empty()
    });
    assert_eq!((dropped(&daemon), collector.app.count()), (0.0, 4));
    let sent = collector.app.last();
    assert_eq!(sent.header("x-tenant"), Some("acme"));
    assert_eq!(sent.header("authorization"), Some("Bearer not-for-the-log"));
    assert!(!daemon.output().contains("not-for-the-log"));
}

#[test]
fn a_collector_that_wants_it_at_once_is_given_time() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let asked = AtomicUsize::new(0);
    let collector = Collector::with(move |_: &Received, stream: &mut Connection| {
        match asked.fetch_add(1, Ordering::AcqRel) {
            0 => stream.respond(503, "Retry-After: 0\r\n", b"")?,
            1 => {
                let past = "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
                stream.respond(503, past, b"")?;
            }
            2 => stream.respond(429, "Retry-After: -1\r\n", b"")?,
            _ => stream.respond(200, "", b"")?,
        }
        Ok(Next::KeepAlive)
    });
    let (_tree, daemon, port) = start(&app, &collector.settings(""));
    time_requests(port, 1);
    collector.take(1);
    let first = Instant::now();
    collector.take(3);
    // 250 ms, twice and four times that, less a quarter.
    assert!(
        first.elapsed() > Duration::from_millis(1200),
        "{:?}",
        first.elapsed()
    );
    assert_eq!(dropped(&daemon), 0.0);
}

#[test]
fn what_would_not_help_is_not_tried_again() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let answers = [400, 401, 404, 500, 302];
    let asked = AtomicUsize::new(0);
    let collector = Collector::with(move |_: &Received, stream: &mut Connection| {
        let index = asked.fetch_add(1, Ordering::AcqRel);
        let partial = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 1,
                error_message: "too long ago".to_owned(),
            }),
        };
        match answers.get(index) {
            Some(status) => {
                stream.respond(*status, "Location: /elsewhere\r\nRetry-After: 0\r\n", b"")?
            }
            None => stream.respond(200, "", &partial.encode_to_vec())?,
        }
        Ok(Next::KeepAlive)
    });
    let (_tree, daemon, port) = start(&app, &collector.settings(""));
    // Each goes out alone, and each is lost, the last one by the collector's word.
    for count in 1..=answers.len() + 1 {
        time_requests(port, 1);
        collector.take(1);
        wait_until("it is counted", SOON, || dropped(&daemon) >= count as f64);
    }
    assert_eq!(collector.app.count(), answers.len() + 1);
}

#[test]
fn the_last_spans_are_sent_before_the_end() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let shutdown = "shutdown: {deadline: 3s, accept: 200ms}\n";
    let collector = Collector::start();
    let (_tree, mut daemon, port) = start(&app, &format!("{shutdown}{}", collector.settings("")));
    time_requests(port, 7);
    daemon.signal("TERM");
    // One more while it drains.
    let late = Request::get("/late").send(port);
    assert_eq!(late.status, 200);
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    assert_eq!(collector.spans().len(), 8);

    let silent = App::start(scripts::silent);
    let endpoint = format!("http://127.0.0.1:{}", silent.port());
    let (_tree, mut daemon, port) = start(
        &app,
        &format!("{shutdown}{}", collector::settings(&endpoint, "")),
    );
    time_requests(port, 1);
    wait_until("the collector is asked", SOON, || silent.count() == 1);
    drop(app);
    daemon.signal("TERM");
    let (status, output) = daemon.wait_for_exit(Duration::from_millis(3 * 1000 + 2 * 1000 + 1500));
    assert_eq!(status.code(), Some(0));
    assert!(
        output.contains("the last spans could not be exported in time"),
        "{output}"
    );
}

#[test]
fn the_exporter_can_be_changed_while_running() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (first, second) = (Collector::start(), Collector::start());
    let (tree, daemon, port) = start(&app, "");
    let file = tree.root().join("config/outrigger.yaml");
    let base = std::fs::read_to_string(&file).unwrap();
    let change = |line: &str| {
        std::fs::write(&file, format!("{base}{line}")).unwrap();
        assert_eq!(daemon.reload().status, 200);
    };
    time_requests(port, 3);
    change(&first.settings(""));
    time_requests(port, 2);
    first.take(2);
    change(&second.settings(", queue: 100"));
    time_requests(port, 2);
    second.take(2);
    change("tracing: {exporter: stdout}\n");
    time_requests(port, 1);
    let line = daemon.wait_for_line(&["\"message\":\"span\""]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (name, expected) in [
        ("service", "shop/cart"),
        ("kind", "server"),
        ("name", "GET"),
        ("url.path", "/"),
    ] {
        assert_eq!(line[name], expected, "{line}");
    }
    assert_eq!(line["http.response.status_code"], 200);
    assert_eq!(line["trace_id"].as_str().map(str::len), Some(32));
    assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
    change("tracing: {exporter: none}\n");
    time_requests(port, 3);
    // What is written after them shows that they wrote nothing.
    change("tracing: {exporter: none, samplingRate: 0.5}\n");
    daemon.wait_for_line(&["configuration in force", "\"generation\":6"]);
    assert_eq!(daemon.output().matches("\"message\":\"span\"").count(), 1);
    assert!(first.spans().is_empty() && second.spans().is_empty());
    assert_eq!(dropped(&daemon), 0.0);
}

/// Takes one export over TLS; gives the number of its spans.
fn collector_with_tls() -> (u16, thread::JoinHandle<usize>) {
    let file = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/net/tests")
            .join(name)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(file("server.pem"))
        .and_then(Iterator::collect)
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut reader = Reader::new(rustls::StreamOwned::new(session, stream));
            // A client that does not trust the certificate ends here.
            let Ok(head) = reader.head() else { continue };
            assert_eq!(head.start, "POST /otlp/v1/traces HTTP/1.1");
            let framing = framing(&head, Framing::Length(0)).unwrap();
            let (body, _) = reader.body(framing).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            reader.stream.write_all(answer).unwrap();
            return collector::decode_body(&body).len();
        }
    });
    (port, served)
}

#[test]
fn collectors_are_reached_over_tls() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (collector_port, served) = collector_with_tls();
    let endpoint = format!("https://localhost:{collector_port}/otlp/");
    let ca = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/net/tests")
            .join(name);
        format!(", tls: {{ca: \"{}\"}}", path.display())
    };
    let (_tree, daemon, port) = start(&app, &collector::settings(&endpoint, &ca("other-ca.pem")));
    time_requests(port, 1);
    daemon.wait_for_line(&["spans cannot be exported", "certificate"]);
    drop(daemon);
    let (_tree, daemon, port) = start(&app, &collector::settings(&endpoint, &ca("ca.pem")));
    time_requests(port, 4);
    assert!(served.join().unwrap() > 0);
    assert!(!daemon.output().contains("cannot be exported"));
}
