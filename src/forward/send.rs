//! One request toward an upstream, with the retries that are always safe.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;

use crate::telemetry::metrics::RetryReason;
use crate::upstream::h1::{Exchange, RequestHead, UpstreamResponse};
use crate::upstream::{Connection, Pool, RequestBody, UpstreamError};

/// A response, and how it was come by.
pub struct Sent {
    pub response: UpstreamResponse,
    /// For the log.
    pub address: Arc<str>,
    /// Served by a kept-alive connection.
    pub reused: bool,
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
    let (address, reused) = (Arc::clone(connection.address()), connection.is_reused());
    let exchange = Exchange::new(connection, Rc::clone(pool), head, body);
    let response = exchange.response().await?;
    Ok(Sent {
        response,
        address,
        reused,
        attempt,
    })
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
