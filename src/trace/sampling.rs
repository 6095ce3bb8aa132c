//! Whether a trace is recorded (SAMP-1).

use std::net::IpAddr;

use crate::model::{TrustParent, is_private};

/// What is known of whoever sent the request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    pub authenticated: bool,
    /// The peer of the connection.
    pub peer: IpAddr,
    /// The request carries a forwarding header, so the peer is a proxy.
    pub forwarded: bool,
}

impl Caller {
    /// Whether the caller's sampling decision is followed.
    pub(super) fn is_trusted(&self, trust: TrustParent) -> bool {
        match trust {
            TrustParent::Always => true,
            TrustParent::Never => false,
            TrustParent::Authenticated => self.authenticated,
            TrustParent::Auto => {
                let peer = self.peer.to_canonical();
                self.authenticated || (!self.forwarded && (peer.is_loopback() || is_private(peer)))
            }
        }
    }
}

/// 2^56: values of the low 56 bits of a trace id.
const VALUES: u64 = 1 << 56;

/// Our own decision: the low 56 bits of the trace id, as random as W3C Level 2
/// asks, against a threshold. A hop with a higher rate samples a superset of
/// one with a lower rate, and OpenTelemetry's consistent sampler decides alike
/// (a value at or above the rejection threshold is sampled).
pub(super) fn samples(trace_id: [u8; 16], rate: f64) -> bool {
    let low = u128::from_be_bytes(trace_id) as u64 % VALUES;
    low >= rejection_threshold(rate)
}

fn rejection_threshold(rate: f64) -> u64 {
    // 2^56 has an exact representation; a float's rounding moves the share by
    // less than 2^-52.
    let rejected = (1.0 - rate.clamp(0.0, 1.0)) * VALUES as f64;
    rejected as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::IdGenerator;
    use super::*;

    #[test]
    fn the_ends_are_exact() {
        for id in [[0; 16], [0xff; 16], [0x80; 16]] {
            assert!(samples(id, 1.0));
            assert!(!samples(id, 0.0));
        }
        assert!(samples([0xff; 16], f64::MIN_POSITIVE.max(1e-9)));
    }

    #[test]
    fn the_share_is_right() {
        let ids = IdGenerator::with_seed(42);
        for rate in [0.01, 0.25, 0.5, 0.9] {
            let count = (0..100_000)
                .filter(|_| samples(ids.trace_id(), rate))
                .count();
            let expected = rate * 100_000.0;
            // Five standard deviations.
            let spread = 5.0 * (expected * (1.0 - rate)).sqrt();
            assert!((count as f64 - expected).abs() < spread, "{rate}: {count}");
        }
    }

    #[test]
    fn trust_follows_the_setting() {
        let caller = |authenticated, peer: &str, forwarded| Caller {
            authenticated,
            peer: peer.parse().expect("address"),
            forwarded,
        };
        let stranger = caller(false, "203.0.113.9", false);
        let neighbour = caller(false, "::ffff:10.0.0.7", false);
        let proxied = caller(false, "127.0.0.1", true);
        let known = caller(true, "203.0.113.9", true);
        for (trust, expected) in [
            (TrustParent::Auto, [false, true, false, true]),
            (TrustParent::Always, [true; 4]),
            (TrustParent::Authenticated, [false, false, false, true]),
            (TrustParent::Never, [false; 4]),
        ] {
            let found = [stranger, neighbour, proxied, known].map(|who| who.is_trusted(trust));
            assert_eq!(found, expected, "{trust:?}");
        }
    }

    proptest! {
        #[test]
        fn a_higher_rate_samples_a_superset(
            id in any::<[u8; 16]>(), one in 0.0..=1.0_f64, other in 0.0..=1.0_f64,
        ) {
            let (low, high) = (one.min(other), one.max(other));
            prop_assert!(!samples(id, low) || samples(id, high));
        }
    }
}
