//! TLS toward the server: settings, the request, the channel binding.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::connect::TargetTls;
use super::transport::Transport;
use crate::model::DatabaseTls;
use crate::net::stream::Stream;
use crate::net::tls::{ALPN_NONE, Identity, TlsError, Trust, client_config, server_name};
use crate::pg::failure::ConnectFailure;

/// Makes the settings of a `tls` block; `None` for `disable`. Reads files, so it
/// blocks.
///
/// # Errors
/// Files that cannot be read or used.
pub fn load(spec: &DatabaseTls, host: &str) -> Result<Option<TargetTls>, TlsError> {
    let (trust, cert, key, verified) = match spec {
        DatabaseTls::Disable => return Ok(None),
        DatabaseTls::Require { cert, key, .. } => (Trust::Anyone, cert, key, false),
        DatabaseTls::VerifyFull { ca, cert, key, .. } => {
            let trust = ca.as_deref().map_or(Trust::System, Trust::File);
            (trust, cert, key, true)
        }
    };
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(Identity { cert, key }),
        _ => None,
    };
    Ok(Some(TargetTls {
        config: client_config(trust, identity, ALPN_NONE)?,
        name: server_name(host)?,
        verified,
    }))
}

/// Asks for TLS; the server's one byte. What came behind it would be taken for
/// encrypted, so no more is read.
pub(super) async fn ask(stream: &mut Stream) -> Result<u8, ConnectFailure> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    let asked = stream.write_all(&request).await;
    asked.map_err(ConnectFailure::io)?;
    stream.read_u8().await.map_err(ConnectFailure::io)
}

/// Asks for TLS and shakes hands. A server that says no is not spoken to: whoever
/// is in between could have said it.
pub(super) async fn negotiate(
    mut stream: Stream,
    tls: &TargetTls,
) -> Result<Transport, ConnectFailure> {
    let answer = ask(&mut stream).await?;
    if answer != b'S' {
        return Err(ConnectFailure::TlsRefused);
    }
    let connector = TlsConnector::from(Arc::<ClientConfig>::clone(&tls.config));
    let name: ServerName<'static> = tls.name.clone();
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| ConnectFailure::Tls(error.to_string()))?;
    Ok(Transport::Right(Box::new(stream)))
}

/// `tls-server-end-point` (RFC 5929 §4.1): the digest of the server's
/// certificate, by the algorithm it is signed with. `None` without TLS.
pub(in crate::pg) fn channel_binding(transport: &Transport) -> Option<Vec<u8>> {
    let Transport::Right(stream) = transport else {
        return None;
    };
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let algorithm = digest_of(signature_algorithm(certificate)?)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The object identifier of `signatureAlgorithm` (RFC 5280 §4.1.1.2), as DER.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(whole, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    element(algorithm, OBJECT_IDENTIFIER).map(|(identifier, _)| identifier)
}

/// Content of the first element, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if first & 0x80 == 0 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        let length = bytes
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        (length, rest)
    };
    (*found == tag).then(|| rest.split_at_checked(length))?
}

/// MD5 and SHA-1 count as SHA-256 (RFC 5929 §4.1); an algorithm without a digest
/// of its own (Ed25519) has no binding.
fn digest_of(identifier: &[u8]) -> Option<&'static digest::Algorithm> {
    // 1.2.840.113549.1.1.x: RSA; 1.2.840.10045.4.…: ECDSA.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    if let Some(rest) = identifier.strip_prefix(RSA) {
        return match rest {
            [4 | 5 | 11] => Some(&digest::SHA256),
            [12] => Some(&digest::SHA384),
            [13] => Some(&digest::SHA512),
            _ => None,
        };
    }
    match identifier.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&digest::SHA256),
        [3, 3] => Some(&digest::SHA384),
        [3, 4] => Some(&digest::SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_signature_algorithm_is_found() {
        // SEQUENCE { SEQUENCE {}, SEQUENCE { OID ecdsa-with-SHA384 } }
        let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
        let mut der = vec![0x30, 14, 0x30, 0, 0x30, 10, 0x06, 8];
        der.extend(oid);
        assert_eq!(signature_algorithm(&der), Some(&oid[..]));
        assert_eq!(digest_of(&oid), Some(&digest::SHA384));
        assert_eq!(digest_of(&[0x2b, 0x65, 0x70]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = signature_algorithm(&bytes);
        }
    }
}
