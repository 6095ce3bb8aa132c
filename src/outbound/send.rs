//! One call toward a dependency: which address, how often, and what its answer
//! says about it.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use http::header::HOST;

use super::directory::Route;
use super::judgement::Judgement;
use crate::model::Kind;
use crate::net::deadline::Deadline;
use crate::telemetry::metrics::RetryReason;
use crate::upstream::cluster::{Admission, Pick};
use crate::upstream::h1::{Framing, RequestHead};
use crate::upstream::{self, Delivery, Pool, RequestBody, UpstreamError, UpstreamResponse};

/// Longest pause before a retry.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Added to the timeout of the whole, so that an address that is silent for
/// all of it is seen as such by its own timeout first.
const GRACE: Duration = Duration::from_millis(200);
/// A probe whose client has not given the whole body by then is none: others
/// must not wait for it.
const PROBE_UPLOAD: Duration = Duration::from_secs(1);

/// A response, and how it was come by.
pub(super) struct Sent {
    pub(super) response: Box<UpstreamResponse>,
    /// Counts as in flight until it is dropped.
    pub(super) pick: Pick,
    pub(super) attempt: u32,
}

/// Who is told how a call goes on.
pub(super) struct Told<R, A> {
    /// Of the reason, before another attempt.
    pub(super) retried: R,
    /// Of address and number, before each attempt.
    pub(super) asks: A,
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
    mut body: RequestBody,
    told: Told<impl Fn(RetryReason), impl FnMut(&Pick, u32)>,
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
        delivery: (head.framing != Framing::None).then(|| body.delivery()),
        route,
        head,
    };
    call.deadline.arm(dependency.spec.timeout + GRACE);
    route.lanes.budget().earn();
    let outcome = call.run(body, told).await;
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
    /// The address asked last.
    avoid: Option<SocketAddr>,
    /// Of the body, where there is one.
    delivery: Option<Rc<Delivery>>,
}

/// An attempt without an answer.
struct Failed {
    error: UpstreamError,
    /// For another attempt.
    body: Option<RequestBody>,
    /// It speaks against the address.
    theirs: bool,
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
        told: Told<impl Fn(RetryReason), impl FnMut(&Pick, u32)>,
    ) -> Result<Sent, UpstreamError> {
        let Told { retried, mut asks } = told;
        let bodiless = self.head.framing == Framing::None;
        loop {
            let mut pick = self.route.lanes.pick(self.avoid).await?;
            self.attempt += 1;
            self.avoid = Some(pick.address());
            asks(&pick, self.attempt);
            self.head.ours.set(&HOST, pick.host());
            match self.attempt_on(&mut pick, body).await {
                Ok(response) => {
                    let judged = Judgement::of(&response, &self.route.dependency);
                    match judged.well {
                        true => pick.succeeded(&mut self.admission),
                        false => pick.failed(&mut self.admission),
                    }
                    let again = judged.may_repeat
                        && bodiless
                        && is_idempotent(&self.head.method)
                        && self.may_retry();
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
                Err(Failed {
                    error,
                    body: returned,
                    theirs,
                }) => {
                    if theirs {
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
        &mut self,
        pick: &mut Pick,
        body: RequestBody,
    ) -> Result<Box<UpstreamResponse>, Failed> {
        let began = Instant::now();
        let pool = Rc::clone(pick.pool());
        let is_probe = self.admission.is_probe() || pick.is_probe();
        let mut attempt = pin!(once(&pool, &self.head, body));
        let mut expired = pin!(std::future::poll_fn(|context| self
            .deadline
            .poll_expired(context)));
        let mut hogs = pin!(async {
            match is_probe && self.delivery.is_some() {
                true => tokio::time::sleep(PROBE_UPLOAD).await,
                false => std::future::pending().await,
            }
        });
        let mut watched = true;
        loop {
            tokio::select! {
                biased;
                outcome = &mut attempt => {
                    return outcome.map_err(|(error, body)| Failed {
                        theirs: error.is_theirs(),
                        error,
                        body,
                    });
                }
                () = &mut expired => {
                    return Err(Failed {
                        theirs: self.was_silent_since(began),
                        error: out_of_time(Some(pick.address())),
                        body: None,
                    });
                }
                () = &mut hogs, if watched => {
                    watched = false;
                    let delivery = self.delivery.as_ref();
                    if delivery.is_some_and(|delivery| delivery.completed().is_none()) {
                        self.admission.give_probe_back();
                        pick.give_probe_back();
                    }
                }
            }
        }
    }

    /// Whether an address asked at `began` had the whole of the timeout for its
    /// answer. A client that was slow, or attempts before, leave it less: then
    /// silence says nothing about it.
    fn was_silent_since(&self, began: Instant) -> bool {
        let asked = match &self.delivery {
            Some(delivery) => delivery.completed().map(|given| given.max(began)),
            None => Some(began),
        };
        let timeout = self.route.dependency.spec.timeout;
        asked.is_some_and(|asked| asked.elapsed() >= timeout)
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
            () = expired => Err(out_of_time(self.avoid)),
        }
    }
}

async fn once(
    pool: &Rc<Pool>,
    head: &RequestHead,
    body: RequestBody,
) -> Result<Box<UpstreamResponse>, (UpstreamError, Option<RequestBody>)> {
    if head.http2 {
        let room = match pool.room().await {
            Ok(room) => room,
            Err(error) => return Err((error, Some(body))),
        };
        let outcome = upstream::request_http2(pool, room, head, body).await;
        return outcome.map_err(|failed| with_body(*failed));
    }
    let connection = match pool.take_idle() {
        Some(connection) => connection,
        None => match pool.connect().await {
            Ok(connection) => connection,
            Err(error) => return Err((error, Some(body))),
        },
    };
    let outcome = upstream::request(pool, connection, head, body).await;
    outcome.map_err(|failed| with_body(*failed))
}

fn with_body((error, body): (UpstreamError, RequestBody)) -> (UpstreamError, Option<RequestBody>) {
    (error, Some(body))
}

/// The time of the whole is over; `asked` is the address asked last.
fn out_of_time(asked: Option<SocketAddr>) -> UpstreamError {
    let mut error = UpstreamError::connecting(Kind::ResponseTimeout, "no response within timeout");
    error.sent = true;
    error.address = asked.map(|address| Arc::from(address.to_string()));
    error
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}
