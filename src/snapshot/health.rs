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
/// same way, so that a reload does not forget what the monitors found.
pub(super) fn watched(spec: &ServiceSpec, old: Option<&Ready>) -> Watched {
    let same_app = |old: &&Ready| {
        old.spec.health_check == spec.health_check
            && old.spec.upstream.target == spec.upstream.target
    };
    let dependencies = spec.dependencies.iter().map(|dependency| {
        let known = old.and_then(|old| known_check(dependency, old));
        WatchedDependency {
            name: Arc::clone(&dependency.name),
            required: dependency.required,
            check: known.unwrap_or_else(|| fresh(&dependency.health_check)),
        }
    });
    Watched {
        app: match old.filter(same_app) {
            Some(old) => Arc::clone(&old.health.app),
            None => fresh(&spec.health_check),
        },
        database: database_check(spec, old),
        dependencies: dependencies.collect(),
    }
}

/// The database's, kept as long as its settings are.
fn database_check(spec: &ServiceSpec, old: Option<&Ready>) -> Option<WatchedDatabase> {
    let database = spec.database.as_ref()?;
    let same = |old: &&Ready| old.spec.database.as_ref() == Some(database);
    let known = old.filter(same).and_then(|old| old.health.database.clone());
    let made = || WatchedDatabase {
        required: database.required,
        check: Arc::new(CheckCell::new(pg::check_interval(database), Instant::now())),
        reason: Arc::default(),
    };
    Some(known.unwrap_or_else(made))
}

fn fresh(check: &HealthCheckSpec) -> Arc<CheckCell> {
    Arc::new(CheckCell::for_check(check, Instant::now()))
}

fn known_check(spec: &DependencySpec, old: &Ready) -> Option<Arc<CheckCell>> {
    let same = |known: &DependencySpec| {
        known.name == spec.name
            && known.addresses == spec.addresses
            && known.health_check == spec.health_check
            && known.protocol == spec.protocol
            && known.tls == spec.tls
    };
    let index = old.spec.dependencies.iter().position(same)?;
    let watched = old.health.dependencies.get(index)?;
    Some(Arc::clone(&watched.check))
}
