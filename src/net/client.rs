//! The cold client: a few requests a minute from the control runtime (key sets,
//! span export), never from the data path.
//!
//! Redirects are not followed, answers are bounded, and the caller bounds the
//! time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service;

use super::tls::{self, TlsError};
use crate::model::TlsClientSpec;

/// Connections kept for the next request; one peer is asked one thing at a time.
const MAX_IDLE: usize = 1;
/// Longer than the usual pause between span exports.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a cold request failed. Names hosts and files, never header values.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    #[error("only http and https urls with a host are supported")]
    Uri,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("reading the certificates was given up")]
    GivenUp,
    #[error("connecting failed: {0}")]
    Connect(String),
    #[error("the exchange broke off: {0}")]
    Broken(String),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// An HTTP/1.1 client for one kind of TLS settings.
#[derive(Debug, Clone)]
pub struct ColdClient {
    client: Client<Connector, Full<Bytes>>,
}

impl ColdClient {
    /// A client that speaks plain HTTP, and HTTPS where `tls` is given.
    pub fn new(tls: Option<Arc<ClientConfig>>, server_name: Option<Arc<str>>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = Connector {
            tcp,
            tls: tls.map(TlsConnector::from),
            server_name,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { client }
    }

    /// A client for this URL: reads root certificates only if it needs them, on
    /// a blocking thread.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub async fn for_uri(uri: &Uri, tls: &TlsClientSpec) -> Result<Self, ColdError> {
        if uri.scheme_str() != Some("https") {
            return Ok(Self::new(None, None));
        }
        let spec = tls.clone();
        let work = move || tls::client_config_for(&spec, tls::ALPN_HTTP1);
        let config = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| ColdError::GivenUp)??;
        Ok(Self::new(Some(config), tls.server_name.clone()))
    }

    /// Sends a request and reads the whole answer, at most `max_bytes` of body.
    ///
    /// # Errors
    /// Anything that keeps the answer from being complete.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, ColdError> {
        let response = self
            .client
            .request(request.map(Full::new))
            .await
            .map_err(|error| {
                let text = chain(&error);
                if error.is_connect() {
                    ColdError::Connect(text)
                } else {
                    ColdError::Broken(text)
                }
            })?;
        let (head, body) = response.into_parts();
        match Limited::new(body, max_bytes).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(ColdError::TooLarge(max_bytes)),
            Err(error) => Err(ColdError::Broken(chain(&*error))),
        }
    }
}

/// An error with its causes, which alone tell what happened.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// TCP, and TLS over it for `https`.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
    /// Instead of the URL's host.
    server_name: Option<Arc<str>>,
}

impl Service<Uri> for Connector {
    type Response = ColdStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ColdStream>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(context).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_tls = uri.scheme_str() == Some("https");
        let tls = self.tls.clone();
        let host = self
            .server_name
            .as_deref()
            .or(uri.host())
            .unwrap_or_default();
        let name = tls::server_name(host);
        let connecting = self.tcp.call(uri);
        Box::pin(async move {
            let tcp = connecting.await.map_err(io::Error::other)?.into_inner();
            if !is_tls {
                return Ok(ColdStream(TokioIo::new(Either::Left(tcp))));
            }
            let tls = tls.ok_or_else(|| io::Error::other("no tls settings"))?;
            let name = name.map_err(io::Error::other)?;
            let stream = tls.connect(name, tcp).await?;
            Ok(ColdStream(TokioIo::new(Either::Right(Box::new(stream)))))
        })
    }
}

/// A connection as hyper wants it.
struct ColdStream(TokioIo<Carrier>);

type Carrier = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Connection for ColdStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for ColdStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for ColdStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};

    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Made by `openssl`, for tests only, valid for a hundred years.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/net/tests")
            .join(name)
    }

    fn spec(ca: &str, server_name: Option<&str>) -> TlsClientSpec {
        TlsClientSpec {
            ca: Some(file(ca)),
            server_name: server_name.map(Arc::from),
            ..TlsClientSpec::default()
        }
    }

    /// An HTTPS server with one answer for everybody.
    async fn server(answer: &'static [u8]) -> SocketAddr {
        let key = PrivateKeyDer::from_pem_file(file("server.key.pem")).unwrap();
        let chain = CertificateDer::pem_file_iter(file("server.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }

    async fn get(
        address: SocketAddr,
        host: &str,
        spec: &TlsClientSpec,
    ) -> Result<Response<Bytes>, ColdError> {
        let uri: Uri = format!("https://{host}:{}/", address.port())
            .parse()
            .unwrap();
        let client = ColdClient::for_uri(&uri, spec).await?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        client.send(request, 64).await
    }

    #[tokio::test]
    async fn speaks_tls_with_the_named_ca_only() {
        let address = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let own = spec("ca.pem", None);
        for host in ["localhost", "127.0.0.1"] {
            let response = get(address, host, &own).await.unwrap();
            assert_eq!(response.body(), "ok", "{host}");
        }
        let renamed = get(address, "localhost", &spec("ca.pem", Some("keys.example"))).await;
        assert!(renamed.is_ok());
        for spec in [
            spec("other-ca.pem", None),
            spec("ca.pem", Some("evil.example")),
            TlsClientSpec::default(),
        ] {
            let refused = get(address, "localhost", &spec).await;
            assert!(
                matches!(
                    refused,
                    Err(ColdError::Connect(_) | ColdError::Tls(TlsError::NoRoots))
                ),
                "{refused:?}"
            );
        }
        let missing = get(address, "localhost", &spec("missing.pem", None)).await;
        assert!(matches!(
            missing,
            Err(ColdError::Tls(TlsError::Unreadable { .. }))
        ));
        let empty = get(address, "localhost", &spec("server.key.pem", None)).await;
        assert!(matches!(
            empty,
            Err(ColdError::Tls(TlsError::NoCertificate(_)))
        ));
    }

    #[tokio::test]
    async fn answers_are_bounded_and_redirects_are_answers() {
        let address = server(b"HTTP/1.1 302 X\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n").await;
        let own = spec("ca.pem", None);
        let response = get(address, "localhost", &own).await.unwrap();
        assert_eq!(response.status(), 302);
        let address = server(
            b"HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n\
              ------------------------------------------------------------------",
        )
        .await;
        let large = get(address, "localhost", &own).await;
        assert!(matches!(large, Err(ColdError::TooLarge(64))), "{large:?}");
        let address = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
        let cut = get(address, "localhost", &own).await;
        assert!(matches!(cut, Err(ColdError::Broken(_))), "{cut:?}");
        let address = server(b"SMTP ready\r\n\r\n").await;
        let other = get(address, "localhost", &own).await;
        assert!(matches!(other, Err(ColdError::Broken(_))), "{other:?}");
    }
}
