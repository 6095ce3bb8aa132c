//! A service, ready to run.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{ProcessSettings, ServiceName, ServiceSpec};
use crate::net::Permits;

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
    /// Requests being served, over all workers; kept across versions.
    pub in_flight: Permits,
    /// Open client connections, over all workers; kept across versions.
    pub connections: Permits,
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
}

/// What building needs besides the spec.
#[derive(Debug)]
pub struct BuildContext<'a> {
    pub settings: &'a Arc<ProcessSettings>,
    /// The version in force, whose counters are kept.
    pub predecessor: Option<&'a Service>,
}

/// Why a valid spec could not be made to run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The authentication policy.
    #[error("authentication: {0}")]
    Auth(String),
}

impl Service {
    /// Builds a good version. Fast and local: nothing is fetched or resolved.
    pub fn ready(
        spec: Arc<ServiceSpec>,
        slot: SlotId,
        context: &BuildContext<'_>,
    ) -> Result<Self, BuildError> {
        let name = spec.name.clone();
        let ready = Ready {
            settings: Arc::clone(context.settings),
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
        Self {
            name,
            slot,
            state,
            in_flight,
            connections,
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
