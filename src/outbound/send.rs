//! One call toward a dependency: which address, how often, and what its answer
//! says about it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::directory::Route;
use crate::model::Kind;
use crate::net::deadline::Deadline;
use crate::snapshot::Dependency;
use crate::telemetry::metrics::RetryReason;
use crate::upstream::cluster::{Admission, Pick};
use crate::upstream::h1::{Framing, RequestHead};
use crate::upstream::{self, RequestBody, UpstreamError, UpstreamResponse};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Longest pause before a retry.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Added to the timeout of the whole, so that an address that is silent for
/// all of it is seen as such by its own timeout first.
const GRACE: Duration = Duration::from_millis(200);

/// A response, and how it was come by.
pub(super) struct Sent {
    pub(super) response: UpstreamResponse,
    /// Counts as in flight until it is dropped.
    pub(super) pick: Pick,
    pub(super) attempt: u32,
}

/// A call that came to nothing.
pub(super) struct Unsent {
    pub(super) error: UpstreamError,
    /// 0 when nobody was asked.
    pub(super) attempt: u32,
}

/// Sends a request until its response head is there, within the dependency's
/// timeout over all attempts.
pub(super) async fn send(
    route: &Rc<Route>,
    head: RequestHead,
    body: RequestBody,
    retried: impl Fn(RetryReason),
) -> Result<Sent, Unsent> {
    let dependency = &route.dependency;
    let admission = dependency.cluster.admit();
    let mut call = Call {
        admission: admission.map_err(|error| Unsent { error, attempt: 0 })?,
        deadline: route.lanes.deadline(),
        attempt: 0,
        retries_left: dependency.spec.retries,
        free_retry: true,
        avoid: None,
        route,
        head,
    };
    call.deadline.arm(dependency.spec.timeout + GRACE);
    route.lanes.budget().earn();
    let outcome = call.run(body, retried).await;
    outcome.map_err(|error| Unsent {
        error,
        attempt: call.attempt,
    })
}

/// One call and its attempts.
struct Call<'a> {
    route: &'a Rc<Route>,
    admission: Admission,
    head: RequestHead,
    /// Of the whole.
    deadline: Deadline,
    attempt: u32,
    /// As configured.
    retries_left: u32,
    /// RETRY-1 and RETRY-2, once.
    free_retry: bool,
    /// The address that failed last.
    avoid: Option<SocketAddr>,
}

/// What to do after an attempt.
enum Next {
    Give,
    /// At once.
    Again(RetryReason),
    /// After a pause, out of the budget.
    Later(RetryReason),
}

impl Call<'_> {
    async fn run(
        &mut self,
        mut body: RequestBody,
        retried: impl Fn(RetryReason),
    ) -> Result<Sent, UpstreamError> {
        let bodiless = self.head.framing == Framing::None;
        loop {
            let mut pick = self.route.lanes.pick(self.avoid).await?;
            self.attempt += 1;
            self.avoid = Some(pick.address());
            self.head.headers.insert(HOST, pick.host().clone());
            match self.attempt_on(&pick, body).await {
                Ok(response) => {
                    let judged = Judgement::of(&response, &self.route.dependency);
                    match judged.well {
                        true => pick.succeeded(&mut self.admission),
                        false => pick.failed(&mut self.admission),
                    }
                    let again = judged.may_repeat && bodiless && self.may_retry();
                    if !again {
                        let attempt = self.attempt;
                        return Ok(Sent {
                            response,
                            pick,
                            attempt,
                        });
                    }
                    body = RequestBody::empty();
                    retried(RetryReason::Status);
                    self.pause().await?;
                }
                Err((error, returned)) => {
                    if error.is_theirs() {
                        pick.failed(&mut self.admission);
                    }
                    let next = self.after(&error);
                    let rewound = returned.and_then(|mut body| body.rewind().then_some(body));
                    body = match (next, rewound) {
                        (Next::Give, _) | (_, None) => return Err(error),
                        (Next::Again(reason), Some(body)) => {
                            retried(reason);
                            body
                        }
                        (Next::Later(reason), Some(body)) => {
                            retried(reason);
                            self.pause().await?;
                            body
                        }
                    };
                }
            }
        }
    }

    /// One attempt; the deadline of the whole ends it too.
    async fn attempt_on(
        &self,
        pick: &Pick,
        body: RequestBody,
    ) -> Result<UpstreamResponse, (UpstreamError, Option<RequestBody>)> {
        let expired = std::future::poll_fn(|context| self.deadline.poll_expired(context));
        tokio::select! {
            biased;
            outcome = once(pick, &self.head, body) => outcome,
            () = expired => Err((out_of_time(), None)),
        }
    }

    fn after(&mut self, error: &UpstreamError) -> Next {
        let unsent = error.is_provably_unsent() || error.kind == Kind::ConnectTimeout;
        let idempotent = is_idempotent(&self.head.method);
        let reason = match error.kind {
            Kind::ConnectRefused | Kind::ConnectTimeout => RetryReason::ConnectFailed,
            _ if unsent => RetryReason::DeadConnection,
            Kind::ResponseTimeout => RetryReason::Timeout,
            _ => RetryReason::ClosedBeforeResponse,
        };
        let free = unsent || (error.died_before_response() && idempotent);
        if free && std::mem::take(&mut self.free_retry) {
            return Next::Again(reason);
        }
        let repeatable = unsent || (idempotent && !error.received);
        if repeatable && error.is_theirs() && self.may_retry() {
            return Next::Later(reason);
        }
        Next::Give
    }

    /// A configured retry, if there is one left and the budget has it.
    fn may_retry(&mut self) -> bool {
        let may = self.retries_left > 0
            && self.admission.allows_another()
            && self.route.lanes.budget().spend();
        if may {
            self.retries_left -= 1;
        }
        may
    }

    /// Twice as long each time, and never all callers at once.
    async fn pause(&self) -> Result<(), UpstreamError> {
        let spec = &self.route.dependency.spec;
        let before = spec.retries.saturating_sub(self.retries_left + 1).min(16);
        let longest = spec
            .retry_delay
            .saturating_mul(1 << before)
            .min(LONGEST_PAUSE);
        let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        let expired = std::future::poll_fn(|context| self.deadline.poll_expired(context));
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = expired => Err(out_of_time()),
        }
    }
}

async fn once(
    pick: &Pick,
    head: &RequestHead,
    body: RequestBody,
) -> Result<UpstreamResponse, (UpstreamError, Option<RequestBody>)> {
    let pool = pick.pool();
    if head.http2 {
        let room = match pool.room().await {
            Ok(room) => room,
            Err(error) => return Err((error, Some(body))),
        };
        let outcome = upstream::request_http2(pool, room, head, body).await;
        return outcome.map_err(|(error, body)| (error, Some(body)));
    }
    let connection = match pool.take_idle() {
        Some(connection) => connection,
        None => match pool.connect().await {
            Ok(connection) => connection,
            Err(error) => return Err((error, Some(body))),
        },
    };
    let outcome = upstream::request(pool, connection, head, body).await;
    outcome.map_err(|(error, body)| (error, Some(body)))
}

/// What an answer says about whoever gave it.
struct Judgement {
    /// The address does its work.
    well: bool,
    /// Another attempt may fare better and does no harm.
    may_repeat: bool,
}

impl Judgement {
    fn of(response: &UpstreamResponse, dependency: &Dependency) -> Self {
        let words = Words::of(&response.headers, dependency);
        let status = response.status;
        let unavailable = response
            .headers
            .get(GRPC_STATUS)
            .is_some_and(|code| code == "14");
        let bad = unavailable
            || (status.is_server_error()
                && status != StatusCode::NOT_IMPLEMENTED
                && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        let gateway = matches!(status.as_u16(), 502..=504);
        Self {
            // A farther hop that fails is not this one's fault.
            well: !bad || words == Words::Farther,
            may_repeat: gateway
                && match words {
                    Words::NextHop => true,
                    Words::Farther => false,
                    // Behind a sidecar it may be about anything farther on.
                    Words::Unsigned => !dependency.spec.has_sidecar,
                },
        }
    }
}

/// Whose words an answer is, by `Proxy-Status` (RFC 9209).
#[derive(PartialEq, Eq)]
enum Words {
    Unsigned,
    /// The dependency's own sidecar says so, about its app.
    NextHop,
    /// Somebody behind it.
    Farther,
}

impl Words {
    fn of(headers: &HeaderMap, dependency: &Dependency) -> Self {
        let mut values = headers.get_all(PROXY_STATUS).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return match headers.contains_key(PROXY_STATUS) {
                true => Self::Farther,
                false => Self::Unsigned,
            };
        };
        let text = value.to_str().unwrap_or_default();
        let (who, rest) = text.split_once(';').unwrap_or((text, ""));
        let who = who.trim().trim_matches('"');
        let own = dependency.identity.as_deref() == Some(who);
        // One of our own that tells of a call it made names whom it called.
        match own && !rest.contains(',') && !rest.contains("next-hop") {
            true => Self::NextHop,
            false => Self::Farther,
        }
    }
}

/// The time of the whole is over; no verdict on the address asked last.
fn out_of_time() -> UpstreamError {
    let mut error = UpstreamError::connecting(Kind::ResponseTimeout, "no response within timeout");
    error.sent = true;
    error
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}
