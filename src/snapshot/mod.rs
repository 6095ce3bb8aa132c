//! The published state of the process: immutable, ready to run.

mod command;
mod dependency;
mod health;
mod service;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use command::{AdminCommand, ReloadOutcome};
pub use dependency::Dependency;
pub use service::{BuildContext, BuildError, Ready, Service, ServiceState, SlotId};
pub use status::{ServiceStatus, ServingState, Status, StatusBoard, StatusProblem};

use crate::model::{ProcessSettings, ServiceName};

/// Everything the data path knows of the configuration, one generation of it.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts published snapshots from 1; 0 is the empty one before the first.
    pub generation: u64,
    /// Digest of the inputs, hex.
    pub hash: Arc<str>,
    /// Local services, invalid ones with a known port included.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    pub settings: Arc<ProcessSettings>,
}

/// Read access to the published snapshot.
#[derive(Debug, Clone)]
pub struct Current {
    snapshot: Arc<ArcSwap<Snapshot>>,
}

/// Write access; only the control loop holds it, and it cannot be cloned.
#[derive(Debug)]
pub struct Publisher {
    snapshot: Arc<ArcSwap<Snapshot>>,
}

/// Both ends, holding an empty generation 0.
pub fn channel(settings: Arc<ProcessSettings>) -> (Publisher, Current) {
    let first = Snapshot {
        generation: 0,
        hash: Arc::from(""),
        services: BTreeMap::new(),
        settings,
    };
    let snapshot = Arc::new(ArcSwap::from_pointee(first));
    (
        Publisher {
            snapshot: Arc::clone(&snapshot),
        },
        Current { snapshot },
    )
}

impl Current {
    /// A snapshot that never changes: tests of readers need no publisher.
    #[cfg(test)]
    pub(crate) fn fixed(snapshot: Snapshot) -> Self {
        Self {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        }
    }

    /// The snapshot as last published.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

impl Publisher {
    /// One pointer store. Returns the predecessor, so that the control loop
    /// and not a worker frees it.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.snapshot.swap(snapshot)
    }
}
