//! TLS by rustls: one crypto provider, passed explicitly; files read from PEM.
//!
//! [`client_config`] serves whoever dials, whatever is spoken inside;
//! [`ServerTls`] is a service's public port. Neither takes early data (0-RTT):
//! it can be replayed.

mod certificate;
mod client;
mod dial;
mod inspect;
mod pem;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::Validity;
pub use client::{Identity, Trust, client_config, client_config_for, server_name};
pub use dial::{ClientTls, Wire};
pub use inspect::{EXPIRES_SOON, Flaw, inspect};
pub use server::{HandshakeFailure, PeerCertificate, Secured, ServerTls};

/// Protocol names of ALPN (RFC 7301), in order of preference.
pub type Alpn = &'static [&'static [u8]];

/// No ALPN at all.
pub const ALPN_NONE: Alpn = &[];
/// HTTP/1.1 only.
pub const ALPN_HTTP1: Alpn = &[b"http/1.1"];

/// Why TLS cannot be set up from what is configured. Names files, never their
/// content.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("{0} holds no private key")]
    NoKey(PathBuf),
    #[error("the private key in {0} is encrypted; write it without a passphrase")]
    EncryptedKey(PathBuf),
    #[error("{0} holds a certificate that cannot be used: {1}")]
    BadCertificate(PathBuf, rustls::Error),
    #[error("{0} holds a private key that cannot be used: {1}")]
    BadKey(PathBuf, rustls::Error),
    #[error("the certificate {cert} and the key {key} do not belong together")]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("no usable root certificates")]
    NoRoots,
    #[error("{0:?} is no name a certificate can be for")]
    ServerName(String),
    #[error("tls: {0}")]
    Settings(rustls::Error),
}

/// The one crypto provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
