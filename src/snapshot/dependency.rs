//! What an app may call, ready to be called.

use std::sync::Arc;

use http::HeaderValue;

use crate::model::{DependencyCredential, DependencySpec, ServiceName};
use crate::net::tls::TlsError;
use crate::telemetry::metrics::{PeerMetrics, ServiceMetrics};
use crate::upstream::cluster::Cluster;

/// One dependency of a service.
#[derive(Debug)]
pub struct Dependency {
    pub spec: DependencySpec,
    /// Its addresses; shared by all workers.
    pub cluster: Arc<Cluster>,
    pub metrics: Arc<PeerMetrics>,
    /// How its own sidecar calls itself in `Proxy-Status`.
    pub identity: Option<Arc<str>>,
    /// The bare name: audience of tokens, and the next hop in our `Proxy-Status`.
    pub bare_name: Arc<str>,
    /// Sent in `x-api-key`.
    pub api_key: Option<HeaderValue>,
}

impl Dependency {
    /// Builds; nothing is looked up. Reads the files of its TLS. What the
    /// predecessors know of the same names is taken over.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub(super) fn new(
        caller: &ServiceName,
        spec: &DependencySpec,
        caller_metrics: &ServiceMetrics,
        predecessors: &[Arc<Self>],
    ) -> Result<Self, TlsError> {
        let label = spec.service.as_ref().map_or(&*spec.name, ServiceName::key);
        let metrics = caller_metrics.peer(label);
        let known = predecessors.iter().map(|known| &*known.cluster);
        let known: Vec<&Cluster> = known.collect();
        let cluster = Cluster::new(caller.shared_key(), spec, Arc::clone(&metrics), &known)?;
        let api_key = match &spec.credential {
            // That it can stand in a header was checked with the configuration.
            Some(DependencyCredential::ApiKey(key)) => HeaderValue::from_bytes(key.expose()).ok(),
            Some(DependencyCredential::Jwt { .. }) | None => None,
        };
        let api_key = api_key.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let bare = spec.service.as_ref().map_or_else(
            || spec.name.rsplit('/').next().unwrap_or_default(),
            ServiceName::name,
        );
        Ok(Self {
            identity: spec
                .service
                .as_ref()
                .map(|name| Arc::from(format!("{}.{}", name.name(), name.domain()))),
            bare_name: Arc::from(bare),
            cluster: Arc::new(cluster),
            metrics,
            api_key,
            spec: spec.clone(),
        })
    }

    /// Whether an app may mean this one by `name`: its name in the file, its
    /// bare name, `name.domain` or `domain/name`, in any case.
    pub fn is_called(&self, name: &str) -> bool {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        let service = self.spec.service.as_ref().map(ServiceName::key);
        is(&self.spec.name)
            || is(&self.bare_name)
            || self.identity.as_deref().is_some_and(is)
            || service.is_some_and(is)
    }
}
