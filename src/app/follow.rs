//! Slow work of services, begun once a version is in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::expiry::Expiries;
use super::monitors::Monitors;
use super::spans::Spans;
use crate::control::AfterPublish;
use crate::model::{ProcessSettings, Requirement, ServiceName};
use crate::snapshot::{Ready, Service};
use crate::sql::Sql;
use crate::telemetry::log::{LogHandle, LogSettings};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::supervise::Supervisor;
use crate::upstream::cluster::Cluster;
use crate::worker;

/// Owns every task that belongs to a service.
pub(super) struct Following {
    metrics: Metrics,
    log: LogHandle,
    supervisor: Supervisor,
    sql: Sql,
    services: BTreeMap<ServiceName, Monitors>,
    names: BTreeMap<ServiceName, Vec<Name>>,
    spans: Spans,
    expiries: Expiries,
}

/// The look-ups of one dependency.
struct Name {
    cluster: Arc<Cluster>,
    refresh: Duration,
    /// `None` where there is nothing to look up.
    _task: Option<AbortOnDropHandle<()>>,
}

impl Following {
    pub(super) fn new(
        shared: &worker::Shared,
        supervisor: Supervisor,
        spans: Spans,
        sql: Sql,
    ) -> Self {
        Self {
            sql,
            metrics: shared.metrics.clone(),
            log: shared.log.clone(),
            supervisor,
            services: BTreeMap::new(),
            names: BTreeMap::new(),
            spans,
            expiries: Expiries::default(),
        }
    }

    /// Looks up the names of a service's dependencies; those that did not
    /// change go on.
    fn follow_names(&mut self, name: &ServiceName, ready: &Ready) {
        let refresh = ready.settings.discovery.refresh;
        let mut old = self.names.remove(name).unwrap_or_default();
        let names = ready.dependencies.iter().map(|dependency| {
            let cluster = &dependency.cluster;
            cluster.come_into_force();
            let same =
                |known: &Name| Arc::ptr_eq(&known.cluster, cluster) && known.refresh == refresh;
            match old.iter().position(same) {
                Some(index) => old.swap_remove(index),
                None => Name {
                    _task: cluster.follow(refresh, &self.supervisor),
                    cluster: Arc::clone(cluster),
                    refresh,
                },
            }
        });
        let names: Vec<Name> = names.collect();
        self.names.insert(name.clone(), names);
    }
}

impl AfterPublish for Following {
    fn serving(&mut self, service: &Arc<Service>) {
        self.sql.serving(service);
        let Some(ready) = service.as_ready() else {
            return;
        };
        ready
            .auth
            .start(&Handle::current(), &service.metrics, &self.supervisor);
        self.follow_names(&service.name, ready);
        let is_new = !self.services.contains_key(&service.name);
        let dates = ready.certificates();
        self.expiries.set(&service.name, &dates, &self.supervisor);
        service.metrics.set_certificates(dates);
        let auth = &ready.spec.auth;
        // Where it is not stated, the configuration has warned already.
        if is_new && auth.explicit && auth.requirement == Requirement::None {
            tracing::warn!(service = %service.name, "is open, as its file says: no authentication");
        }
        let monitors = self.services.entry(service.name.clone()).or_default();
        monitors.follow(service, ready, &self.metrics, &self.supervisor);
    }

    fn gone(&mut self, name: &ServiceName) {
        self.services.remove(name);
        self.names.remove(name);
        self.expiries.forget(name);
        self.sql.gone(name);
    }

    fn settings(&mut self, settings: &Arc<ProcessSettings>) {
        self.log.apply(LogSettings::of(settings));
        self.spans.configure(&settings.exporter);
    }
}
