//! A service, ready to run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;

use super::dependency::Dependency;
use super::health;
use crate::auth::{AuthContext, Authenticator, BuildError as AuthBuildError};
use crate::forward::Reserved;
use crate::health::ServiceHealth;
use crate::model::{DependencySpec, ProcessSettings, ServiceName, ServiceSpec, UpstreamSpec};
use crate::net::Permits;
use crate::net::tls::{ServerTls, TlsError};
use crate::telemetry::metrics::{Metrics, ServiceMetrics};
use crate::telemetry::spans::Resource;
use crate::upstream::Upstream;

/// Names a service's place in every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId {
    /// Stable for as long as the service is there.
    pub index: u32,
    /// Plus one each time its upstream pool must be new.
    pub epoch: u32,
}

/// One local service as the data path uses it: everything that can be resolved
/// beforehand is.
#[derive(Debug)]
pub struct Service {
    pub name: ServiceName,
    pub slot: SlotId,
    pub state: ServiceState,
    pub metrics: Arc<ServiceMetrics>,
    /// Requests being served, over all workers; kept across versions.
    pub in_flight: Permits,
    /// Open client connections, over all workers; kept across versions.
    pub connections: Permits,
    /// As spans name it.
    pub resource: Arc<Resource>,
}

/// Whether there is a good version.
#[derive(Debug)]
pub enum ServiceState {
    Ready(Box<Ready>),
    /// Never had a good version: every request is answered `config_invalid`.
    Invalid,
}

/// A good version.
#[derive(Debug)]
pub struct Ready {
    pub spec: Arc<ServiceSpec>,
    /// Settings of the process at build time.
    pub settings: Arc<ProcessSettings>,
    pub auth: Arc<Authenticator>,
    /// Of the public port; `None` in plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// What clients may not send (ID-1).
    pub reserved: Arc<Reserved>,
    /// The app.
    pub upstream: Arc<Upstream>,
    /// Upstreams of rules, by rule; `None` = the app.
    pub rule_upstreams: Vec<Option<Arc<Upstream>>>,
    /// What monitors found; read by `/health` and the probes.
    pub health: Arc<ServiceHealth>,
    /// `Host` toward the app for HTTP/1.0 clients that send none.
    pub default_host: HeaderValue,
    /// `domain/name`, as trace headers carry it.
    pub trace_name: HeaderValue,
    /// What the app may call, in order of the file.
    pub dependencies: Vec<Arc<Dependency>>,
}

/// What building needs besides the spec.
pub struct BuildContext<'a> {
    pub settings: &'a Arc<ProcessSettings>,
    pub metrics: &'a Metrics,
    /// The version in force, whose counters and unchanged parts are kept.
    pub predecessor: Option<&'a Service>,
}

impl BuildContext<'_> {
    fn service_metrics(&self, name: &ServiceName) -> Arc<ServiceMetrics> {
        match self.predecessor {
            Some(old) => Arc::clone(&old.metrics),
            None => self.metrics.service(name),
        }
    }
}

impl Ready {
    /// Certificates shown by this service, by their key in its file, and when
    /// they expire.
    pub fn certificates(&self) -> Vec<(Arc<str>, SystemTime)> {
        let mut found = Vec::new();
        let mut add = |key: &str, expires: Option<SystemTime>| {
            found.extend(expires.map(|at| (Arc::from(format!("{key}.cert")), at)));
        };
        add("tls", self.tls.as_ref().and_then(|tls| tls.expires()));
        add("upstream.tls", self.upstream.certificate_expires());
        for (index, upstream) in self.rule_upstreams.iter().enumerate() {
            let expires = upstream.as_ref().and_then(|one| one.certificate_expires());
            add(&format!("auth.rules[{index}].upstream.tls"), expires);
        }
        add("auth.hook.tls", self.auth.hook_certificate_expires());
        for dependency in &self.dependencies {
            let key = format!("dependencies.{}.tls", dependency.spec.name);
            add(&key, dependency.cluster.certificate_expires());
        }
        found
    }

    /// The same dependency, with what is known of its addresses.
    fn dependency(&self, spec: &DependencySpec) -> Option<Arc<Dependency>> {
        let mut known = self.dependencies.iter();
        known.find(|known| known.spec == *spec).map(Arc::clone)
    }
}

/// Why a valid spec could not be made to run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the authentication policy cannot be put to work")]
    Auth(#[source] AuthBuildError),
    #[error("{0}")]
    Tls(String, #[source] TlsError),
}

impl Service {
    /// Builds a good version. Fast and local: nothing is fetched or resolved.
    ///
    /// # Errors
    /// What the spec's validation could not foresee.
    pub fn ready(
        spec: Arc<ServiceSpec>,
        slot: SlotId,
        context: &BuildContext<'_>,
    ) -> Result<Self, BuildError> {
        let name = spec.name.clone();
        let old = context.predecessor.and_then(Self::as_ready);
        let auth_context = AuthContext {
            workers: context.settings.workers,
            predecessor: old.map(|old| &old.auth),
        };
        let auth = Authenticator::build(&spec, &auth_context).map_err(BuildError::Auth)?;
        let rule_upstreams = spec
            .auth
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                let known = old.and_then(|old| old.rule_upstreams.get(index)?.as_ref());
                let upstream = rule.upstream.as_ref()?;
                let key = || format!("auth.rules[{index}].upstream.tls");
                Some(kept_or_new(upstream, known, key))
            })
            .map(Option::transpose)
            .collect::<Result<_, _>>()?;
        let metrics = context.service_metrics(&name);
        let dependencies = spec
            .dependencies
            .iter()
            .map(|dependency| {
                let known = old.and_then(|old| old.dependency(dependency));
                if let Some(known) = known {
                    return Ok(known);
                }
                let predecessors = old.map_or(&[][..], |old| &old.dependencies);
                let made = Dependency::new(&name, dependency, &metrics, predecessors);
                let made = made.map_err(|error| {
                    BuildError::Tls(format!("dependencies.{}.tls", dependency.name), error)
                });
                made.map(Arc::new)
            })
            .collect::<Result<_, _>>()?;
        let tls = match &spec.tls {
            Some(tls) => {
                let known = old.and_then(|old| old.tls.as_ref());
                let built = ServerTls::build(tls, known);
                Some(built.map_err(|error| BuildError::Tls("tls".to_owned(), error))?)
            }
            None => None,
        };
        let ready = Ready {
            tls,
            dependencies,
            trace_name: HeaderValue::from_str(name.key()).expect("a service key is visible ASCII"),
            settings: Arc::clone(context.settings),
            reserved: Arc::new(Reserved::new(&auth.reserved_headers())),
            auth,
            upstream: kept_or_new(&spec.upstream, old.map(|old| &old.upstream), || {
                "upstream.tls".to_owned()
            })?,
            rule_upstreams,
            health: Arc::new(ServiceHealth::new(&spec, health::watched(&spec, old))),
            default_host: HeaderValue::from_str(name.name())
                .expect("a service name is visible ASCII"),
            spec,
        };
        Ok(Self::assemble(
            name,
            slot,
            ServiceState::Ready(Box::new(ready)),
            context,
        ))
    }

    /// A service that has a port but never had a good version.
    pub fn invalid(name: ServiceName, slot: SlotId, context: &BuildContext<'_>) -> Self {
        Self::assemble(name, slot, ServiceState::Invalid, context)
    }

    fn assemble(
        name: ServiceName,
        slot: SlotId,
        state: ServiceState,
        context: &BuildContext<'_>,
    ) -> Self {
        let (in_flight, connections) = context
            .predecessor
            .map(|old| (old.in_flight.clone(), old.connections.clone()))
            .unwrap_or_default();
        let version = match &state {
            ServiceState::Ready(ready) => ready.spec.version.clone(),
            ServiceState::Invalid => None,
        };
        let resource = Resource {
            service: name.clone(),
            version,
        };
        Self {
            metrics: context.service_metrics(&name),
            name,
            slot,
            state,
            in_flight,
            connections,
            resource: Arc::new(resource),
        }
    }

    /// The good version, if there is one.
    pub fn as_ready(&self) -> Option<&Ready> {
        match &self.state {
            ServiceState::Ready(ready) => Some(ready),
            ServiceState::Invalid => None,
        }
    }

    /// Address and port the service is to be reached at, if known from a good version.
    pub fn listen(&self) -> Option<(Option<IpAddr>, u16)> {
        self.as_ready()
            .map(|ready| (ready.spec.listen.or(ready.settings.listen), ready.spec.port))
    }
}

/// The same upstream, with its resolved addresses, where nothing changed:
/// workers keep a pool as long as it is the same one.
fn kept_or_new(
    spec: &UpstreamSpec,
    known: Option<&Arc<Upstream>>,
    key: impl FnOnce() -> String,
) -> Result<Arc<Upstream>, BuildError> {
    match known {
        Some(known) if known.spec() == spec => Ok(Arc::clone(known)),
        _ => {
            let made = Upstream::succeeding(spec.clone(), known.map(Arc::as_ref));
            made.map(Arc::new)
                .map_err(|error| BuildError::Tls(key(), error))
        }
    }
}
