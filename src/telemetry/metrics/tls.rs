//! What is told of TLS: handshakes of clients, and when certificates expire.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::proto;

use super::collect::Filling;
use super::families;
use super::locked;
use super::service::{ServiceMetrics, ServiceShard};

/// How a client's handshake on a public port ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Done,
    /// None was shown where one is required.
    NoCertificate,
    /// Unknown authority, expired, not valid yet, for another purpose.
    BadCertificate,
    /// The client sent an alert: it does not like our certificate.
    RefusedByClient,
    /// No version, cipher or application protocol in common.
    Incompatible,
    NotTls,
    /// Outside the protocol's rules.
    Misbehaved,
    Timeout,
    /// The client left.
    Closed,
}

impl Handshake {
    /// In declaration order.
    pub(super) const ALL: [Self; 9] = [
        Self::Done,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::RefusedByClient,
        Self::Incompatible,
        Self::NotTls,
        Self::Misbehaved,
        Self::Timeout,
        Self::Closed,
    ];

    /// The `result` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByClient => "refused_by_client",
            Self::Incompatible => "incompatible",
            Self::NotTls => "not_tls",
            Self::Misbehaved => "misbehaved",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// One worker's handshakes of one service.
pub(super) type HandshakeCells = [AtomicU64; Handshake::ALL.len()];

/// Expiry by the certificate's place in the configuration.
pub(super) type ExpiryCells = Mutex<Vec<(Arc<str>, SystemTime)>>;

impl ServiceShard {
    /// A client's handshake ended.
    pub fn handshake(&self, how: Handshake) {
        if let Some(cell) = self.cells().handshakes.get(how as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl ServiceMetrics {
    /// The certificates in force, by their place in the configuration, and
    /// when they expire.
    pub fn set_certificates(&self, expiries: Vec<(Arc<str>, SystemTime)>) {
        *locked(&self.certificates) = expiries;
    }
}

/// Of services that have TLS.
pub(super) fn collect(services: &[Arc<ServiceMetrics>], families: &mut Vec<proto::MetricFamily>) {
    let mut handshakes = Filling::new(&families::TLS_HANDSHAKES);
    let mut expiry = Filling::new(&families::TLS_CERTIFICATE_EXPIRY);
    for service in services {
        let name = service.name.key();
        for how in Handshake::ALL {
            let cells = service.shards.iter();
            let cells = cells.filter_map(|shard| shard.0.handshakes.get(how as usize));
            let count: u64 = cells.map(|cell| cell.load(Ordering::Relaxed)).sum();
            if count > 0 {
                handshakes.add(&[name, how.as_str()], count as f64);
            }
        }
        for (certificate, at) in locked(&service.certificates).iter() {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            expiry.add(&[name, certificate], since.as_secs_f64());
        }
    }
    handshakes.finish(families);
    expiry.finish(families);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_index_themselves() {
        for (index, how) in Handshake::ALL.into_iter().enumerate() {
            assert_eq!(how as usize, index);
        }
    }
}
