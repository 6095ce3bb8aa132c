//! What compiling a tree gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::Problem;
use crate::model::{EffectiveValue, PeerSpec, ServiceName, ServiceSpec};

/// A compiled tree. Equal inputs give equal specs.
#[derive(Debug, Clone, Default)]
pub struct Compilation {
    /// Every service of the tree.
    pub services: BTreeMap<ServiceName, Compiled>,
    /// Of the tree and of every service, in order of service.
    pub problems: Vec<Problem>,
    /// Files outside the tree that the services' files name: a change of one
    /// of them is a reason to compile again.
    pub referenced: BTreeSet<PathBuf>,
    /// Variables that services' files name in the login of their database.
    pub login_variables: BTreeSet<String>,
    /// Services compiled this time rather than taken from memory.
    pub compiled: usize,
    /// Whether a file that is named did not answer: to be compiled again.
    pub unanswered: bool,
    /// Worth one INFO line each; only of services compiled this time.
    pub notes: Vec<(ServiceName, String)>,
}

/// One service of a compiled tree.
#[derive(Debug, Clone)]
pub enum Compiled {
    /// Fronted by this process.
    Local(LocalService),
    /// Fronted elsewhere.
    Peer(Arc<PeerSpec>),
}

/// A service fronted by this process.
#[derive(Debug, Clone)]
pub struct LocalService {
    /// The spec, or what is known of a service with errors.
    pub spec: Result<Arc<ServiceSpec>, Invalid>,
    /// Redacted, in order of key.
    pub effective: Arc<[EffectiveValue]>,
}

/// What is known of a service with errors, so that its port can answer
/// `config_invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Invalid {
    pub port: Option<u16>,
    /// `None` = the process setting.
    pub listen: Option<IpAddr>,
}
