//! A dependency as the data path calls it: all its addresses, which of them
//! are worth asking, and whether to ask at all.
//!
//! [`Cluster`] is shared by all workers and holds what they learn: a breaker
//! for the whole, a standing for each address. [`Lanes`] are one worker's own
//! connections. Nothing here takes a lock; names are looked up on the control
//! runtime ([`Cluster::follow`]).

mod admission;
mod breaker;
mod budget;
mod endpoint;
mod follow;
mod lanes;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;

pub use admission::Admission;
pub use breaker::Circuit;
pub use budget::RetryBudget;
pub use endpoint::{Endpoint, Standing};
pub use lanes::{Lanes, Pick};

use super::error::UpstreamError;
use super::lookup::Lookup;
use super::pool::Upstream;
use super::traffic::Traffic;
use crate::model::{Address, DependencySpec, HeaderCase, Kind, UpstreamSpec, UpstreamTarget};
use crate::net::tls::{ClientTls, TlsError};
use crate::telemetry::metrics::PeerMetrics;
use breaker::Breaker;

/// Idle connections kept per worker and address.
const MAX_IDLE: usize = 64;
/// A sidecar of ours keeps idle connections for 75 s; half of that is safe.
const SIDECAR_POOL_IDLE: Duration = Duration::from_secs(37);
/// What others keep is not known; app servers begin at five seconds.
const OTHER_POOL_IDLE: Duration = Duration::from_secs(3);

/// All addresses of one dependency.
#[derive(Debug)]
pub struct Cluster {
    /// `domain/name` of the caller, for logs.
    service: Arc<str>,
    metrics: Arc<PeerMetrics>,
    addresses: Vec<Address>,
    /// The same, as they become socket addresses.
    names: Vec<Name>,
    template: UpstreamSpec,
    /// For those of its addresses that are `https`.
    tls: Option<Arc<ClientTls>>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Look-ups that ended, well or not.
    looked_up: watch::Sender<u64>,
    breaker: Option<Breaker>,
    /// The breaker's state, as metrics show it while this cluster is in force.
    shown: Arc<AtomicU8>,
    traffic: Traffic,
    began: Instant,
}

/// Where one address comes from.
#[derive(Debug)]
enum Name {
    Literal(SocketAddr),
    /// Shared with predecessors: what it is known to mean outlives a reload.
    Asked(Arc<Lookup>),
}

impl Cluster {
    /// Addresses that are IP literals are known at once, names too that one of
    /// the predecessors knows; others once [`Cluster::follow`] has looked them up.
    /// Reads the files of its TLS.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn new(
        service: Arc<str>,
        spec: &DependencySpec,
        metrics: Arc<PeerMetrics>,
        predecessors: &[&Self],
    ) -> Result<Self, TlsError> {
        let names = spec.addresses.iter().map(|address| {
            if let Ok(ip) = address.host.parse::<IpAddr>() {
                return Name::Literal(SocketAddr::new(ip, address.port));
            }
            let mut known = predecessors
                .iter()
                .filter_map(|known| known.lookup(address));
            Name::Asked(
                known
                    .next()
                    .unwrap_or_else(|| Lookup::new(Arc::clone(&address.host), address.port)),
            )
        });
        let cluster = Self {
            tls: spec.tls.as_ref().map(ClientTls::build).transpose()?,
            service,
            metrics,
            names: names.collect(),
            addresses: spec.addresses.clone(),
            template: template(spec),
            endpoints: ArcSwap::from_pointee(Vec::new()),
            looked_up: watch::Sender::new(0),
            breaker: spec.breaker.as_ref().map(Breaker::new),
            shown: Arc::default(),
            traffic: Traffic::default(),
            began: Instant::now(),
        };
        cluster.adopt(&cluster.resolved());
        Ok(cluster)
    }

    /// When the certificate that is shown there expires.
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        self.tls.as_ref()?.expires()
    }

    /// From now on this cluster's breaker is the one that metrics show.
    pub fn come_into_force(&self) {
        self.metrics.show_circuit(Arc::clone(&self.shown));
    }

    fn lookup(&self, address: &Address) -> Option<Arc<Lookup>> {
        self.names.iter().find_map(|name| match name {
            Name::Asked(lookup) if lookup.host == address.host && lookup.port == address.port => {
                Some(Arc::clone(lookup))
            }
            Name::Asked(_) | Name::Literal(_) => None,
        })
    }

    /// What each address was last known to mean, sorted so that an equal answer
    /// is an equal list.
    fn resolved(&self) -> Vec<Vec<SocketAddr>> {
        let resolved = self.names.iter().map(|name| match name {
            Name::Literal(address) => vec![*address],
            Name::Asked(lookup) => {
                let answer = lookup.good();
                let mut found = answer.map_or_else(Vec::new, |answer| answer.addresses.clone());
                found.sort_unstable();
                found.dedup();
                found
            }
        });
        resolved.collect()
    }

    /// How the dependency is called in metrics and logs.
    pub fn peer(&self) -> &str {
        self.metrics.name()
    }

    /// What speaks the names' addresses: those of the same position in
    /// `resolved`. An address that was there before keeps its standing.
    fn adopt(&self, resolved: &[Vec<SocketAddr>]) {
        let known = self.endpoints.load();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
        for (address, list) in self.addresses.iter().zip(resolved) {
            for socket in list {
                if endpoints.iter().any(|endpoint| endpoint.address == *socket) {
                    continue;
                }
                let kept = known.iter().find(|endpoint| endpoint.address == *socket);
                endpoints.push(kept.map_or_else(|| self.endpoint(address, *socket), Arc::clone));
            }
        }
        let same = endpoints.len() == known.len()
            && endpoints
                .iter()
                .zip(known.iter())
                .all(|(new, old)| Arc::ptr_eq(new, old));
        if !same {
            self.endpoints.store(Arc::new(endpoints));
        }
    }

    fn endpoint(&self, address: &Address, socket: SocketAddr) -> Arc<Endpoint> {
        let spec = UpstreamSpec {
            target: UpstreamTarget::Tcp {
                host: Arc::from(socket.ip().to_string()),
                port: socket.port(),
            },
            tls: self.template.tls.clone().filter(|_| address.tls),
            ..self.template.clone()
        };
        let tls = self.tls.clone().filter(|_| address.tls);
        let upstream = Upstream::with_tls(spec, tls, Arc::clone(&address.host));
        let host = host_value(address);
        Arc::new(Endpoint::new(socket, address.clone(), host, upstream))
    }

    /// Every address known now.
    pub(super) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Where calls say how they fared.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Waits while there never was an answer for any address.
    pub(super) async fn known(&self) -> Result<(), UpstreamError> {
        if !self.endpoints.load().is_empty() {
            return Ok(());
        }
        let mut looked_up = self.looked_up.subscribe();
        let answered = looked_up.wait_for(|count| *count > 0);
        // Nobody looks: said below, as a look-up without an answer.
        let _ = tokio::time::timeout(self.template.connect_timeout, answered).await;
        if self.endpoints.load().is_empty() {
            let names: Vec<&str> = self.addresses.iter().map(|one| &*one.host).collect();
            let detail = format!("no address of {} is known", names.join(", "));
            return Err(UpstreamError::connecting(Kind::Dns, detail));
        }
        Ok(())
    }

    /// How the breaker stands; `None` without one.
    pub fn circuit(&self) -> Option<Circuit> {
        let now_ms = self.now_ms();
        self.breaker.as_ref().map(|breaker| breaker.circuit(now_ms))
    }

    /// Every address with its standing.
    pub fn standings(&self) -> Vec<(SocketAddr, Standing)> {
        let now_ms = self.now_ms();
        let endpoints = self.endpoints.load();
        endpoints
            .iter()
            .map(|endpoint| (endpoint.address, endpoint.standing(|| now_ms)))
            .collect()
    }

    /// At most half of them are left out, so never a single one.
    fn may_eject(&self) -> bool {
        let endpoints = self.endpoints.load();
        let out = endpoints
            .iter()
            .filter(|endpoint| endpoint.is_out())
            .count();
        (out + 1) * 2 <= endpoints.len()
    }

    fn show(&self, circuit: Circuit) {
        self.shown.store(circuit as u8, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        breaker::milliseconds(self.began.elapsed())
    }
}

/// What all addresses have in common.
fn template(spec: &DependencySpec) -> UpstreamSpec {
    UpstreamSpec {
        target: UpstreamTarget::Loopback { port: 0 },
        protocol: spec.protocol,
        header_case: HeaderCase::Lower,
        // Nobody there is told from nobody answering while there is time to.
        connect_timeout: spec.connect_timeout.min(spec.timeout),
        response_timeout: spec.timeout,
        body_idle_timeout: spec.timeout,
        pool_idle_timeout: match spec.has_sidecar {
            true => SIDECAR_POOL_IDLE,
            false => OTHER_POOL_IDLE,
        },
        max_idle: MAX_IDLE,
        tls: spec.tls.clone(),
    }
}

/// The authority of an address (RFC 9110 §7.2), without the scheme's own port.
fn host_value(address: &Address) -> HeaderValue {
    let Address { tls, host, port } = address;
    let bracketed = host.contains(':');
    let host = if bracketed {
        format!("[{host}]")
    } else {
        host.to_string()
    };
    let implied = if *tls { 443 } else { 80 };
    let text = if *port == implied {
        host
    } else {
        format!("{host}:{port}")
    };
    // A host was validated with the configuration.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

#[cfg(test)]
mod tests;
