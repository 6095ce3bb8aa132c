//! The handles a service and its workers record through.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::Method;

use super::auth::{AuthKey, AuthKeys, AuthResult, KEYS};
use super::cells::{Codes, LaneCells, Padded, RetryReason, ServiceCells};
use crate::model::{Cause, ServiceName};

/// Tables shared by all services.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) codes: Codes,
    pub(super) auth: AuthKeys,
}

/// All cells of one service. Kept by the service's part of the snapshot; when
/// the last holder lets go, the service's series disappear.
#[derive(Debug)]
pub struct ServiceMetrics {
    pub(super) name: ServiceName,
    pub(super) tables: Arc<Tables>,
    pub(super) shards: Box<[Padded<ServiceCells>]>,
    pub(super) peers: Mutex<BTreeMap<Arc<str>, Weak<PeerMetrics>>>,
    pub(super) stale: AtomicBool,
    pub(super) key_set: KeySetCells,
    pub(super) certificates: super::tls::ExpiryCells,
}

impl ServiceMetrics {
    pub(super) fn new(name: &ServiceName, tables: &Arc<Tables>, shards: usize) -> Self {
        Self {
            name: name.clone(),
            tables: Arc::clone(tables),
            shards: (0..shards).map(|_| Padded(ServiceCells::new())).collect(),
            peers: Mutex::new(BTreeMap::new()),
            stale: AtomicBool::new(false),
            key_set: KeySetCells::default(),
            certificates: Mutex::default(),
        }
    }

    /// The cells of one worker; numbers beyond the last shard wrap around.
    pub fn shard(self: &Arc<Self>, worker: usize) -> ServiceShard {
        ServiceShard {
            worker: worker % self.shards.len(),
            service: Arc::clone(self),
        }
    }

    /// The cells for calls toward `peer` (a dependency's key or name, from
    /// configuration). The same handle as long as somebody keeps it.
    pub fn peer(&self, peer: &str) -> Arc<PeerMetrics> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = peers.get(peer).and_then(Weak::upgrade) {
            return known;
        }
        peers.retain(|_, handle| handle.strong_count() > 0);
        let made = Arc::new(PeerMetrics {
            peer: Arc::from(peer),
            shards: (0..self.shards.len())
                .map(|_| Padded(LaneCells::new()))
                .collect(),
            circuit: ArcSwap::default(),
        });
        peers.insert(Arc::clone(&made.peer), Arc::downgrade(&made));
        made
    }

    /// Whether the service runs on an older version because the present one
    /// was refused.
    pub fn set_stale(&self, stale: bool) {
        self.stale.store(stale, Ordering::Relaxed);
    }

    /// A fetch of the service's key set ended; `keys` are in force now, `None`
    /// if nothing came.
    pub fn key_set_fetched(&self, good: bool, keys: usize, now: SystemTime) {
        let KeySetCells {
            good: good_count,
            failed,
            keys: in_force,
            last_success_ms,
        } = &self.key_set;
        in_force.store(keys as u64, Ordering::Relaxed);
        if good {
            good_count.fetch_add(1, Ordering::Relaxed);
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            last_success_ms.store(since_ms, Ordering::Relaxed);
        } else {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests in flight on all workers, inbound.
    pub fn inbound_in_flight(&self) -> i64 {
        self.shards
            .iter()
            .map(|shard| shard.0.inbound.in_flight.load(Ordering::Relaxed))
            .sum()
    }
}

/// What is told of a service's key set; written by its one task.
#[derive(Debug, Default)]
pub(super) struct KeySetCells {
    pub(super) good: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) keys: AtomicU64,
    pub(super) last_success_ms: AtomicU64,
}

/// All cells for calls of one service toward one peer.
#[derive(Debug)]
pub struct PeerMetrics {
    pub(super) peer: Arc<str>,
    pub(super) shards: Box<[Padded<LaneCells>]>,
    /// Of whoever calls the peer now: 0 closed, 1 half-open, 2 open.
    pub(super) circuit: ArcSwap<AtomicU8>,
}

impl PeerMetrics {
    /// The label: a dependency's key or name; empty where none is known.
    pub fn name(&self) -> &str {
        &self.peer
    }

    /// The label, shared.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.peer)
    }

    /// From now on this cell tells how the circuit breaker stands: 0 closed,
    /// 1 half-open, 2 open. What an earlier version still writes is not seen.
    pub fn show_circuit(&self, cell: Arc<AtomicU8>) {
        self.circuit.store(cell);
    }
}

/// Which way a request goes.
#[derive(Debug, Clone, Copy)]
pub enum Direction<'a> {
    /// Toward the app.
    Inbound,
    /// From the app toward a peer.
    Outbound(&'a PeerMetrics),
}

/// One worker's own cells of one service. Recording is a few relaxed adds on
/// cache lines nobody else writes: no lock, no look-up by string.
#[derive(Debug, Clone)]
pub struct ServiceShard {
    service: Arc<ServiceMetrics>,
    worker: usize,
}

impl ServiceShard {
    /// A request ended. `total` runs from the complete head to the end of the
    /// body; `upstream` is the part of it spent on the upstream.
    pub fn request(
        &self,
        direction: Direction<'_>,
        method: &Method,
        status: u16,
        total: Duration,
        upstream: Duration,
    ) {
        let codes = &self.service.tables.codes;
        self.lane(direction)
            .request(codes, method, status, total, upstream);
    }

    /// A request the parser refused with `status` (400, 414, 431) before
    /// anybody saw its method: counted with method `_OTHER` and cause
    /// `bad_request`.
    pub fn parser_refused(&self, direction: Direction<'_>, status: u16) {
        let codes = &self.service.tables.codes;
        self.lane(direction).refused(codes, status);
        self.proxy_error(Cause::BadRequest);
    }

    /// Requests being served. Every `inc` needs its `dec`: call them from one
    /// drop guard.
    pub fn in_flight<'a>(&'a self, direction: Direction<'a>) -> InFlight<'a> {
        InFlight(&self.lane(direction).in_flight)
    }

    /// The sidecar answered instead of the app.
    pub fn proxy_error(&self, cause: Cause) {
        if let Some(cell) = self.cells().errors.get(cause as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An authenticator decided. All words are fixed in the program.
    pub fn auth_decision(&self, strategy: &'static str, result: AuthResult, reason: &'static str) {
        let index = self.service.tables.auth.index(&AuthKey {
            strategy,
            result,
            reason,
        });
        let row = self
            .cells()
            .auth
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; KEYS]));
        if let Some(cell) = row.get(index) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An attempt after the first begins.
    pub fn retry(&self, reason: RetryReason) {
        if let Some(cell) = self.cells().retries.get(reason as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lane<'a>(&'a self, direction: Direction<'a>) -> &'a LaneCells {
        match direction {
            Direction::Inbound => &self.cells().inbound,
            // Both have one shard per worker, so the fallback is never taken.
            Direction::Outbound(peer) => peer
                .shards
                .get(self.worker)
                .map_or(&self.cells().inbound, |shard| &shard.0),
        }
    }

    pub(super) fn cells(&self) -> &ServiceCells {
        &self
            .service
            .shards
            .get(self.worker)
            .expect("the worker number was reduced when the shard was made")
            .0
    }
}

/// The in-flight gauge of one worker.
#[derive(Debug)]
pub struct InFlight<'a>(&'a AtomicI64);

impl InFlight<'_> {
    /// A request began.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
