//! What can be said of certificates before anybody connects.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{TlsError, certificate, pem, provider};

/// A certificate that expires sooner is worth a word (SPEC §2.5).
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Something about a chain that others will object to, or soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    Expired,
    NotYetValid,
    /// Within so many days.
    ExpiresSoon(u64),
    /// A certificate is not signed by the next one in the file.
    BrokenChain,
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => formatter.write_str("a certificate in it has expired"),
            Self::NotYetValid => formatter.write_str("a certificate in it is not valid yet"),
            Self::ExpiresSoon(days) => {
                write!(formatter, "a certificate in it expires in {days} days")
            }
            Self::BrokenChain => {
                formatter.write_str("its certificates do not sign each other, in this order")
            }
        }
    }
}

/// Looks at a pair as it would be shown.
///
/// # Errors
/// Files that cannot be read or used, and a pair that does not match.
pub fn inspect(cert: &Path, key: &Path, now: SystemTime) -> Result<Vec<Flaw>, TlsError> {
    let chain = pem::certified_key(cert, key)?.cert;
    let mut flaws = Vec::new();
    let dates: Vec<_> = chain.iter().filter_map(certificate::validity).collect();
    if dates.iter().any(|dates| now < dates.not_before) {
        flaws.push(Flaw::NotYetValid);
    }
    if let Some(first) = dates.iter().map(|dates| dates.not_after).min() {
        match first.duration_since(now) {
            Err(_) => flaws.push(Flaw::Expired),
            Ok(left) if left < EXPIRES_SOON => {
                flaws.push(Flaw::ExpiresSoon(left.as_secs() / (24 * 60 * 60)));
            }
            Ok(_) => {}
        }
    }
    if !is_chained(&chain, now) {
        flaws.push(Flaw::BrokenChain);
    }
    Ok(flaws)
}

/// Whether the last certificate of the chain vouches for the first. Dates and
/// purposes have words of their own.
fn is_chained(chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
    let [leaf, between @ .., last] = chain else {
        return true;
    };
    let (Ok(parsed), Ok(anchor)) = (
        EndEntityCert::try_from(leaf),
        anchor_from_trusted_cert(last),
    ) else {
        return false;
    };
    let anchors = [anchor];
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let verified = parsed.verify_for_usage(
        provider().signature_verification_algorithms.all,
        &anchors,
        between,
        UnixTime::since_unix_epoch(since.unwrap_or_default()),
        KeyUsage::server_auth(),
        None,
        None,
    );
    !matches!(
        verified,
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey)
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/net/tests")
            .join(name)
    }

    #[test]
    fn dates_and_order_are_looked_at() {
        let (cert, key) = (file("server.pem"), file("server.key.pem"));
        let folder = tempfile::tempdir().expect("a folder");
        let chain = |name: &str, parts: &[&str]| {
            let path = folder.path().join(name);
            let texts = parts
                .iter()
                .map(|part| std::fs::read(file(part)).expect("there"));
            std::fs::write(&path, texts.collect::<Vec<_>>().concat()).expect("ours");
            path
        };
        let flaws = |cert: &Path, now| inspect(cert, &key, now).expect("a pair");
        let now = SystemTime::now();
        assert_eq!(flaws(&cert, now), []);
        assert_eq!(flaws(&chain("good", &["server.pem", "ca.pem"]), now), []);
        let broken = chain("broken", &["server.pem", "other-ca.pem"]);
        assert_eq!(flaws(&broken, now), [Flaw::BrokenChain]);
        let before = flaws(&cert, SystemTime::UNIX_EPOCH);
        assert_eq!(before, [Flaw::NotYetValid]);
        let ends = certificate::expiry(&pem::certificates(&cert).expect("read")).expect("dates");
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(flaws(&cert, ends - day * 3), [Flaw::ExpiresSoon(3)]);
        assert_eq!(flaws(&cert, ends + day), [Flaw::Expired]);
    }
}
