//! One address of a dependency and how it has been doing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::breaker::milliseconds;
use crate::model::Address;
use crate::upstream::pool::Upstream;

/// Failures in a row after which an address is left out.
const FAILURES: u32 = 5;
/// For how long the first time; twice as long each time it fails its probe.
const EJECTED_FIRST: Duration = Duration::from_secs(10);
/// But never longer than this.
const EJECTED_LONGEST: Duration = Duration::from_secs(160);
/// `until_ms` of an address that is not left out.
const IN: u64 = 0;

/// One address, shared by all workers.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) address: SocketAddr,
    /// For the log.
    pub(super) label: Arc<str>,
    /// What it was configured as.
    pub(super) configured: Address,
    /// The same as the other side's `Host`.
    pub(super) host: HeaderValue,
    pub(super) upstream: Arc<Upstream>,
    failures: AtomicU32,
    /// Good answers in a row whose bodies broke off.
    broken: AtomicU32,
    /// Times it was left out in a row.
    ejections: AtomicU32,
    /// When it is probed; [`IN`] = it is not left out.
    until_ms: AtomicU64,
    probing: AtomicBool,
}

/// Whether an address is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    In,
    /// Left out long enough: one request finds out.
    Due,
    Out,
}

impl Standing {
    /// As printed by `/services`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Due => "due",
            Self::Out => "ejected",
        }
    }
}

impl Endpoint {
    pub(super) fn new(
        address: SocketAddr,
        configured: Address,
        host: HeaderValue,
        upstream: Upstream,
    ) -> Self {
        Self {
            address,
            label: Arc::from(address.to_string()),
            configured,
            host,
            upstream: Arc::new(upstream),
            failures: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            until_ms: AtomicU64::new(IN),
            probing: AtomicBool::new(false),
        }
    }

    /// What a request there names as its host: the address as configured.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// What connects to it.
    pub(in crate::upstream) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The clock is read only for an address that is left out.
    pub(super) fn standing(&self, now_ms: impl FnOnce() -> u64) -> Standing {
        match self.until_ms.load(Ordering::Acquire) {
            IN => Standing::In,
            until_ms if now_ms() < until_ms || self.probing.load(Ordering::Acquire) => {
                Standing::Out
            }
            _ => Standing::Due,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.until_ms.load(Ordering::Acquire) != IN
    }

    /// Takes the one probe of an address that is due.
    pub(super) fn begin_probe(&self) -> bool {
        !self.probing.swap(true, Ordering::AcqRel)
    }

    /// The probe ended without a verdict.
    pub(super) fn end_probe(&self) {
        self.probing.store(false, Ordering::Release);
    }

    /// Returns whether this took the address in again.
    pub(super) fn succeeded(&self, probe: bool) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if probe {
            self.ejections.store(0, Ordering::Relaxed);
            self.until_ms.store(IN, Ordering::Release);
            self.probing.store(false, Ordering::Release);
        }
        probe
    }

    /// Returns whether this put the address out, which `allowed` may forbid.
    pub(super) fn failed(&self, probe: bool, now_ms: u64, allowed: impl FnOnce() -> bool) -> bool {
        if probe {
            self.eject(now_ms);
            self.probing.store(false, Ordering::Release);
            return false;
        }
        self.counted(&self.failures, now_ms, allowed)
    }

    /// A good answer came to its end.
    pub(super) fn completed(&self) {
        if self.broken.load(Ordering::Relaxed) != 0 {
            self.broken.store(0, Ordering::Relaxed);
        }
    }

    /// A good answer broke off in its body. Returns whether this put the
    /// address out.
    pub(super) fn broke_off(&self, now_ms: u64, allowed: impl FnOnce() -> bool) -> bool {
        self.counted(&self.broken, now_ms, allowed)
    }

    fn counted(&self, failures: &AtomicU32, now_ms: u64, allowed: impl FnOnce() -> bool) -> bool {
        let failures = failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        if failures < FAILURES || self.is_out() || !allowed() {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.broken.store(0, Ordering::Relaxed);
        self.eject(now_ms);
        true
    }

    fn eject(&self, now_ms: u64) {
        let before = self.ejections.fetch_add(1, Ordering::AcqRel).min(16);
        let first = milliseconds(EJECTED_FIRST);
        let time = (first << before).min(milliseconds(EJECTED_LONGEST));
        let until_ms = now_ms.saturating_add(time).max(IN + 1);
        self.until_ms.store(until_ms, Ordering::Release);
    }
}
