//! TLS as a client: whom to trust, and what to show.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Alpn, TlsError, pem, provider};
use crate::model::TlsClientSpec;

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Those signed by an authority of this file, for the host that is dialled.
    File(&'a Path),
    /// Those signed by an authority of the system, for the host that is dialled.
    System,
    /// Anybody's: encrypted, but whoever is in between can read along. Only for
    /// PostgreSQL's `sslmode=require`.
    Anyone,
}

/// What a client shows of itself: files with a certificate chain and its key.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub cert: &'a Path,
    pub key: &'a Path,
}

/// Client TLS settings: TLS 1.2 and 1.3, no early data. Reads files, so it
/// blocks; to be made once and kept, for the sessions it remembers.
///
/// # Errors
/// Files that cannot be read or used.
pub fn client_config(
    trust: Trust<'_>,
    identity: Option<Identity<'_>>,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = match trust {
        Trust::File(path) => builder.with_root_certificates(pem::authorities(path)?),
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
    };
    let mut config = match identity {
        Some(Identity { cert, key }) => {
            let pair = pem::certified_key(cert, key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The same for a `tls` block of the configuration.
///
/// # Errors
/// Files that cannot be read or used.
pub fn client_config_for(spec: &TlsClientSpec, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsError> {
    let trust = spec.ca.as_deref().map_or(Trust::System, Trust::File);
    let identity = match (&spec.cert, &spec.key) {
        (Some(cert), Some(key)) => Some(Identity { cert, key }),
        _ => None,
    };
    client_config(trust, identity, alpn)
}

/// The name to ask for (SNI) and to verify: a host name or an IP literal, with
/// or without brackets.
///
/// # Errors
/// What no certificate can be issued for.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::ServerName(host.to_owned()))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match store.is_empty() {
        true => Err(TlsError::NoRoots),
        false => Ok(store),
    }
}

/// Believes every certificate, but still wants the handshake to be signed by it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{ALPN_HTTP1, ALPN_NONE};
    use super::*;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/net/tests")
            .join(name)
    }

    #[test]
    fn a_pair_must_belong_together() {
        let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server.key.pem"));
        let show = |cert, key| {
            let identity = Some(Identity { cert, key });
            client_config(Trust::File(&ca), identity, ALPN_HTTP1).map(|_| ())
        };
        assert_eq!(show(&cert, &key), Ok(()));
        let (cert_of_other, key_of_it) = (ca.clone(), key.clone());
        assert_eq!(
            show(&ca, &key),
            Err(TlsError::Mismatch {
                cert: cert_of_other,
                key: key_of_it
            })
        );
        assert_eq!(show(&key, &key), Err(TlsError::NoCertificate(key.clone())));
        assert_eq!(show(&cert, &cert), Err(TlsError::NoKey(cert.clone())));
        assert!(client_config(Trust::Anyone, None, ALPN_NONE).is_ok());
    }

    #[test]
    fn names_are_hosts_and_addresses() {
        for good in ["shop", "shop.example.", "10.0.0.1", "[::1]", "::1"] {
            assert!(server_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "shop:443", "*.example"] {
            assert!(server_name(bad).is_err(), "{bad}");
        }
    }
}
