//! Strategy `custom`: an HTTP server of the operator's decides.
//!
//! 2xx lets the request pass and may set headers toward the app; 3xx and 4xx
//! refuse it with the hook's own answer; anything else (408, 429, 5xx, silence, a
//! broken answer) is an error, which is 503 unless `failOpen`. A refusal never
//! turns into an error, however odd the answer, so `failOpen` cannot open it.

mod answer;
mod asking;
mod cache;
mod question;
mod standing;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderName;
use http::uri::Scheme;
use http::{Response, StatusCode, Uri};

use crate::model::{
    AuthReason, FieldLines, HeaderCase, HookPolicy, Kind, UpstreamProtocol, UpstreamSpec,
    UpstreamTarget,
};
use crate::net::Permits;
use crate::upstream::h1::RequestHead;
use crate::upstream::{self, Pool, RequestBody, Upstream, UpstreamError, UpstreamResponse};

use super::call::Call;
use super::named::Named;
use super::{AuthWorker, BuildError};

use asking::Asking;
use cache::Answers;
use question::Shape;
use standing::Standing;

/// Connections kept per worker; a hook answers within milliseconds.
const MAX_IDLE: usize = 64;
/// Shorter than the keep-alive of any usual server.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Headers whose value names the caller, the first one present counts: those of
/// oauth2-proxy, of Authelia and Caddy, and the common one.
const SUBJECT_HEADERS: [&str; 4] = [
    "x-auth-request-user",
    "remote-user",
    "x-forwarded-user",
    "x-auth-request-email",
];

/// The hook of one service.
#[derive(Debug)]
pub(super) struct Hook {
    policy: HookPolicy,
    workers: usize,
    upstream: Arc<Upstream>,
    shape: Shape,
    response_headers: Box<[HeaderName]>,
    /// Of `response_headers`, those that may name the caller.
    subject_headers: Box<[HeaderName]>,
    in_flight: Permits,
    answers: Option<Answers>,
    standing: Standing,
}

/// What a hook allowed.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) named: Named,
    /// Toward the app.
    pub(super) headers: FieldLines,
}

/// A hook's word.
#[derive(Debug, Clone)]
pub(super) enum Word {
    Granted(Arc<Grant>),
    /// To be relayed.
    Denied(Arc<Response<Bytes>>),
    /// There is no word; nothing of this kind is remembered.
    Failed(AuthReason),
}

impl Hook {
    pub(super) fn build(policy: &HookPolicy, workers: usize) -> Result<Self, BuildError> {
        let uri: Uri = policy.url.parse().map_err(|_| BuildError::HookUrl)?;
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or(BuildError::HookUrl)?.trim_matches(['[', ']']);
        let (implied, tls) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => (80, None),
            Some(scheme) if *scheme == Scheme::HTTPS => {
                (443, Some(policy.tls.clone().unwrap_or_default()))
            }
            _ => return Err(BuildError::HookUrl),
        };
        let port = uri.port_u16().unwrap_or(implied);
        let target = UpstreamTarget::Tcp {
            host: Arc::from(host),
            port,
        };
        let spec = UpstreamSpec {
            target,
            protocol: UpstreamProtocol::Http1,
            header_case: HeaderCase::Lower,
            connect_timeout: policy.timeout,
            response_timeout: policy.timeout,
            body_idle_timeout: policy.timeout,
            pool_idle_timeout: IDLE_TIMEOUT,
            max_idle: MAX_IDLE,
            tls,
        };
        let response_headers = question::header_names(&policy.response_headers)?;
        Ok(Self {
            shape: Shape::build(policy, &uri)?,
            subject_headers: SUBJECT_HEADERS
                .into_iter()
                .map(HeaderName::from_static)
                .filter(|name| response_headers.contains(name))
                .collect(),
            response_headers,
            upstream: Arc::new(
                Upstream::new(spec).map_err(|error| BuildError::HookTls(error.to_string()))?,
            ),
            in_flight: Permits::default(),
            answers: (!policy.cache.is_zero()).then(|| Answers::new(workers)),
            policy: policy.clone(),
            workers,
            standing: Standing::new(),
        })
    }

    /// Whether this is the hook of such a policy.
    pub(super) fn is_for(&self, policy: &HookPolicy, workers: usize) -> bool {
        self.policy == *policy && self.workers == workers
    }

    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(super) fn fails_open(&self) -> bool {
        self.policy.fail_open
    }

    /// Asks about a request, or remembers what was said about the same one.
    pub(super) async fn ask(self: &Arc<Self>, call: &Call<'_>, worker: &AuthWorker) -> Word {
        let head = self.shape.question(call);
        let Some(answers) = &self.answers else {
            return self.ask_anew(call, head, worker).await.0;
        };
        let key = cache::key_of(&head, call);
        if let Some(word) = answers.get(worker.index(), &key, Instant::now()) {
            return word;
        }
        let (word, cacheable) = self.ask_anew(call, head, worker).await;
        if cacheable {
            let until = Instant::now() + self.policy.cache;
            answers.put(worker.index(), key, word.clone(), until);
        }
        word
    }

    /// The word, and whether it may be remembered.
    async fn ask_anew(
        self: &Arc<Self>,
        call: &Call<'_>,
        mut head: RequestHead,
        worker: &AuthWorker,
    ) -> (Word, bool) {
        let Some(_permit) = self.in_flight.try_acquire(self.policy.max_in_flight) else {
            return (Word::Failed(AuthReason::HookBusy), false);
        };
        let pool = worker.pool(self, self.policy.timeout);
        let deadline = tokio::time::Instant::now() + self.policy.timeout;
        let asking = Asking::begin(call, &mut head);
        let sent = tokio::time::timeout_at(deadline, send(&pool, &head)).await;
        let answer = sent.as_ref().ok().and_then(|sent| sent.as_deref().ok());
        asking.end(&head, &self.upstream, answer);
        match sent {
            Ok(Ok(response)) => {
                let answer = answer::read(self, response, deadline).await;
                let failed = matches!(answer.word, Word::Failed(_));
                self.tell(failed.then_some("an answer that decides nothing"));
                let cacheable = answer.cacheable && !failed;
                (self.send_to_sign_in(call, answer.word), cacheable)
            }
            Ok(Err(error)) => {
                self.tell(Some(&error.detail));
                (Word::Failed(reason_of(&error)), false)
            }
            Err(_) => {
                self.tell(Some("no answer in time"));
                (Word::Failed(AuthReason::HookTimeout), false)
            }
        }
    }

    fn tell(&self, failure: Option<&str>) {
        let target = &self.upstream.spec().target;
        match failure {
            Some(error) => self.standing.failed(target, error, self.policy.fail_open),
            None => self.standing.decided(target),
        }
    }

    /// A browser that has to sign in is sent there instead of being told 401.
    fn send_to_sign_in(&self, call: &Call<'_>, word: Word) -> Word {
        match (&word, &self.policy.sign_in) {
            (Word::Denied(answer), Some(sign_in))
                if answer.status() == StatusCode::UNAUTHORIZED && answer::is_navigation(call) =>
            {
                Word::Denied(Arc::new(answer::sign_in(sign_in, call, answer)))
            }
            _ => word,
        }
    }
}

/// One exchange, begun again where a kept connection turned out dead: nothing
/// is changed by asking.
async fn send(pool: &Rc<Pool>, head: &RequestHead) -> Result<Box<UpstreamResponse>, UpstreamError> {
    if let Some(connection) = pool.take_idle() {
        match upstream::request(pool, connection, head, RequestBody::empty()).await {
            Ok(response) => return Ok(response),
            Err(failed) if failed.0.is_provably_unsent() || failed.0.died_before_response() => {}
            Err(failed) => return Err(failed.0),
        }
    }
    let connection = pool.connect().await?;
    upstream::request(pool, connection, head, RequestBody::empty())
        .await
        .map_err(|failed| failed.0)
}

fn reason_of(error: &UpstreamError) -> AuthReason {
    match error.kind {
        Kind::ConnectTimeout | Kind::ResponseTimeout => AuthReason::HookTimeout,
        Kind::UpstreamProtocol => AuthReason::HookAnswer,
        _ => AuthReason::HookUnreachable,
    }
}
