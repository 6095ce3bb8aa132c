//! One request toward an upstream, with the retries that are always safe.

use std::rc::Rc;

use http::Method;

use crate::telemetry::metrics::RetryReason;
use crate::upstream::h1::RequestHead;
use crate::upstream::{self, Connection, Pool, RequestBody, UpstreamError, UpstreamResponse};

/// A response, and how it was come by.
pub struct Sent {
    pub response: UpstreamResponse,
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
        true => send_http2(pool, head, body, &retried).await,
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
        let connection = connect(pool, retried).await?;
        return exchange(pool, connection, head, body, 1)
            .await
            .map_err(|(error, _)| error);
    };
    let (error, mut body) = match exchange(pool, connection, head, body, 1).await {
        Ok(sent) => return Ok(sent),
        Err(failed) => failed,
    };
    let Some(reason) = retry_reason(&error, &head.method) else {
        return Err(error);
    };
    if !body.rewind() {
        return Err(error);
    }
    retried(reason);
    let connection = pool.connect().await?;
    exchange(pool, connection, head, body, 2)
        .await
        .map_err(|(error, _)| error)
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

async fn exchange(
    pool: &Rc<Pool>,
    connection: Connection,
    head: &RequestHead,
    body: RequestBody,
    attempt: u32,
) -> Result<Sent, (UpstreamError, RequestBody)> {
    let response = upstream::request(pool, connection, head, body).await?;
    Ok(Sent { response, attempt })
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
    let (error, mut body) = match upstream::request_http2(pool, room, head, body).await {
        Ok(response) => {
            return Ok(Sent {
                response,
                attempt: 1,
            });
        }
        Err(failed) => failed,
    };
    let Some(reason) = retry_reason(&error, &head.method) else {
        return Err(error);
    };
    if !body.rewind() {
        return Err(error);
    }
    retried(reason);
    let room = pool.room().await?;
    let sent = upstream::request_http2(pool, room, head, body).await;
    sent.map(|response| Sent {
        response,
        attempt: 2,
    })
    .map_err(|(error, _)| error)
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
