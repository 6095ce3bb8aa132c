//! Database pools.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use prometheus::proto;

use super::cells::{DURATION_BOUNDS, Histogram, HistogramTotal};
use super::collect::Filling;
use super::{families, locked};
use crate::model::ServiceName;

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Open connections, those being closed included.
    pub total: u32,
    pub idle: u32,
    /// Lent out, being reset, or being opened.
    pub active: u32,
    pub waiting: u32,
    pub max: u32,
}

/// Who knows how full a pool is; asked when somebody scrapes.
pub trait PoolGauges: Send + Sync {
    fn read(&self) -> PoolStats;
}

/// Counters of one pool.
pub struct PoolMetrics {
    service: ServiceName,
    waits: Histogram,
    timeouts: AtomicU64,
    connect_errors: Mutex<BTreeMap<&'static str, u64>>,
    gauges: OnceLock<Weak<dyn PoolGauges>>,
}

impl PoolMetrics {
    pub(super) fn new(service: ServiceName) -> Self {
        Self {
            service,
            waits: Histogram::new(&DURATION_BOUNDS),
            timeouts: AtomicU64::new(0),
            connect_errors: Mutex::default(),
            gauges: OnceLock::new(),
        }
    }

    /// Asked from now on; the first one counts.
    pub fn watch(&self, gauges: &Arc<dyn PoolGauges>) {
        // A pool that comes again is one the registry has forgotten.
        let _ = self.gauges.set(Arc::downgrade(gauges));
    }

    /// A connection was lent after `time`.
    pub fn waited(&self, time: Duration) {
        self.waits.observe(time);
    }

    /// Somebody waited in vain.
    pub fn timed_out(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection could not be made.
    pub fn connect_error(&self, reason: &'static str) {
        *locked(&self.connect_errors).entry(reason).or_default() += 1;
    }
}

/// Of pools that somebody still holds.
pub(super) fn collect(pools: &[Arc<PoolMetrics>], families: &mut Vec<proto::MetricFamily>) {
    let mut gauges = [
        Filling::new(&families::DB_POOL_TOTAL),
        Filling::new(&families::DB_POOL_IDLE),
        Filling::new(&families::DB_POOL_ACTIVE),
        Filling::new(&families::DB_POOL_WAITING),
        Filling::new(&families::DB_POOL_MAX),
    ];
    let mut waits = Filling::new(&families::DB_POOL_WAIT);
    let mut timeouts = Filling::new(&families::DB_POOL_TIMEOUTS);
    let mut errors = Filling::new(&families::DB_POOL_CONNECT_ERRORS);
    for pool in pools {
        let service = pool.service.key();
        if let Some(reading) = pool.gauges.get().and_then(Weak::upgrade) {
            let PoolStats {
                total,
                idle,
                active,
                waiting,
                max,
            } = reading.read();
            let values = [total, idle, active, waiting, max];
            for (gauge, value) in gauges.iter_mut().zip(values) {
                gauge.add(&[service], f64::from(value));
            }
        }
        if let Some(total) = HistogramTotal::of(std::iter::once(&pool.waits)) {
            waits.add_histogram(&[service], &total);
        }
        timeouts.add(&[service], pool.timeouts.load(Ordering::Relaxed) as f64);
        for (reason, count) in locked(&pool.connect_errors).iter() {
            errors.add(&[service, reason], *count as f64);
        }
    }
    for filling in gauges.into_iter().chain([waits, timeouts, errors]) {
        filling.finish(families);
    }
}
