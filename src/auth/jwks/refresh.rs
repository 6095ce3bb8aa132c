//! The task that keeps a key set fresh.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{ACCEPT, AGE, CACHE_CONTROL, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use tokio::time::{Instant, sleep_until};

use crate::auth::jwt::{KeyError, KeySet};
use crate::model::{JwksSource, TlsClientSpec};
use crate::net::client::{ColdClient, ColdError};
use crate::telemetry::metrics::ServiceMetrics;

use super::{Done, Shared, Timing};

/// A key set document, at most.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a fetch brought no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer in time")]
    Timeout,
    #[error("the url is not usable")]
    Url,
    #[error(transparent)]
    Client(#[from] ColdError),
    /// Redirects too: a key set is where the configuration says.
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// Keys and how long to believe them.
struct Fetched {
    set: KeySet,
    digest: [u8; 32],
    lifetime: Duration,
}

/// When the next fetch is due and what the last ones were like.
struct Schedule {
    timing: Timing,
    stale_keys: Duration,
    due: Instant,
    /// When the keys in use are no longer fresh.
    expires: Instant,
    failures: u32,
}

/// Fetches until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, metrics: Arc<ServiceMetrics>) {
    let JwksSource::Url { stale_keys, .. } = &shared.source else {
        return;
    };
    let mut schedule = Schedule::new(shared.timing, *stale_keys);
    loop {
        let rung = tokio::select! {
            biased;
            () = shared.bell.notified() => true,
            () = sleep_until(schedule.due) => false,
        };
        let granted = shared.granted();
        if rung && shared.done.borrow().served >= granted {
            // The fetch that was asked for has been made meanwhile.
            continue;
        }
        let fetched = tokio::time::timeout(shared.timing.fetch, fetch(&shared)).await;
        let good = match fetched.unwrap_or(Err(FetchError::Timeout)) {
            Ok(fetched) => {
                if schedule.failures > 0 || shared.loaded.load().is_none() {
                    tracing::info!(
                        source = source_name(&shared.source),
                        keys = fetched.set.len(),
                        "key set loaded"
                    );
                }
                shared.store(fetched.set, fetched.digest);
                schedule.succeeded(fetched.lifetime);
                true
            }
            Err(error) => {
                schedule.failed(shared.loaded.load().is_some());
                report(&shared, &schedule, &error);
                if schedule.gives_up() && shared.loaded.load().is_some() {
                    shared.clear();
                    tracing::error!(
                        source = source_name(&shared.source),
                        "key set given up: it could not be refreshed for too long"
                    );
                }
                false
            }
        };
        let keys = shared
            .loaded
            .load()
            .as_ref()
            .map_or(0, |loaded| loaded.set.len());
        metrics.key_set_fetched(good, keys, SystemTime::now());
        shared.done.send_replace(Done {
            served: granted,
            good,
        });
    }
}

/// The first failure is a warning, the rest are repetitions.
fn report(shared: &Shared, schedule: &Schedule, error: &FetchError) {
    let source = source_name(&shared.source);
    if schedule.failures == 1 {
        tracing::warn!(source, error = %error, "key set not loaded");
    } else {
        tracing::debug!(source, error = %error, failures = schedule.failures, "key set not loaded");
    }
}

/// The server's name: a URL may hold a secret in its query.
fn source_name(source: &JwksSource) -> &str {
    match source {
        JwksSource::Url { url, .. } => url
            .split_once("://")
            .map_or(url.as_str(), |(_, rest)| rest)
            .split(['/', '?', '#'])
            .next()
            .and_then(|authority| authority.rsplit('@').next())
            .unwrap_or_default(),
        JwksSource::File { .. } => "file",
    }
}

impl Schedule {
    fn new(timing: Timing, stale_keys: Duration) -> Self {
        let now = Instant::now();
        Self {
            timing,
            stale_keys,
            due: now,
            expires: now,
            failures: 0,
        }
    }

    /// Refreshes a little before the keys' lifetime ends, not all at once.
    fn succeeded(&mut self, lifetime: Duration) {
        let now = Instant::now();
        self.failures = 0;
        self.expires = now + lifetime;
        self.due = now + lifetime.mul_f64(0.8 + 0.15 * fastrand::f64());
    }

    fn failed(&mut self, has_keys: bool) {
        let timing = &self.timing;
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let longest = if has_keys {
            timing.max_retry
        } else {
            timing.max_retry_empty
        };
        let pause = timing.retry.saturating_mul(1 << doublings).min(longest);
        let now = Instant::now();
        self.due = now + pause.mul_f64(0.8 + 0.2 * fastrand::f64());
        if has_keys && self.give_up_at() > now {
            self.due = self.due.min(self.give_up_at());
        }
    }

    fn give_up_at(&self) -> Instant {
        self.expires + self.stale_keys
    }

    fn gives_up(&self) -> bool {
        Instant::now() >= self.give_up_at()
    }
}

async fn fetch(shared: &Shared) -> Result<Fetched, FetchError> {
    let JwksSource::Url { url, ca, .. } = &shared.source else {
        return Err(FetchError::Url);
    };
    let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
    let tls = TlsClientSpec {
        ca: ca.clone(),
        ..TlsClientSpec::default()
    };
    // Made anew each time: it is needed every few minutes at most, and the
    // system's roots weigh more than the handshake.
    let client = ColdClient::for_uri(&uri, &tls).await?;
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(
        ACCEPT,
        HeaderValue::from_static("application/jwk-set+json, application/json"),
    );
    let response = client.send(request, MAX_BYTES).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let set = KeySet::document(response.body(), &shared.algorithms, false)?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, response.body()).as_ref());
    Ok(Fetched {
        set,
        digest: sha256,
        lifetime: lifetime(&response, &shared.timing),
    })
}

/// Freshness by `Cache-Control` and `Age` (RFC 9111 §4.2), within bounds.
fn lifetime(response: &Response<Bytes>, timing: &Timing) -> Duration {
    let headers = response.headers();
    let lifetime = match max_age(headers) {
        Some(age) => {
            let shown = headers.get(AGE).and_then(|value| value.to_str().ok());
            let spent = shown.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            Duration::from_secs(age.saturating_sub(spent))
        }
        None => timing.default_lifetime,
    };
    lifetime.clamp(timing.min_lifetime, timing.max_lifetime)
}

/// Seconds; 0 where caching is forbidden, `None` where nothing is said.
fn max_age(headers: &HeaderMap) -> Option<u64> {
    let mut found = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-store" || directive == "no-cache" {
                return Some(0);
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                found = seconds.trim_matches('"').parse().ok().or(found);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&'static str, &'static str)]) -> Duration {
        let mut response = Response::new(Bytes::new());
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        lifetime(&response, &Timing::default())
    }

    #[test]
    fn lifetimes_are_bounded() {
        let seconds = Duration::from_secs;
        assert_eq!(answer(&[]), seconds(600));
        assert_eq!(
            answer(&[("cache-control", "public, max-age=900")]),
            seconds(900)
        );
        assert_eq!(
            answer(&[("cache-control", "Max-Age=900"), ("age", "300")]),
            seconds(600)
        );
        assert_eq!(answer(&[("cache-control", "max-age=1")]), seconds(60));
        assert_eq!(
            answer(&[("cache-control", "max-age=99999999999")]),
            seconds(86_400)
        );
        assert_eq!(
            answer(&[("cache-control", "max-age=900, no-store")]),
            seconds(60)
        );
        assert_eq!(answer(&[("cache-control", "max-age=x")]), seconds(600));
        assert_eq!(answer(&[("cache-control", "max-age=-1")]), seconds(600));
    }

    #[test]
    fn names_hold_no_secrets() {
        let url = |url: &str| JwksSource::Url {
            url: url.to_owned(),
            ca: None,
            stale_keys: Duration::ZERO,
        };
        assert_eq!(
            source_name(&url("https://user:pass@id.example:8443/k?key=1")),
            "id.example:8443"
        );
        assert_eq!(source_name(&url("https://id.example")), "id.example");
    }
}
