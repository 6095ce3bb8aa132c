//! The exporter of spans in its place: settings, the cold client, the end.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response};
use tokio::sync::{Mutex, watch};

use crate::model::{SpanExporter, TlsClientSpec};
use crate::net::client::ColdClient;
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::{self, Exporter, SpanQueue, Transport};
use crate::telemetry::supervise::Supervisor;

/// Spans held for standard output, which takes them at once.
const STDOUT_QUEUE: usize = 2048;
/// Bytes of a collector's answer: a count and a sentence.
const ANSWER_BYTES: usize = 64 * 1024;
/// For what is still to be exported when the process ends (SPEC §11).
const FLUSH: Duration = Duration::from_secs(2);

/// What the rest of the process knows of the exporter. Cheap to clone.
#[derive(Clone)]
pub(super) struct Spans {
    queue: SpanQueue,
    settings: watch::Sender<SpanExporter>,
}

/// The exporter itself, for the control runtime to run.
pub(super) type SpanTask = Exporter<ColdTransport>;

impl Spans {
    /// Both ends.
    pub(super) fn new(
        exporter: &SpanExporter,
        metrics: &Metrics,
        log: LogHandle,
    ) -> (Self, SpanTask) {
        let (queue, source) = spans::channel(metrics.spans_dropped());
        let (settings, follow) = watch::channel(SpanExporter::None);
        let task = Exporter::new(source, follow, ColdTransport::default(), log);
        let made = Self { queue, settings };
        made.configure(exporter);
        (made, task)
    }

    /// For those who make spans.
    pub(super) fn queue(&self) -> SpanQueue {
        self.queue.clone()
    }

    /// Takes over settings of the process.
    pub(super) fn configure(&self, exporter: &SpanExporter) {
        self.queue.set_capacity(match exporter {
            SpanExporter::None => 0,
            SpanExporter::Stdout => STDOUT_QUEUE,
            SpanExporter::Otlp { queue, .. } => *queue,
        });
        self.settings.send_if_modified(|known| {
            let changed = known != exporter;
            if changed {
                known.clone_from(exporter);
            }
            changed
        });
    }

    /// Sends what there still is; for the end of the process.
    pub(super) async fn flush(&self) {
        if !self.queue.flush(FLUSH).await {
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

/// Runs the exporter, again after a panic. Never ends.
pub(super) fn run(task: SpanTask, supervisor: Supervisor) -> impl Future<Output = ()> {
    let task = Mutex::new(task);
    async move {
        let run = || async { task.lock().await.run().await };
        supervisor.keep("spans", run).await;
        std::future::pending().await
    }
}

/// The cold client, made when it is first needed.
#[derive(Default)]
pub(super) struct ColdTransport {
    /// With the scheme and TLS settings it was made for.
    client: Option<((Option<Scheme>, TlsClientSpec), ColdClient)>,
}

impl ColdTransport {
    async fn client(
        &mut self,
        request: &Request<Bytes>,
        tls: Option<&TlsClientSpec>,
    ) -> Result<&ColdClient, String> {
        let scheme = request.uri().scheme().cloned();
        let wanted = (scheme, tls.cloned().unwrap_or_default());
        let known = self.client.take().filter(|(known, _)| *known == wanted);
        let client = match known {
            Some((_, client)) => client,
            None => {
                let client = ColdClient::for_uri(request.uri(), &wanted.1).await;
                client.map_err(|error| error.to_string())?
            }
        };
        let (_, client) = self.client.insert((wanted, client));
        Ok(client)
    }
}

impl Transport for ColdTransport {
    async fn post(
        &mut self,
        request: Request<Bytes>,
        tls: Option<&TlsClientSpec>,
    ) -> Result<Response<Bytes>, String> {
        let client = self.client(&request, tls).await?;
        let sent = client.send(request, ANSWER_BYTES).await;
        sent.map_err(|error| {
            // The next one reads certificates anew: they may have been replaced.
            self.client = None;
            error.to_string()
        })
    }
}
