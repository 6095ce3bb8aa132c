//! The exporter: takes spans from the queue and sends them, in batches, to the
//! collector of the process settings, or prints them.

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use tokio::sync::watch;

use super::otlp;
use super::queue::{Held, Message, Outlet};
use crate::model::{SpanExporter, TlsClientSpec};
use crate::telemetry::log::LogHandle;

/// Spans sent at once, as OpenTelemetry's own batches.
const BATCH: usize = 512;
/// Attempts for a batch; with the pauses between them some four seconds for a
/// collector that refuses at once.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest `Retry-After` that is followed; the queue fills meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Sends requests for the exporter.
pub trait Transport {
    /// One exchange, with the whole answer; `tls` is for `https` endpoints. The
    /// exporter bounds the time.
    ///
    /// # Errors
    /// A sentence for the log, without header values.
    fn post(
        &mut self,
        request: Request<Bytes>,
        tls: Option<&TlsClientSpec>,
    ) -> impl Future<Output = Result<Response<Bytes>, String>>;
}

/// The exporter's end of the queue.
pub struct Source(pub(super) Outlet);

/// Sends what comes out of the queue, as the settings say.
pub struct Exporter<T> {
    source: Source,
    settings: watch::Receiver<SpanExporter>,
    transport: T,
    log: LogHandle,
    /// The last attempt came to nothing, and the log knows.
    failing: bool,
}

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Except so many spans.
    Taken { rejected: usize },
    /// Asking again would not help.
    Refused(String),
    /// OTLP/HTTP: 429, 502, 503, 504, or no answer at all.
    Later {
        why: String,
        after: Option<Duration>,
    },
}

impl<T: Transport> Exporter<T> {
    /// Follows `settings`, also while it runs.
    pub fn new(
        source: Source,
        settings: watch::Receiver<SpanExporter>,
        transport: T,
        log: LogHandle,
    ) -> Self {
        Self {
            source,
            settings,
            transport,
            log,
            failing: false,
        }
    }

    /// Runs until the last producer is gone. Can be begun again where it broke
    /// off.
    pub async fn run(&mut self) {
        while let Some(message) = self.source.0.receiver.recv().await {
            let mut flushed = None;
            match message {
                Message::Flush(done) => flushed = Some(done),
                Message::Spans(mut batch) => {
                    while batch.spans.len() < BATCH && flushed.is_none() {
                        match self.source.0.receiver.try_recv() {
                            Ok(Message::Spans(more)) => batch.absorb(more),
                            Ok(Message::Flush(done)) => flushed = Some(done),
                            Err(_) => break,
                        }
                    }
                    self.export(batch).await;
                }
            }
            if let Some(done) = flushed {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    async fn export(&mut self, batch: Held) {
        let stdout = match &*self.settings.borrow_and_update() {
            SpanExporter::None => return,
            SpanExporter::Stdout => true,
            SpanExporter::Otlp { .. } => false,
        };
        match stdout {
            true => batch.spans.iter().for_each(|span| self.log.span(span)),
            false => self.deliver(batch).await,
        }
    }

    async fn deliver(&mut self, batch: Held) {
        let count = batch.spans.len();
        let body = Bytes::from(otlp::encode(&batch.spans));
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        let lost = loop {
            // Changed settings hold from the next attempt on.
            let settings = self.settings.borrow_and_update().clone();
            match self.attempt(&settings, body.clone()).await {
                Verdict::Taken { rejected } => {
                    self.works();
                    break rejected.min(count);
                }
                Verdict::Refused(why) => {
                    self.fails(&settings, &why);
                    break count;
                }
                Verdict::Later { why, after } => {
                    self.fails(&settings, &why);
                    if attempt == ATTEMPTS || self.source.0.is_hurried() {
                        break count;
                    }
                    let jitter = 0.75 + fastrand::f64() / 2.0;
                    // A collector that says "at once" is in trouble all the same.
                    let time = after.filter(|after| *after >= FIRST_PAUSE);
                    let time = time.unwrap_or(pause.mul_f64(jitter));
                    self.rest(time.min(LONGEST_PAUSE)).await;
                    pause *= 2;
                    attempt += 1;
                }
            }
        };
        batch.lose(lost);
    }

    async fn attempt(&mut self, settings: &SpanExporter, body: Bytes) -> Verdict {
        let SpanExporter::Otlp {
            endpoint,
            headers,
            tls,
            queue: _,
            timeout,
        } = settings
        else {
            // No longer wanted.
            return Verdict::Taken { rejected: 0 };
        };
        let Some(mut request) = address(endpoint).map(|uri| {
            let mut request = Request::new(body);
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = uri;
            request
        }) else {
            return Verdict::Refused("the endpoint is no URL".to_owned());
        };
        let fields = request.headers_mut();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            // Both were checked with the configuration.
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_bytes(value.expose())) {
                value.set_sensitive(true);
                fields.append(name, value);
            }
        }
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        fields.insert(USER_AGENT, HeaderValue::from_static(agent));
        fields.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        let posted = self.transport.post(request, tls.as_ref());
        match tokio::time::timeout(*timeout, posted).await {
            Ok(Ok(answer)) => judge(&answer, SystemTime::now()),
            Ok(Err(why)) => Verdict::Later { why, after: None },
            Err(_) => Verdict::Later {
                why: "no answer in time".to_owned(),
                after: None,
            },
        }
    }

    /// Pauses, unless the settings change or the process is about to end.
    async fn rest(&mut self, time: Duration) {
        let changed = async {
            // Without a sender nothing changes any more.
            if self.settings.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = changed => {}
            () = self.source.0.hurried() => {}
        }
    }

    fn works(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("spans are exported again");
        }
    }

    fn fails(&mut self, settings: &SpanExporter, error: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            let endpoint = match settings {
                SpanExporter::Otlp { endpoint, .. } => origin(endpoint),
                SpanExporter::None | SpanExporter::Stdout => String::new(),
            };
            tracing::warn!(endpoint, error, "spans cannot be exported");
        }
    }
}

/// The receiver of traces at an endpoint, which may name it itself, and have a
/// query.
pub(super) fn address(endpoint: &str) -> Option<Uri> {
    let uri: Uri = endpoint.parse().ok()?;
    let base = uri.path().trim_end_matches('/');
    let mut path = match base.ends_with(otlp::TRACES_PATH) {
        true => base.to_owned(),
        false => format!("{base}{}", otlp::TRACES_PATH),
    };
    if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
        path.push('?');
        path.push_str(query);
    }
    Uri::builder()
        .scheme(uri.scheme()?.clone())
        .authority(uri.authority()?.clone())
        .path_and_query(path)
        .build()
        .ok()
}

/// An endpoint without path and query, for the log.
fn origin(endpoint: &str) -> String {
    let uri = endpoint.parse::<Uri>().unwrap_or_default();
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}")
}

/// What an answer means (OTLP/HTTP, "OTLP/HTTP Response").
pub(super) fn judge(answer: &Response<Bytes>, now: SystemTime) -> Verdict {
    let status = answer.status();
    if status.is_success() {
        return Verdict::Taken {
            rejected: otlp::rejected(answer.body()),
        };
    }
    let why = format!("the collector answered {}", status.as_u16());
    match status.as_u16() {
        429 | 502 | 503 | 504 => Verdict::Later {
            why,
            after: retry_after(answer.headers(), now),
        },
        _ => Verdict::Refused(why),
    }
}

/// Seconds or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What is too large for the type is as long as can be.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}
