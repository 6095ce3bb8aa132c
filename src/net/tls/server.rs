//! TLS of a public port: one certificate, perhaps with checked clients.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{TlsError, certificate, pem, provider};
use crate::model::{MtlsName, TlsServerSpec, TlsVersion};
use crate::net::client_io::Spoken;
use crate::net::stream::Stream;
use crate::telemetry::metrics::Handshake;

/// A service's TLS, ready to accept; shared by all workers.
pub struct ServerTls {
    spec: TlsServerSpec,
    config: Arc<ServerConfig>,
    clients: Option<Clients>,
    expires: Option<SystemTime>,
}

/// Who may show a certificate.
struct Clients {
    authorities: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// A verified client certificate.
#[derive(Debug)]
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// What it was issued for, its URI first.
    pub names: Vec<MtlsName>,
}

/// A connection after its handshake.
pub struct Secured {
    pub stream: Stream,
    /// As agreed on by ALPN; `None` where the client offered nothing.
    pub spoken: Option<Spoken>,
    pub certificate: Option<PeerCertificate>,
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub struct HandshakeFailure {
    pub how: Handshake,
    /// For the log.
    pub detail: String,
    /// Where the client may still read why; `None` where it broke off.
    pub stream: Option<Stream>,
}

impl PeerCertificate {
    /// As it was shown: the client's own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl ServerTls {
    /// Reads the files; blocks. Where nothing changed it is `predecessor`
    /// itself, and where only the certificate did, the clients' sessions go on.
    ///
    /// # Errors
    /// Files that cannot be read or used, and a pair that does not match.
    pub fn build(
        spec: &TlsServerSpec,
        predecessor: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, TlsError> {
        if let Some(same) = predecessor.filter(|known| known.spec == *spec) {
            return Ok(Arc::clone(same));
        }
        let pair = pem::certified_key(&spec.cert, &spec.key)?;
        let expires = certificate::expiry(&pair.cert);
        let clients = match &spec.client_ca {
            Some(path) => Some(Clients::new(path, spec.require_client_cert)?),
            None => None,
        };
        let versions: &[&SupportedProtocolVersion] = match spec.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let verifier = clients.as_ref().map_or_else(
            || Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>,
            |clients| Arc::clone(&clients.verifier),
        );
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(TlsError::Settings)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions live in tickets: no state, no lock between workers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match predecessor.filter(|known| known.admits_like(spec, &clients)) {
            Some(known) => Arc::clone(&known.config.ticketer),
            None => new_tickets()?,
        };
        Ok(Arc::new(Self {
            spec: spec.clone(),
            config: Arc::new(config),
            clients,
            expires,
        }))
    }

    /// When the first certificate of the chain expires.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Whether clients that show a certificate are judged at all.
    pub fn judges_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether they are judged by the same authorities.
    pub fn has_authorities_of(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || authorities(&self.clients) == authorities(&other.clients)
    }

    /// Whether a client that showed this would be admitted now.
    pub fn admits(&self, certificate: &PeerCertificate) -> bool {
        self.verify(&certificate.chain).is_ok()
    }

    /// The server's side of the handshake; the caller limits the time.
    ///
    /// # Errors
    /// Why there is no connection. The client has been sent an alert where the
    /// protocol has one.
    pub async fn accept(&self, stream: TcpStream) -> Result<Secured, HandshakeFailure> {
        // Fails only on a socket that is already dead; reading will tell.
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => return Err(failure(&error, Stream::accepted(stream))),
        };
        let (_, session) = stream.get_ref();
        let spoken = match session.alpn_protocol() {
            Some(b"h2") => Some(Spoken::Http2),
            Some(_) => Some(Spoken::Http1),
            None => None,
        };
        let chain = session.peer_certificates().map(|chain| {
            let owned = chain.iter().map(|one| one.clone().into_owned());
            owned.collect::<Vec<_>>()
        });
        // A ticket outlives what it was given for.
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let checked = match &chain {
            Some(chain) if resumed => self.verify(chain),
            None if resumed && self.spec.require_client_cert => {
                Err(rustls::Error::NoCertificatesPresented)
            }
            _ => Ok(()),
        };
        let stream = Stream::Tls(Box::new(stream.into()));
        if let Err(error) = checked {
            return Err(refused(&error, Some(stream)));
        }
        let certificate = chain.map(|chain| PeerCertificate {
            names: chain.first().map(certificate::names).unwrap_or_default(),
            chain,
        });
        Ok(Secured {
            stream,
            spoken,
            certificate,
        })
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (Some(clients), Some((leaf, rest))) = (&self.clients, chain.split_first()) else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        let verified = clients
            .verifier
            .verify_client_cert(leaf, rest, UnixTime::now());
        verified.map(|_| ())
    }

    /// Whether a session of this one may go on under `spec`.
    fn admits_like(&self, spec: &TlsServerSpec, clients: &Option<Clients>) -> bool {
        self.spec.require_client_cert == spec.require_client_cert
            && self.spec.min_version == spec.min_version
            && authorities(&self.clients) == authorities(clients)
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("ServerTls");
        shown.field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Clients {
    fn new(ca: &std::path::Path, require: bool) -> Result<Self, TlsError> {
        let roots = Arc::new(pem::authorities(ca)?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let builder = match require {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        Ok(Self {
            authorities: pem::certificates(ca)?,
            verifier: builder.build().map_err(|_| TlsError::NoRoots)?,
        })
    }
}

fn authorities(clients: &Option<Clients>) -> Option<&[CertificateDer<'static>]> {
    clients.as_ref().map(|clients| &clients.authorities[..])
}

fn new_tickets() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Settings)
}

fn failure(error: &io::Error, stream: Stream) -> HandshakeFailure {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(cause) => refused(cause, Some(stream)),
        None => HandshakeFailure {
            how: Handshake::Closed,
            detail: error.to_string(),
            stream: None,
        },
    }
}

/// Says whose fault it is in words that an operator can act on.
fn refused(error: &rustls::Error, stream: Option<Stream>) -> HandshakeFailure {
    let (how, detail) = match error {
        rustls::Error::NoCertificatesPresented => (
            Handshake::NoCertificate,
            "the client showed no certificate, and one is required".to_owned(),
        ),
        rustls::Error::InvalidCertificate(why) => (
            Handshake::BadCertificate,
            format!("the client's certificate is refused: {why}"),
        ),
        rustls::Error::AlertReceived(alert) => (
            Handshake::RefusedByClient,
            format!("the client refused: it sent the alert {alert:?}"),
        ),
        rustls::Error::PeerIncompatible(why) => (
            Handshake::Incompatible,
            format!("no version or cipher in common: {why:?}"),
        ),
        rustls::Error::NoApplicationProtocol => (
            Handshake::Incompatible,
            "the client speaks neither h2 nor http/1.1 (ALPN)".to_owned(),
        ),
        rustls::Error::InvalidMessage(why) => (
            Handshake::NotTls,
            format!("what came is no TLS handshake, perhaps plain http: {why:?}"),
        ),
        other => (Handshake::Misbehaved, other.to_string()),
    };
    HandshakeFailure {
        how,
        detail,
        stream,
    }
}
