//! One request toward an upstream, with the retries that are always safe.

use std::rc::Rc;

use http::Method;

use crate::model::Kind;
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
    if head.http2 {
        return send_http2(pool, head, body, &retried).await;
    }
    let Some(connection) = pool.take_idle() else {
        let connection = connect(pool, &retried).await?;
        return exchange(pool, connection, head, body, 1)
            .await
            .map_err(|(error, _)| error);
    };
    let (error, mut body) = match exchange(pool, connection, head, body, 1).await {
        Ok(sent) => return Ok(sent),
        Err(failed) => failed,
    };
    let reason = if error.is_provably_unsent() {
        RetryReason::DeadConnection
    } else if error.died_before_response() && is_idempotent(&head.method) {
        RetryReason::ClosedBeforeResponse
    } else {
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

/// The body goes with the stream, so only a request without one is tried again.
async fn send_http2(
    pool: &Rc<Pool>,
    head: &RequestHead,
    body: RequestBody,
    retried: &impl Fn(RetryReason),
) -> Result<Sent, UpstreamError> {
    let bodiless = body.is_finished();
    let error = match pool.request_http2(head, body).await {
        Ok(response) => {
            return Ok(Sent {
                response,
                attempt: 1,
            });
        }
        Err(error) => error,
    };
    let reason = match error.kind {
        _ if !bodiless => return Err(error),
        Kind::ConnectRefused => RetryReason::ConnectFailed,
        _ if error.is_provably_unsent() => RetryReason::DeadConnection,
        _ if error.died_before_response() && is_idempotent(&head.method) => {
            RetryReason::ClosedBeforeResponse
        }
        _ => return Err(error),
    };
    retried(reason);
    let response = pool.request_http2(head, RequestBody::empty()).await?;
    Ok(Sent {
        response,
        attempt: 2,
    })
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
