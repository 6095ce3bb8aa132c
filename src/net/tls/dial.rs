//! Dialling under TLS, for the data path.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ALPN_HTTP1, TlsError, certificate, client_config_for, pem, server_name};
use crate::model::TlsClientSpec;
use crate::net::stream::Stream;

/// Sessions remembered; they are all with one name.
const SESSIONS: usize = 32;

/// What is going to be spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Http1,
    Http2,
}

/// TLS toward one peer, ready to dial; shared by all workers.
pub struct ClientTls {
    http1: TlsConnector,
    http2: TlsConnector,
    /// In place of the host that is dialled.
    name: Option<ServerName<'static>>,
    expires: Option<SystemTime>,
}

impl ClientTls {
    /// Reads the files; blocks.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn build(spec: &TlsClientSpec) -> Result<Arc<Self>, TlsError> {
        let http1 = client_config_for(spec, ALPN_HTTP1)?;
        let mut http2 = (*http1).clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        http2.resumption = Resumption::in_memory_sessions(SESSIONS);
        let expires = match &spec.cert {
            Some(path) => certificate::expiry(&pem::certificates(path)?),
            None => None,
        };
        Ok(Arc::new(Self {
            http1: TlsConnector::from(http1),
            http2: TlsConnector::from(Arc::new(http2)),
            name: spec.server_name.as_deref().map(server_name).transpose()?,
            expires,
        }))
    }

    /// When the client certificate expires.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The client's side of the handshake, with whoever is called `host`; the
    /// caller limits the time.
    ///
    /// # Errors
    /// A handshake that failed, and a peer that does not speak what it should.
    pub async fn connect(&self, tcp: TcpStream, host: &str, wire: Wire) -> io::Result<Stream> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let connector = match wire {
            Wire::Http1 => &self.http1,
            Wire::Http2 => &self.http2,
        };
        let stream = connector.connect(name, tcp).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if wire == Wire::Http2 && agreed != Some(b"h2") {
            return Err(io::Error::other("it does not speak HTTP/2 (ALPN)"));
        }
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("ClientTls");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}
