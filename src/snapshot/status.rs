//! What is in force and what is wrong, for people: written by the control
//! loop, read by the admin port.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::model::{EffectiveValue, Origin, ServiceName};

/// The board itself. Cheap to clone; every clone shows the same.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard {
    status: Arc<ArcSwap<Status>>,
}

impl StatusBoard {
    /// What the board shows now, as one consistent whole.
    pub fn load(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Replaces everything; only the control loop calls this.
    pub fn replace(&self, status: Status) {
        self.status.store(Arc::new(status));
    }
}

/// The state of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// In force in every worker; 0 before the first.
    pub generation: u64,
    /// Digest of the services' files as they are believed to be, hex. What
    /// references name is not part of it.
    pub hash: Arc<str>,
    /// When the files were last in force without any error.
    pub last_success: Option<SystemTime>,
    /// Local services, also those that never had a good version.
    pub services: BTreeMap<ServiceName, Arc<ServiceStatus>>,
    /// Services of the tree that are fronted elsewhere.
    pub peers: Vec<ServiceName>,
    /// Problems of the tree, the environment and the process file. Those of
    /// services stand with the service.
    pub problems: Vec<StatusProblem>,
    /// Process settings that changed on disk and wait for a restart, by key.
    pub restart_needed: Vec<&'static str>,
}

/// One local service.
#[derive(Debug, Clone)]
pub struct ServiceStatus {
    pub state: ServingState,
    /// Generation the version in force first appeared in; `None` without one.
    pub generation: Option<u64>,
    /// As configured, when known.
    pub port: Option<u16>,
    /// The real address of the listener, when there is one.
    pub address: Option<SocketAddr>,
    /// Of the file as it is now; errors say why it is not in force.
    pub problems: Vec<StatusProblem>,
    /// Of the file as it is now, redacted, in order of key.
    pub effective: Arc<[EffectiveValue]>,
}

/// How a local service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// The file on disk is in force.
    Serving,
    /// An older version than the file on disk is in force.
    Stale,
    /// Never had a good version: answers `config_invalid`, or nothing at all.
    Invalid,
    /// Being prepared for the first time.
    Preparing,
    /// Gone from the tree; still served until that is certain.
    Leaving,
}

impl ServingState {
    /// As printed by `/services`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Stale => "stale",
            Self::Invalid => "invalid",
            Self::Preparing => "preparing",
            Self::Leaving => "leaving",
        }
    }
}

/// A problem as it is shown: the texts hold no secret values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusProblem {
    /// `false` = a warning.
    pub error: bool,
    /// The service it belongs to, if any.
    pub service: Option<ServiceName>,
    pub origin: Origin,
    pub message: String,
    pub hint: Option<String>,
}

/// `origin: message`, without the hint.
impl fmt::Display for StatusProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.to_string();
        if !origin.is_empty() {
            write!(formatter, "{origin}: ")?;
        }
        formatter.write_str(&self.message)
    }
}
