//! An app that is as well as the test wants, and how its sidecar sees it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::Value;

use super::app::{App, Connection, Next, Received};
use super::client::Request;
use super::scripts;
use super::wait::{SOON, wait_until};

/// Reads a request and never answers.
pub(crate) const SILENT: u16 = 0;

/// Answers everything with a status that can be changed.
pub(crate) struct Moody {
    pub(crate) app: App,
    status: Arc<AtomicU16>,
    probes: Arc<AtomicUsize>,
}

impl Moody {
    pub(crate) fn start(status: u16) -> Self {
        Self::saying(status, "application/json", "{\"status\":\"healthy\"}")
    }

    /// With another body.
    pub(crate) fn saying(status: u16, kind: &'static str, body: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let probes = Arc::new(AtomicUsize::new(0));
        let (now, counted) = (Arc::clone(&status), Arc::clone(&probes));
        let script = move |request: &Received, stream: &mut Connection| -> io::Result<Next> {
            let agent = request.header("user-agent").unwrap_or_default();
            if agent.starts_with("outrigger/") {
                counted.fetch_add(1, Ordering::AcqRel);
            }
            match now.load(Ordering::Acquire) {
                SILENT => scripts::silent(request, stream),
                status => {
                    let kind = format!("Content-Type: {kind}\r\n");
                    stream.respond(status, &kind, body.as_bytes())?;
                    Ok(Next::KeepAlive)
                }
            }
        };
        Self {
            app: App::start(script),
            status,
            probes,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.app.port()
    }

    pub(crate) fn becomes(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }

    /// Questions of monitors that arrived.
    pub(crate) fn probes(&self) -> usize {
        self.probes.load(Ordering::Acquire)
    }
}

/// The status and document of a public port's `/health`.
#[track_caller]
pub(crate) fn health(port: u16) -> (u16, Value) {
    let response = Request::get("/health").send(port);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    (response.status, response.json())
}

/// The word of `/health`.
pub(crate) fn status_of(port: u16) -> String {
    let (_, document) = health(port);
    document["status"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a public port's `/health` says this word.
#[track_caller]
pub(crate) fn wait_for_status(port: u16, word: &str) {
    wait_until(&format!("{port} is {word}"), SOON, || {
        status_of(port) == word
    });
}

/// A `healthCheck` that sees every change at once.
pub(crate) const QUICK: &str =
    "{path: /health, interval: 100ms, timeout: 1s, unhealthyThreshold: 1, healthyThreshold: 1}";
