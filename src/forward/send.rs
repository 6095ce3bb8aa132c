//! One request toward an upstream, with the retries that are always safe.

use std::rc::Rc;

use http::Method;

use crate::telemetry::metrics::RetryReason;
use crate::upstream::h1::RequestHead;
use crate::upstream::{
    self, Attempt, Connection, Pool, RequestBody, UpstreamError, UpstreamResponse,
};

/// A response, and how it was come by.
pub struct Sent {
    pub response: Box<UpstreamResponse>,
    /// 1, or 2 after a retry.
    pub attempt: u32,
}

/// Sends a request and waits for the response head (SPEC §2.7).
///
/// `retried` is called with the reason before a second attempt.
///
/// # Errors
/// The error of the last attempt.
pub async fn send(
    pool: &Rc<Pool>,
    head: &RequestHead,
    body: RequestBody,
    retried: impl Fn(RetryReason),
) -> Result<Sent, UpstreamError> {
    let outcome = match head.http2 {
        // Boxed, here and below: what is not done for each request would make
        // each as large as that.
        true => Box::pin(send_http2(pool, head, body, &retried)).await,
        false => send_http1(pool, head, body, &retried).await,
    };
    let traffic = pool.upstream().traffic();
    match &outcome {
        Ok(_) => traffic.succeeded(),
        Err(error) if error.is_theirs() => traffic.failed(),
        Err(_) => {}
    }
    outcome
}

/// Over a connection that is this request's alone.
async fn send_http1(
    pool: &Rc<Pool>,
    head: &RequestHead,
    body: RequestBody,
    retried: &impl Fn(RetryReason),
) -> Result<Sent, UpstreamError> {
    let Some(connection) = pool.take_idle() else {
        let connection = Box::pin(connect(pool, retried)).await?;
        let sent = upstream::request(pool, connection, head, body).await;
        return Sent::by(1, sent);
    };
    let failed = match upstream::request(pool, connection, head, body).await {
        Ok(response) => return Sent::by(1, Ok(response)),
        Err(failed) => failed,
    };
    let (error, mut body) = *failed;
    let Some(reason) = retry_reason(&error, &head.method) else {
        return Err(error);
    };
    if !body.rewind() {
        return Err(error);
    }
    retried(reason);
    let connection = Box::pin(pool.connect()).await?;
    Sent::by(2, upstream::request(pool, connection, head, body).await)
}

impl Sent {
    fn by(attempt: u32, outcome: Attempt) -> Result<Self, UpstreamError> {
        match outcome {
            Ok(response) => Ok(Self { response, attempt }),
            Err(failed) => Err(failed.0),
        }
    }
}

/// RETRY-1: a connect that failed sent nothing, so it is tried once more.
async fn connect(
    pool: &Rc<Pool>,
    retried: &impl Fn(RetryReason),
) -> Result<Connection, UpstreamError> {
    match pool.connect().await {
        Err(error) if error.is_provably_unsent() => {
            retried(RetryReason::ConnectFailed);
            pool.connect().await
        }
        outcome => outcome,
    }
}

/// The same over connections that are shared.
async fn send_http2(
    pool: &Rc<Pool>,
    head: &RequestHead,
    body: RequestBody,
    retried: &impl Fn(RetryReason),
) -> Result<Sent, UpstreamError> {
    let room = match pool.room().await {
        Err(error) if error.is_provably_unsent() => {
            retried(RetryReason::ConnectFailed);
            pool.room().await?
        }
        outcome => outcome?,
    };
    let failed = match upstream::request_http2(pool, room, head, body).await {
        Ok(response) => return Sent::by(1, Ok(response)),
        Err(failed) => failed,
    };
    let (error, mut body) = *failed;
    let Some(reason) = retry_reason(&error, &head.method) else {
        return Err(error);
    };
    if !body.rewind() {
        return Err(error);
    }
    retried(reason);
    let room = pool.room().await?;
    Sent::by(2, upstream::request_http2(pool, room, head, body).await)
}

/// Why a failed attempt may be repeated, if it may.
fn retry_reason(error: &UpstreamError, method: &Method) -> Option<RetryReason> {
    if error.is_provably_unsent() {
        Some(RetryReason::DeadConnection)
    } else if error.died_before_response() && is_idempotent(method) {
        Some(RetryReason::ClosedBeforeResponse)
    } else {
        None
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
