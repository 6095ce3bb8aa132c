//! The monitors of one service: kept while the same thing is watched.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::health::{CheckCell, ServiceHealth};
use crate::model::HealthCheckSpec;
use crate::snapshot::{Ready, Service};
use crate::telemetry::metrics::{HealthKind, Metrics};
use crate::telemetry::supervise::Supervisor;
use crate::upstream::Upstream;
use crate::upstream::cluster::Cluster;
use crate::upstream::monitor::{self, AppQuestion, DependencyQuestion, Question, Target};

/// Dropping it ends them. A monitor of another kind (a database's) is one more
/// [`Source`], with a question of its own.
#[derive(Default)]
pub(super) struct Monitors {
    running: Vec<Monitor>,
}

struct Monitor {
    cell: Arc<CheckCell>,
    source: Source,
    _task: AbortOnDropHandle<()>,
}

/// What is looked after.
enum Source {
    App(Arc<Upstream>),
    Dependency(Arc<Cluster>),
}

impl Source {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::App(one), Self::App(other)) => Arc::ptr_eq(one, other),
            (Self::Dependency(one), Self::Dependency(other)) => Arc::ptr_eq(one, other),
            (Self::App(_), Self::Dependency(_)) | (Self::Dependency(_), Self::App(_)) => false,
        }
    }

    /// `None` where nothing is to be asked.
    fn question(&self, check: &HealthCheckSpec) -> Option<Box<dyn Question>> {
        Some(match self {
            Self::App(upstream) => Box::new(AppQuestion::new(upstream, check)?),
            Self::Dependency(cluster) => Box::new(DependencyQuestion::new(cluster, check)?),
        })
    }
}

impl Monitors {
    /// Looks after everything this version has; what is watched in the same way
    /// as before goes on untouched.
    pub(super) fn follow(
        &mut self,
        service: &Service,
        ready: &Ready,
        metrics: &Metrics,
        supervisor: &Supervisor,
    ) {
        let mut old = std::mem::take(&mut self.running);
        for (cell, source, check) in sources(ready, &ready.health) {
            let same = |known: &Monitor| Arc::ptr_eq(&known.cell, cell) && known.source.is(&source);
            if let Some(index) = old.iter().position(same) {
                self.running.push(old.swap_remove(index));
                continue;
            }
            let (Some(question), Some(timing)) = (source.question(check), check.probe()) else {
                continue;
            };
            let key = service.name.shared_key();
            let (what, gauge) = match &source {
                Source::App(_) => (Arc::from("app"), metrics.health(&key, HealthKind::App)),
                Source::Dependency(cluster) => (
                    Arc::from(cluster.peer()),
                    metrics.health(cluster.peer(), HealthKind::Dependency),
                ),
            };
            let target = Target {
                service: key,
                what,
                question,
                timing: timing.clone(),
                cell: Arc::clone(cell),
                gauge,
            };
            self.running.push(Monitor {
                cell: Arc::clone(cell),
                source,
                _task: monitor::start(target, supervisor.clone()),
            });
        }
    }
}

/// Everything that is watched, with the cell its results go to.
fn sources<'a>(
    ready: &'a Ready,
    health: &'a ServiceHealth,
) -> impl Iterator<Item = (&'a Arc<CheckCell>, Source, &'a HealthCheckSpec)> {
    let app = (
        &health.app,
        Source::App(Arc::clone(&ready.upstream)),
        &ready.spec.health_check,
    );
    let watched = health.dependencies.iter().zip(&ready.dependencies);
    let dependencies = watched.map(|(watched, dependency)| {
        (
            &watched.check,
            Source::Dependency(Arc::clone(&dependency.cluster)),
            &dependency.spec.health_check,
        )
    });
    std::iter::once(app).chain(dependencies)
}
