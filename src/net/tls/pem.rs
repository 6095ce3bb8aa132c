//! Certificates and keys from PEM files.

use std::path::Path;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::{TlsError, provider};

/// Every certificate of a file, in its order; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}

/// The first private key of a file: PKCS #8, PKCS #1 or SEC1.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = std::fs::read(path).map_err(|error| unreadable(path, &PemError::Io(error)))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if is_encrypted(&text) => TlsError::EncryptedKey(path.to_owned()),
        PemError::NoItemsFound => TlsError::NoKey(path.to_owned()),
        error => unreadable(path, &error),
    })
}

/// PKCS #8 says so in its label, others in a header (RFC 1421 §4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let holds = |mark: &&[u8]| pem.windows(mark.len()).any(|part| part == *mark);
    marks.iter().any(holds)
}

/// A certificate with what it is signed by, and its key; they belong together.
pub(super) fn certified_key(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert)?;
    let signing = provider()
        .key_provider
        .load_private_key(private_key(key)?)
        .map_err(|error| TlsError::BadKey(key.to_owned(), error))?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        Ok(()) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::Mismatch {
                cert: cert.to_owned(),
                key: key.to_owned(),
            })
        }
        // The provider cannot tell: the first handshake will.
        Err(rustls::Error::InconsistentKeys(_)) => Ok(pair),
        Err(error) => Err(TlsError::BadCertificate(cert.to_owned(), error)),
    }
}

/// The authorities of a file; at least one.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::BadCertificate(path.to_owned(), error))?;
    }
    Ok(store)
}

fn unreadable(path: &Path, error: &PemError) -> TlsError {
    TlsError::Unreadable {
        path: path.to_owned(),
        reason: match error {
            PemError::Io(error) => error.to_string(),
            error => format!("no valid PEM: {error}"),
        },
    }
}
