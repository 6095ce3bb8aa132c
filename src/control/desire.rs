//! What is to be in force, as far as the files decide it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claims::{Listen, Wanted};
use super::force::Force;
use super::omission::Opening;
use crate::config::{Compilation, Compiled};
use crate::model::{ProcessSettings, ServiceName};

/// What a reconciliation goes by.
pub(super) struct Desire {
    pub(super) settings: Arc<ProcessSettings>,
    pub(super) hash: Arc<str>,
    pub(super) desired: BTreeMap<ServiceName, Wanted>,
    /// Would open by omission; the version in force is wanted instead.
    pub(super) opening: BTreeMap<ServiceName, Opening>,
    /// Whether any service is to be fronted here, good or not.
    pub(super) any_local: bool,
}

impl Desire {
    /// What is wanted of the local services: the new version where there is a
    /// good one, what is in force where there is not. `cut` names the services
    /// whose file is only the beginning of the one in force.
    pub(super) fn of(
        force: &Force,
        settings: &Arc<ProcessSettings>,
        hash: &Arc<str>,
        compilation: &Compilation,
        cut: &BTreeSet<ServiceName>,
    ) -> Self {
        let mut desired = BTreeMap::new();
        let mut opening = BTreeMap::new();
        let mut any_local = false;
        for (name, compiled) in &compilation.services {
            let Compiled::Local(local) = compiled else {
                continue;
            };
            any_local = true;
            let in_force = force.services.get(name).map(|service| &service.wanted);
            let before = in_force.and_then(Wanted::spec);
            let wanted = match (&local.spec, before) {
                (Ok(next), Some(before)) => {
                    match Opening::between(before, next, cut.contains(name)) {
                        Some(how) => {
                            opening.insert(name.clone(), how);
                            in_force.cloned()
                        }
                        None => Some(Wanted::Ready(Arc::clone(next))),
                    }
                }
                (Ok(next), None) => Some(Wanted::Ready(Arc::clone(next))),
                (Err(_), Some(_)) => in_force.cloned(),
                (Err(invalid), None) => match invalid.port {
                    Some(port) => Some(Wanted::Invalid(Listen {
                        ip: invalid.listen.or(settings.listen),
                        port,
                    })),
                    None => in_force.cloned(),
                },
            };
            if let Some(wanted) = wanted {
                desired.insert(name.clone(), wanted);
            }
        }
        Self {
            settings: Arc::clone(settings),
            hash: Arc::clone(hash),
            desired,
            opening,
            any_local,
        }
    }
}
