//! One question to a target and what counts as a good answer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::AbortOnDropHandle;

use crate::model::UpstreamProtocol;
use crate::net::stream::Stream;
use crate::net::tls::Wire;
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::Upstream;

/// How the target is asked.
#[derive(Debug, Clone)]
pub(super) enum Probe {
    Http {
        path: Arc<str>,
        expects: Expectation,
    },
    /// `grpc.health.v1.Health/Check` of the whole server.
    Grpc,
}

/// Which statuses are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    /// 2xx or 3xx.
    Success,
    /// Below 500.
    AnyAnswer,
}

/// Why a target is not up.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no answer in time")]
    Timeout,
    #[error(transparent)]
    Connect(UpstreamError),
    /// Of a kind of target that is not asked over HTTP; for the log.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("grpc.health.v1 does not say SERVING")]
    NotServing,
}

type ProbeBody = BoxBody<Bytes, Infallible>;

/// Longest gRPC health answer that is read.
const MAX_GRPC_ANSWER: usize = 1024;

impl Probe {
    /// Asks once, naming `host`; the caller limits the time.
    pub(super) async fn ask(&self, upstream: &Upstream, host: &str) -> Result<(), ProbeError> {
        let wire = match (self, upstream.spec().protocol) {
            (Self::Grpc, _) | (_, UpstreamProtocol::H2c) => Wire::Http2,
            (Self::Http { .. }, UpstreamProtocol::Http1 | UpstreamProtocol::Auto) => Wire::Http1,
        };
        let (stream, _) = upstream.dial(wire).await.map_err(ProbeError::Connect)?;
        match self {
            Self::Http { path, expects } => {
                let request = build(Method::GET, path, host, upstream, Bytes::new());
                let response = match upstream.spec().protocol {
                    UpstreamProtocol::H2c => over_http2(stream, request).await?.0,
                    UpstreamProtocol::Http1 | UpstreamProtocol::Auto => {
                        over_http1(stream, request).await?.0
                    }
                };
                expects.judge(response.status())
            }
            Self::Grpc => ask_grpc(stream, host, upstream).await,
        }
    }
}

impl Expectation {
    fn judge(self, status: StatusCode) -> Result<(), ProbeError> {
        let good = match self {
            Self::Success => status.is_success() || status.is_redirection(),
            Self::AnyAnswer => status.as_u16() < 500,
        };
        if good {
            Ok(())
        } else {
            Err(ProbeError::Status(status))
        }
    }
}

/// Unary call of `Check` with an empty `HealthCheckRequest`.
async fn ask_grpc(stream: Stream, host: &str, upstream: &Upstream) -> Result<(), ProbeError> {
    let mut frame = BytesMut::with_capacity(5);
    frame.put_u8(0);
    frame.put_u32(0);
    let path = "/grpc.health.v1.Health/Check";
    let mut request = build(Method::POST, path, host, upstream, frame.freeze());
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
    let (response, _driver) = over_http2(stream, request).await?;
    if response.status() != StatusCode::OK {
        return Err(ProbeError::Status(response.status()));
    }
    let limited = http_body_util::Limited::new(response.into_body(), MAX_GRPC_ANSWER);
    let answer = limited
        .collect()
        .await
        .map_err(|_| ProbeError::NotServing)?
        .to_bytes();
    if is_serving(&answer) {
        Ok(())
    } else {
        Err(ProbeError::NotServing)
    }
}

/// `HealthCheckResponse { status: SERVING }`: field 1, varint 1, behind the
/// five bytes of the gRPC frame.
fn is_serving(answer: &[u8]) -> bool {
    answer
        .strip_prefix(&[0, 0, 0, 0, 2])
        .is_some_and(|message| message == [0x08, 0x01])
}

fn build(
    method: Method,
    path: &str,
    host: &str,
    upstream: &Upstream,
    body: Bytes,
) -> Request<ProbeBody> {
    let uri = match upstream.spec().protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::Auto if method == Method::GET => {
            path.to_owned()
        }
        _ if upstream.is_secure() => format!("https://{host}{path}"),
        _ => format!("http://{host}{path}"),
    };
    let body = Full::new(body).boxed();
    let mut request = Request::new(body);
    *request.method_mut() = method;
    // A path that is no target was refused with the configuration.
    *request.uri_mut() = uri.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(host) = header::HeaderValue::from_str(host) {
        headers.insert(header::HOST, host);
    }
    headers.insert(
        header::USER_AGENT,
        header::HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION"))),
    );
    request
}

async fn over_http1(
    stream: Stream,
    mut request: Request<ProbeBody>,
) -> Result<(http::Response<Incoming>, AbortOnDropHandle<()>), ProbeError> {
    let close = header::HeaderValue::from_static("close");
    request.headers_mut().insert(header::CONNECTION, close);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = drive(connection);
    Ok((sender.send_request(request).await?, driver))
}

async fn over_http2(
    stream: Stream,
    mut request: Request<ProbeBody>,
) -> Result<(http::Response<Incoming>, AbortOnDropHandle<()>), ProbeError> {
    request.headers_mut().remove(header::HOST);
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = drive(connection);
    Ok((sender.send_request(request).await?, driver))
}

/// The connection's task ends with the handle, so with the probe.
fn drive(
    connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        // What goes wrong is seen by the request.
        let _ = connection.await;
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_serves() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        for answer in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 8, 2],
            &[1, 0, 0, 0, 2, 8, 1],
        ] {
            assert!(!is_serving(answer), "{answer:?}");
        }
    }
}
