//! What a certificate says: names and dates.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::model::MtlsName;

/// When a certificate is valid, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// The names a certificate was issued for (RFC 5280 §4.2.1.6), its URI first: as
/// read by the same parser that verified it. With several URIs it names nobody
/// by any of them (X509-SVID §2: such a one is to be rejected).
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<MtlsName> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let mut uris = parsed.valid_uri_names();
    let only = match (uris.next(), uris.next()) {
        (Some(uri), None) => Some(MtlsName::Spiffe(uri.into())),
        _ => None,
    };
    let hosts = parsed.valid_dns_names();
    only.into_iter()
        .chain(hosts.map(|host| MtlsName::Dns(host.to_ascii_lowercase().into())))
        .collect()
}

/// The dates of one certificate, if they can be read.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let dates = parsed.validity();
    Some(Validity {
        not_before: system_time(dates.not_before.timestamp())?,
        not_after: system_time(dates.not_after.timestamp())?,
    })
}

/// When the first certificate of a chain expires.
pub(super) fn expiry(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let dates = chain.iter().filter_map(validity);
    dates.map(|dates| dates.not_after).min()
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    }
}
