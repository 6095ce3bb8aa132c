//! A dependency as the data path calls it: all its addresses, which of them
//! are worth asking, and whether to ask at all.
//!
//! [`Cluster`] is shared by all workers and holds what they learn: a breaker
//! for the whole, a standing for each address. [`Lanes`] are one worker's own
//! connections. Nothing here takes a lock; names are looked up on the control
//! runtime ([`Cluster::follow`]).

mod breaker;
mod budget;
mod endpoint;
mod follow;
mod lanes;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;

pub use breaker::Circuit;
pub use budget::RetryBudget;
pub use endpoint::{Endpoint, Standing};
pub use lanes::{Lanes, Pick};

use super::error::UpstreamError;
use super::pool::Upstream;
use super::traffic::Traffic;
use crate::model::{Address, DependencySpec, HeaderCase, Kind, UpstreamSpec, UpstreamTarget};
use crate::net::tls::{ClientTls, TlsError};
use crate::telemetry::metrics::PeerMetrics;
use breaker::{Breaker, Gate};

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
    template: UpstreamSpec,
    /// For those of its addresses that are `https`.
    tls: Option<Arc<ClientTls>>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Look-ups that ended, well or not.
    looked_up: watch::Sender<u64>,
    breaker: Option<Breaker>,
    traffic: Traffic,
    began: Instant,
}

/// Leave to ask; carries the breaker's probe where this request is it.
#[derive(Debug)]
pub struct Admission {
    cluster: Arc<Cluster>,
    probe: bool,
}

impl Cluster {
    /// Addresses that are IP literals are known at once; names once
    /// [`Cluster::follow`] has looked them up. Reads the files of its TLS.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn new(
        service: Arc<str>,
        spec: &DependencySpec,
        metrics: Arc<PeerMetrics>,
    ) -> Result<Self, TlsError> {
        let cluster = Self {
            tls: spec.tls.as_ref().map(ClientTls::build).transpose()?,
            service,
            metrics,
            addresses: spec.addresses.clone(),
            template: template(spec),
            endpoints: ArcSwap::from_pointee(Vec::new()),
            looked_up: watch::Sender::new(0),
            breaker: spec.breaker.as_ref().map(Breaker::new),
            traffic: Traffic::default(),
            began: Instant::now(),
        };
        let literal = |address: &Address| {
            let ip = address.host.parse::<IpAddr>().ok();
            ip.map(|ip| vec![SocketAddr::new(ip, address.port)])
        };
        let known: Vec<Vec<SocketAddr>> = cluster
            .addresses
            .iter()
            .map(|address| literal(address).unwrap_or_default())
            .collect();
        cluster.adopt(&known);
        Ok(cluster)
    }

    /// When the certificate that is shown there expires.
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        self.tls.as_ref()?.expires()
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
        Arc::new(Endpoint::new(socket, host_value(address), upstream))
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

    /// Asks the breaker.
    ///
    /// # Errors
    /// `circuit_open`.
    pub fn admit(self: &Arc<Self>) -> Result<Admission, UpstreamError> {
        let gate = match &self.breaker {
            None => Gate::Closed,
            Some(breaker) => breaker.admit(|| self.now_ms()),
        };
        let probe = match gate {
            Gate::Closed => false,
            Gate::Probe => {
                self.metrics.set_circuit(Circuit::HalfOpen as u8);
                true
            }
            Gate::Open => {
                return Err(UpstreamError::connecting(
                    Kind::CircuitOpen,
                    "failures in a row opened the circuit",
                ));
            }
        };
        Ok(Admission {
            cluster: Arc::clone(self),
            probe,
        })
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

    fn now_ms(&self) -> u64 {
        breaker::milliseconds(self.began.elapsed())
    }
}

impl Admission {
    /// Whether another attempt may be made for the same request.
    pub fn allows_another(&self) -> bool {
        let breaker = self.cluster.breaker.as_ref();
        !self.probe
            && breaker
                .is_none_or(|breaker| breaker.circuit(self.cluster.now_ms()) == Circuit::Closed)
    }

    fn succeeded(&mut self) {
        self.cluster.traffic.succeeded();
        let probe = std::mem::take(&mut self.probe);
        let Some(breaker) = &self.cluster.breaker else {
            return;
        };
        if breaker.succeeded(probe) {
            self.cluster.metrics.set_circuit(Circuit::Closed as u8);
            let (service, peer) = (&*self.cluster.service, self.cluster.peer());
            tracing::info!(service, peer, "circuit closed");
        }
    }

    fn failed(&mut self) {
        self.cluster.traffic.failed();
        let probe = std::mem::take(&mut self.probe);
        let Some(breaker) = &self.cluster.breaker else {
            return;
        };
        if breaker.failed(probe, self.cluster.now_ms()) {
            self.cluster.metrics.set_circuit(Circuit::Open as u8);
            let (service, peer) = (&*self.cluster.service, self.cluster.peer());
            tracing::warn!(service, peer, "circuit opened");
        }
    }

    /// Failures that an ejection answers do not open the circuit besides.
    fn forget(&self) {
        if let Some(breaker) = &self.cluster.breaker {
            breaker.forget();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let (true, Some(breaker)) = (self.probe, &self.cluster.breaker) {
            breaker.abandoned();
        }
    }
}

/// What all addresses have in common.
fn template(spec: &DependencySpec) -> UpstreamSpec {
    UpstreamSpec {
        target: UpstreamTarget::Loopback { port: 0 },
        protocol: spec.protocol,
        header_case: HeaderCase::Lower,
        connect_timeout: spec.connect_timeout,
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
