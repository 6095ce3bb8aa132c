//! A service as one worker sees it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::auth::AuthWorker;
use crate::model::Limits;
use crate::net::deadline::Deadlines;
use crate::net::http1::Spares;
use crate::net::tls::ServerTls;
use crate::net::{ClientTimeouts, H2Limits, ParserLimits};
use crate::snapshot::{Current, Service, Snapshot};
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recorder::Recorder;
use crate::telemetry::spans::SpanBuffer;
use crate::trace::IdGenerator;
use crate::upstream::{Pool, Upstream};

/// What all services of a worker share.
pub struct WorkerParts {
    pub index: usize,
    pub deadlines: Deadlines,
    pub ids: IdGenerator,
    pub log: LogHandle,
    /// Shared by all workers: untrusted forwarding headers were warned of.
    pub warned: Arc<AtomicBool>,
    /// For what has no cells of its own: caught panics.
    pub metrics: Metrics,
    pub auth: AuthWorker,
    /// For what concerns other services too; requests follow their own version.
    pub current: Current,
    pub spans: Rc<SpanBuffer>,
    /// Heads of requests to be filled again.
    pub spares: Spares,
}

impl WorkerParts {
    /// One WARN per process: a proxy in front that is not listed makes every
    /// client look like the proxy.
    pub(super) fn warn_of_unlisted_proxy(&self, peer: IpAddr) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "a private peer sends forwarding headers but is not in trustedProxies: they are replaced"
            );
        }
    }
}

/// A service's place in a worker; its content changes with each generation.
pub struct Site {
    current: RefCell<Rc<Local>>,
}

/// One version of a service, with this worker's own pools and cells. A request
/// keeps the one it began with.
pub struct Local {
    pub service: Arc<Service>,
    pub parts: Rc<WorkerParts>,
    pub recorder: Rc<Recorder>,
    /// To the app; `None` without a good version.
    pool: Option<Rc<Pool>>,
    rule_pools: Vec<Option<Rc<Pool>>>,
    connection: ConnectionSettings,
    upgrade_idle: Duration,
}

/// Bounds and times of a connection: one that was opened under others is closed
/// after its next response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    pub parser: ParserLimits,
    pub h2: H2Limits,
    pub timeouts: ClientTimeouts,
}

impl Site {
    /// The first version this worker sees.
    pub fn new(local: Local) -> Rc<Self> {
        Rc::new(Self {
            current: RefCell::new(Rc::new(local)),
        })
    }

    /// The version in force in this worker.
    pub fn current(&self) -> Rc<Local> {
        Rc::clone(&self.current.borrow())
    }

    /// Every request begun from now on follows `local`.
    pub fn replace(&self, local: Local) {
        let old = self.current.replace(Rc::new(local));
        let current = self.current.borrow();
        old.retire_pools_not_in(&current);
    }

    /// Connections to the app are closed after their response from now on: near
    /// the end of the process their descriptors serve better who still waits.
    pub fn keep_no_connections(&self) {
        for pool in self.current.borrow().pools() {
            pool.keep_none();
        }
    }
}

impl Local {
    /// Takes over the predecessor's pools where the upstream is the same.
    pub fn new(
        service: Arc<Service>,
        snapshot: &Snapshot,
        parts: &Rc<WorkerParts>,
        predecessor: Option<&Self>,
    ) -> Self {
        let recorder = Recorder {
            shard: service.metrics.shard(parts.index),
            peer: None,
            log: parts.log.clone(),
            service: service.name.shared_key(),
            generation: snapshot.generation,
            resource: Arc::clone(&service.resource),
            spans: Rc::clone(&parts.spans),
        };
        let limits = service
            .as_ready()
            .map(|ready| ready.spec.limits.clone())
            .unwrap_or_default();
        let connection = ConnectionSettings::of(&limits);
        let idle = connection.timeouts.idle;
        let pool_for = |upstream: &Arc<Upstream>| {
            predecessor
                .and_then(|old| old.pool_of(upstream))
                .inspect(|pool| pool.set_client_idle_timeout(idle))
                .unwrap_or_else(|| Pool::new(Arc::clone(upstream), idle, parts.deadlines.clone()))
        };
        let ready = service.as_ready();
        let pool = ready.map(|ready| pool_for(&ready.upstream));
        let rule_pools = ready
            .map(|ready| {
                ready
                    .rule_upstreams
                    .iter()
                    .map(|rule| rule.as_ref().map(&pool_for))
                    .collect()
            })
            .unwrap_or_default();
        Self {
            connection,
            upgrade_idle: limits.upgrade_idle_timeout,
            pool,
            rule_pools,
            parts: Rc::clone(parts),
            recorder: Rc::new(recorder),
            service,
        }
    }

    /// The pool for a request that matched `rule`.
    pub(super) fn pool(&self, rule: Option<usize>) -> Option<&Rc<Pool>> {
        rule.and_then(|rule| self.rule_pools.get(rule)?.as_ref())
            .or(self.pool.as_ref())
    }

    /// How long a tunnel may be silent.
    pub(super) fn upgrade_idle_timeout(&self) -> Duration {
        self.upgrade_idle
    }

    /// What holds for a whole connection of this service.
    pub fn connection_settings(&self) -> ConnectionSettings {
        self.connection
    }

    /// TLS of the public port; `None` in plain text.
    pub fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.service.as_ready()?.tls.as_ref()
    }

    /// Whether a connection opened under `tls` would be opened so now.
    pub fn is_under(&self, tls: Option<&Arc<ServerTls>>) -> bool {
        match (self.tls(), tls) {
            (None, None) => true,
            (Some(own), Some(tls)) => Arc::ptr_eq(own, tls),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn pools(&self) -> impl Iterator<Item = &Rc<Pool>> {
        self.pool.iter().chain(self.rule_pools.iter().flatten())
    }

    fn pool_of(&self, upstream: &Arc<Upstream>) -> Option<Rc<Pool>> {
        self.pools()
            .find(|pool| Arc::ptr_eq(pool.upstream(), upstream))
            .cloned()
    }

    fn retire_pools_not_in(&self, successor: &Self) {
        for pool in self.pools() {
            if !successor.pools().any(|kept| Rc::ptr_eq(kept, pool)) {
                pool.retire();
            }
        }
    }
}

impl ConnectionSettings {
    /// Those that follow from a service's limits.
    pub fn of(limits: &Limits) -> Self {
        Self {
            parser: ParserLimits {
                header_bytes: limits.header_bytes as usize,
                header_count: limits.header_count as usize,
            },
            h2: H2Limits {
                header_bytes: limits.header_bytes,
                streams: limits.h2_streams,
            },
            timeouts: ClientTimeouts {
                header: limits.header_timeout,
                idle: limits.idle_timeout,
                write_stall: limits.write_stall_timeout,
            },
        }
    }
}
