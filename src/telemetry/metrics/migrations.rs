//! Migrations of services' databases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto;

use super::collect::Filling;
use super::families;
use crate::model::ServiceName;

/// What is known of one service's migrations.
pub struct MigrationMetrics {
    service: ServiceName,
    applied: AtomicU64,
    ahead: AtomicU64,
    run: AtomicU64,
    failures: AtomicU64,
}

impl MigrationMetrics {
    pub(super) fn new(service: ServiceName) -> Self {
        Self {
            service,
            applied: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
            run: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// The database has `applied`, of which `ahead` are newer than every file;
    /// `run` were run just now.
    pub fn succeeded(&self, applied: usize, ahead: usize, run: usize) {
        self.applied.store(applied as u64, Ordering::Relaxed);
        self.ahead.store(ahead as u64, Ordering::Relaxed);
        self.run.fetch_add(run as u64, Ordering::Relaxed);
    }

    /// A file failed or was refused.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// Of databases that somebody still looks after.
pub(super) fn collect(all: &[Arc<MigrationMetrics>], families: &mut Vec<proto::MetricFamily>) {
    let mut applied = Filling::new(&families::DB_MIGRATIONS_APPLIED);
    let mut ahead = Filling::new(&families::DB_MIGRATIONS_AHEAD);
    let mut run = Filling::new(&families::DB_MIGRATIONS_RUN);
    let mut failures = Filling::new(&families::DB_MIGRATIONS_FAILURES);
    for one in all {
        let service = one.service.key();
        let value = |cell: &AtomicU64| cell.load(Ordering::Relaxed) as f64;
        applied.add(&[service], value(&one.applied));
        ahead.add(&[service], value(&one.ahead));
        run.add(&[service], value(&one.run));
        failures.add(&[service], value(&one.failures));
    }
    for filling in [applied, ahead, run, failures] {
        filling.finish(families);
    }
}
