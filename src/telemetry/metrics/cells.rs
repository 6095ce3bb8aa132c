//! The numbers themselves: relaxed atomics, one padded set per worker.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::Method;

use crate::model::Cause;

/// Keeps one worker's cells away from another's cache lines. 128 bytes because
/// x86 fetches lines in adjacent pairs and some arm64 cores have lines that long.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// Labels of the method index; the last one stands for everything else.
pub(super) const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "_OTHER",
];
const OTHER_METHOD: usize = METHODS.len() - 1;

/// Index into [`METHODS`].
fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::OPTIONS => 5,
        Method::PATCH => 6,
        Method::TRACE => 7,
        Method::CONNECT => 8,
        _ => OTHER_METHOD,
    }
}

/// Distinct status codes told apart; an app that invents more shares `_OTHER`.
pub(super) const CODES: usize = 64;
const OTHER_CODE: u8 = CODES as u8 - 1;
const UNASSIGNED: u8 = u8::MAX;

/// Status code → small index, filled as codes are first seen, one for the
/// whole process. Rows of counters stay at 64 cells instead of 900.
#[derive(Debug)]
pub(super) struct Codes {
    index: [AtomicU8; 1000],
    seen: Mutex<Vec<u16>>,
}

impl Codes {
    pub(super) fn new() -> Self {
        Self {
            index: [const { AtomicU8::new(UNASSIGNED) }; 1000],
            seen: Mutex::new(Vec::new()),
        }
    }

    fn index(&self, status: u16) -> usize {
        let Some(cell) = self.index.get(usize::from(status)) else {
            return usize::from(OTHER_CODE);
        };
        match cell.load(Ordering::Relaxed) {
            UNASSIGNED => self.assign(status, cell),
            index => usize::from(index),
        }
    }

    /// At most once per code and process, so a lock is fine.
    #[cold]
    fn assign(&self, status: u16, cell: &AtomicU8) -> usize {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.iter().position(|code| *code == status);
        let index = match known {
            Some(index) => index as u8,
            None if seen.len() < usize::from(OTHER_CODE) => {
                seen.push(status);
                seen.len() as u8 - 1
            }
            None => OTHER_CODE,
        };
        cell.store(index, Ordering::Relaxed);
        usize::from(index)
    }

    /// Label of every index in use.
    pub(super) fn labels(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut labels: Vec<String> = seen.iter().map(u16::to_string).collect();
        labels.resize(CODES, "_OTHER".to_owned());
        labels
    }
}

/// Upper bounds of request durations, nanoseconds: half a millisecond, where a
/// local app answers, to the default response timeout.
pub(super) const DURATION_BOUNDS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Upper bounds of overhead, nanoseconds: a good request costs 3–30 µs.
const OVERHEAD_BOUNDS: [u64; 15] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// A histogram with fixed bounds: two adds per observation.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [u64; 15],
    /// Not cumulative; the last one has no bound.
    buckets: [AtomicU64; 16],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(super) const fn new(bounds: &'static [u64; 15]) -> Self {
        Self {
            bounds,
            buckets: [const { AtomicU64::new(0) }; 16],
            sum_ns: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < nanoseconds);
        if let Some(cell) = self.buckets.get(bucket) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The sum of one histogram over all workers.
#[derive(Debug)]
pub(super) struct HistogramTotal {
    /// Upper bound in seconds, cumulative count.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
}

impl HistogramTotal {
    pub(super) fn of<'a>(shards: impl Iterator<Item = &'a Histogram>) -> Option<Self> {
        let mut counts = [0_u64; 16];
        let mut sum_ns = 0_u64;
        let mut bounds = None;
        for shard in shards {
            bounds = Some(shard.bounds);
            for (count, cell) in counts.iter_mut().zip(&shard.buckets) {
                *count += cell.load(Ordering::Relaxed);
            }
            sum_ns = sum_ns.wrapping_add(shard.sum_ns.load(Ordering::Relaxed));
        }
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return None;
        }
        let mut cumulative = 0;
        let buckets = bounds?
            .iter()
            .zip(counts)
            .map(|(bound, count)| {
                cumulative += count;
                (*bound as f64 / 1e9, cumulative)
            })
            .collect();
        Some(Self {
            buckets,
            count,
            sum_seconds: sum_ns as f64 / 1e9,
        })
    }
}

/// One counter per status code.
type CodeRow = Box<[AtomicU64; CODES]>;

/// Cells of one worker for one (service, direction, peer).
#[derive(Debug)]
pub(super) struct LaneCells {
    /// A row is made when its method is first seen.
    requests: [OnceLock<CodeRow>; METHODS.len()],
    pub(super) duration: Histogram,
    pub(super) overhead: Histogram,
    pub(super) in_flight: AtomicI64,
}

impl LaneCells {
    pub(super) fn new() -> Self {
        Self {
            requests: [const { OnceLock::new() }; METHODS.len()],
            duration: Histogram::new(&DURATION_BOUNDS),
            overhead: Histogram::new(&OVERHEAD_BOUNDS),
            in_flight: AtomicI64::new(0),
        }
    }

    pub(super) fn request(
        &self,
        codes: &Codes,
        method: &Method,
        status: u16,
        total: Duration,
        upstream: Duration,
    ) {
        self.count(codes, method_index(method), status);
        self.duration.observe(total);
        self.overhead.observe(total.saturating_sub(upstream));
    }

    pub(super) fn refused(&self, codes: &Codes, status: u16) {
        self.count(codes, OTHER_METHOD, status);
    }

    fn count(&self, codes: &Codes, method: usize, status: u16) {
        let cell = self
            .requests
            .get(method)
            .map(|row| row.get_or_init(|| Box::new([const { AtomicU64::new(0) }; CODES])))
            .and_then(|row| row.get(codes.index(status)));
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds this worker's counts to `totals[method][code]`.
    pub(super) fn add_to(&self, totals: &mut [[u64; CODES]; METHODS.len()]) {
        for (row, sums) in self.requests.iter().zip(totals) {
            let Some(row) = row.get() else { continue };
            for (cell, sum) in row.iter().zip(sums) {
                *sum += cell.load(Ordering::Relaxed);
            }
        }
    }
}

/// Why an attempt after the first was made (SPEC §2.7, §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// RETRY-1: connecting failed, nothing was sent.
    ConnectFailed,
    /// RETRY-1: a pooled connection was dead before a byte went out.
    DeadConnection,
    /// RETRY-2: a reused connection died before the first response byte.
    ClosedBeforeResponse,
    /// Outbound: a status that may be retried.
    Status,
    /// Outbound: no answer in time.
    Timeout,
}

/// Labels of [`RetryReason`], in its order.
pub(super) const RETRY_REASONS: [&str; 5] = [
    "connect_failed",
    "dead_connection",
    "closed_before_response",
    "status",
    "timeout",
];

/// Cells of one worker for one service.
#[derive(Debug)]
pub(super) struct ServiceCells {
    pub(super) inbound: LaneCells,
    pub(super) errors: [AtomicU64; Cause::ALL.len()],
    pub(super) retries: [AtomicU64; RETRY_REASONS.len()],
    pub(super) handshakes: super::tls::HandshakeCells,
    /// Made with the first decision.
    pub(super) auth: OnceLock<Box<[AtomicU64; super::auth::KEYS]>>,
}

impl ServiceCells {
    pub(super) fn new() -> Self {
        Self {
            inbound: LaneCells::new(),
            errors: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            retries: [const { AtomicU64::new(0) }; RETRY_REASONS.len()],
            handshakes: Default::default(),
            auth: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_index_themselves() {
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }

    #[test]
    fn codes_beyond_the_table_share_one_label() {
        let codes = Codes::new();
        for status in 100..200 {
            codes.index(status);
        }
        assert_eq!(codes.index(100), 0);
        assert_eq!(codes.index(199), usize::from(OTHER_CODE));
        assert_eq!(codes.index(u16::MAX), usize::from(OTHER_CODE));
        let labels = codes.labels();
        assert_eq!(labels.len(), CODES);
        assert_eq!(labels[62], "162");
        assert_eq!(labels[63], "_OTHER");
    }

    #[test]
    fn bounds_are_inclusive_and_counts_cumulative() {
        let histogram = Histogram::new(&DURATION_BOUNDS);
        histogram.observe(Duration::from_micros(500));
        histogram.observe(Duration::from_micros(501));
        histogram.observe(Duration::from_secs(100));
        let total = HistogramTotal::of([&histogram].into_iter()).expect("observations");
        assert_eq!(total.buckets[0], (0.0005, 1));
        assert_eq!(total.buckets[1], (0.001, 2));
        assert_eq!(total.buckets[14], (30.0, 2));
        assert_eq!(total.count, 3);
    }
}
