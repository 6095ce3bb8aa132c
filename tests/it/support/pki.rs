//! Authorities and certificates made on the spot, and TLS clients that use them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Somebody who signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate chain and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Dates {
    Now,
    Past,
    Future,
    /// From long ago, for so much longer.
    EndsIn(Duration),
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// For hosts and addresses; names with `://` are URIs. Good for both sides.
    pub(crate) fn issue(&self, names: &[&str], dates: Dates) -> Pair {
        self.issue_for(
            names,
            dates,
            &[
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        )
    }

    /// A server's certificate, for this machine.
    pub(crate) fn server(&self) -> Pair {
        let usage = [ExtendedKeyUsagePurpose::ServerAuth];
        self.issue_for(&["localhost", "127.0.0.1"], Dates::Now, &usage)
    }

    pub(crate) fn issue_for(
        &self,
        names: &[&str],
        dates: Dates,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Pair {
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        for uri in uris {
            let uri = uri.try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages = usages.to_vec();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2090, 1, 1);
        match dates {
            Dates::Now => {}
            Dates::Past => params.not_after = date_time_ymd(2021, 1, 1),
            Dates::Future => params.not_before = date_time_ymd(2089, 1, 1),
            Dates::EndsIn(time) => params.not_after = (SystemTime::now() + time).into(),
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair {
            cert,
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    /// Writes `<name>.pem` and `<name>.key` into a folder; gives their paths.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let cert = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&cert, &self.cert).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (cert, key)
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let certs = CertificateDer::pem_slice_iter(self.cert.as_bytes());
        certs.map(Result::unwrap).collect()
    }
}

/// How a test's own client connects under TLS.
#[derive(Clone)]
pub(crate) struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Secure {
    /// Trusts `authorities`, shows `pair`, speaks HTTP/1.1 to `localhost`.
    pub(crate) fn new(authorities: &[&Authority], pair: Option<&Pair>) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            let der = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
            roots.add(der).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(pair.chain(), key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            config: Arc::new(config),
            name: "localhost".try_into().unwrap(),
        }
    }

    /// The same, offering another protocol.
    pub(crate) fn speaking(&self, protocol: &[u8]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Self {
            config: Arc::new(config),
            name: self.name.clone(),
        }
    }

    /// The client's side of the handshake.
    pub(crate) fn handshake(&self, mut tcp: TcpStream) -> io::Result<Socket> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut session = session.map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Socket::Tls(Box::new(StreamOwned::new(session, tcp))))
    }
}

/// A client's connection, with or without TLS.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(crate) fn server_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.conn.peer_certificates()?.first()?.to_vec()),
        }
    }

    /// Whether the peer has not closed; looks without taking anything.
    pub(crate) fn is_open(&self) -> bool {
        let tcp = self.tcp();
        tcp.set_nonblocking(true).unwrap();
        let peeked = tcp.peek(&mut [0]);
        tcp.set_nonblocking(false).unwrap();
        match peeked {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
