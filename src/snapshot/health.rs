//! What is watched of a service, and the health of all at once.

use std::sync::Arc;
use std::time::Instant;

use super::service::Ready;
use super::{Service, Snapshot};
use crate::health::{
    Aggregate, CheckCell, Moment, ServiceHealth, View, Watched, WatchedDatabase, WatchedDependency,
    aggregate,
};
use crate::model::{DependencySpec, HealthCheckSpec, ServiceSpec};
use crate::pg;

impl Snapshot {
    /// All local services, those without a good version among them, from the
    /// monitors' last results. Takes milliseconds with very many services.
    pub fn health(&self, view: View) -> Aggregate {
        let all = self.services.values().map(|service| service.health());
        let all: Vec<Arc<ServiceHealth>> = all.collect();
        aggregate(all.iter().map(AsRef::as_ref), view, Moment::now())
    }
}

impl Service {
    fn health(&self) -> Arc<ServiceHealth> {
        match self.as_ready() {
            Some(ready) => Arc::clone(&ready.health),
            None => Arc::new(ServiceHealth::unconfigured(self.name.clone())),
        }
    }
}

/// The cells of a version: the predecessor's where the same is watched in the
/// same way, so that a reload does not forget what the monitors found. Where
/// it is watched in another way, what was found is shown until the first look.
pub(super) fn watched(spec: &ServiceSpec, old: Option<&Ready>) -> Watched {
    let dependencies = spec
        .dependencies
        .iter()
        .map(|dependency| WatchedDependency {
            name: Arc::clone(&dependency.name),
            required: dependency.required,
            check: dependency_check(dependency, old),
        });
    Watched {
        app: app_check(spec, old),
        database: database_check(spec, old),
        dependencies: dependencies.collect(),
    }
}

/// Another app is not known yet, whatever the one before was like.
fn app_check(spec: &ServiceSpec, old: Option<&Ready>) -> Arc<CheckCell> {
    let same_app = |old: &&Ready| old.spec.upstream.target == spec.upstream.target;
    match old.filter(same_app) {
        Some(old) if old.spec.health_check == spec.health_check => Arc::clone(&old.health.app),
        Some(old) => succeeding(&spec.health_check, Some(&old.health.app)),
        None => succeeding(&spec.health_check, None),
    }
}

/// The database's, kept as long as its settings are.
fn database_check(spec: &ServiceSpec, old: Option<&Ready>) -> Option<WatchedDatabase> {
    let database = spec.database.as_ref()?;
    let known = old.and_then(|old| old.health.database.as_ref());
    if let Some(known) = known
        && old.is_some_and(|old| old.spec.database.as_ref() == Some(database))
    {
        return Some(known.clone());
    }
    let fresh = CheckCell::new(pg::check_interval(database), Instant::now());
    Some(WatchedDatabase {
        required: database.required,
        check: Arc::new(match known {
            Some(known) => fresh.succeeding(&known.check),
            None => fresh,
        }),
        reason: Arc::default(),
    })
}

/// With other certificates it is the same dependency.
fn dependency_check(spec: &DependencySpec, old: Option<&Ready>) -> Arc<CheckCell> {
    let known = old.and_then(|old| {
        let mut specs = old.spec.dependencies.iter();
        let index = specs.position(|known| known.name == spec.name)?;
        let watched = old.health.dependencies.get(index)?;
        Some((old.spec.dependencies.get(index)?, &watched.check))
    });
    match known {
        Some((known, check))
            if known.addresses == spec.addresses
                && known.health_check == spec.health_check
                && known.protocol == spec.protocol =>
        {
            Arc::clone(check)
        }
        Some((_, check)) => succeeding(&spec.health_check, Some(check)),
        None => succeeding(&spec.health_check, None),
    }
}

fn succeeding(check: &HealthCheckSpec, known: Option<&Arc<CheckCell>>) -> Arc<CheckCell> {
    let fresh = CheckCell::for_check(check, Instant::now());
    Arc::new(match known {
        Some(known) => fresh.succeeding(known),
        None => fresh,
    })
}
