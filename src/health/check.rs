//! The last result of one monitor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::model::HealthCheckSpec;

/// How a target was found at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    /// Not probed yet.
    Unknown,
    Up,
    Down,
    /// The last result is older than three intervals: the monitor is stuck.
    Stale,
    /// `healthCheck: false`: not probed, taken to be up.
    Off,
}

impl CheckState {
    /// Whether the target counts as working.
    pub const fn is_up(self) -> bool {
        match self {
            Self::Up | Self::Off => true,
            Self::Unknown | Self::Down | Self::Stale => false,
        }
    }

    /// What is wrong, as the end of a sentence; `None` when nothing is.
    pub const fn complaint(self) -> Option<&'static str> {
        match self {
            Self::Up | Self::Off => None,
            Self::Unknown => Some("not checked yet"),
            Self::Down => Some("down"),
            Self::Stale => Some("stale"),
        }
    }
}

/// What a cell holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReading {
    pub state: CheckState,
    /// How long the last probe took; zero when there was none.
    pub took: Duration,
}

/// Written by one monitor, read by anybody.
///
/// One word holds the result, its age and its duration, so that a reader never
/// sees halves of two results.
#[derive(Debug)]
pub struct CheckCell {
    began: Instant,
    /// `None` = off.
    stale_after: Option<Duration>,
    /// 0 = no result; else bit 0 up, bits 1–23 duration in milliseconds, the
    /// rest milliseconds since `began`, plus one.
    word: AtomicU64,
    /// The same of the cell before this one: shown until there is a result.
    inherited: u64,
}

const TOOK_BITS: u32 = 23;
const TOOK_LIMIT: u64 = (1 << TOOK_BITS) - 1;

impl CheckCell {
    /// A cell for a monitor that looks every `interval`; results age from `now`.
    pub const fn new(interval: Duration, now: Instant) -> Self {
        Self {
            began: now,
            // SPEC §5: older than three intervals is stale.
            stale_after: Some(interval.saturating_mul(3)),
            word: AtomicU64::new(0),
            inherited: 0,
        }
    }

    /// A cell nobody writes: the target is taken to be up.
    pub const fn off(now: Instant) -> Self {
        Self {
            began: now,
            stale_after: None,
            word: AtomicU64::new(0),
            inherited: 0,
        }
    }

    /// The cell for a `healthCheck`.
    pub fn for_check(check: &HealthCheckSpec, now: Instant) -> Self {
        match check.probe() {
            Some(probe) => Self::new(probe.interval, now),
            None => Self::off(now),
        }
    }

    /// Shows what `known` shows until its own first result, as old as it is: a
    /// target that is watched in another way was not forgotten meanwhile.
    #[must_use]
    pub fn succeeding(self, known: &Self) -> Self {
        match (self.stale_after, known.stale_after) {
            (Some(_), Some(_)) => Self {
                began: known.began,
                inherited: known.word(),
                ..self
            },
            // Nobody looked, or nobody will.
            _ => self,
        }
    }

    /// Of the last result, inherited or not.
    fn word(&self) -> u64 {
        match self.word.load(Ordering::Relaxed) {
            0 => self.inherited,
            word => word,
        }
    }

    /// A result: whether the target is up, after thresholds, and how long the
    /// probe took.
    pub fn record(&self, up: bool, took: Duration, now: Instant) {
        let age = now.saturating_duration_since(self.began).as_millis();
        let age = u64::try_from(age).unwrap_or(0).saturating_add(1);
        let took = u64::try_from(took.as_millis())
            .unwrap_or(TOOK_LIMIT)
            .min(TOOK_LIMIT);
        let word = (age << (TOOK_BITS + 1)) | (took << 1) | u64::from(up);
        self.word.store(word, Ordering::Relaxed);
    }

    /// The state at `now`.
    pub fn read(&self, now: Instant) -> CheckReading {
        let Some(stale_after) = self.stale_after else {
            return CheckReading {
                state: CheckState::Off,
                took: Duration::ZERO,
            };
        };
        let word = self.word();
        if word == 0 {
            return CheckReading {
                state: CheckState::Unknown,
                took: Duration::ZERO,
            };
        }
        let at = Duration::from_millis((word >> (TOOK_BITS + 1)) - 1);
        let took = Duration::from_millis((word >> 1) & TOOK_LIMIT);
        let age = now.saturating_duration_since(self.began).saturating_sub(at);
        let state = match word & 1 {
            _ if age > stale_after => CheckState::Stale,
            1 => CheckState::Up,
            _ => CheckState::Down,
        };
        CheckReading { state, took }
    }

    /// How long a result counts; for ever where nobody looks.
    pub fn lifetime(&self) -> Duration {
        self.stale_after.unwrap_or(Duration::MAX)
    }

    /// The last result of its own, however old: what a monitor that begins anew
    /// goes on from.
    pub fn last(&self) -> Option<bool> {
        let word = self.word.load(Ordering::Relaxed);
        (word != 0).then_some(word & 1 == 1)
    }

    /// The state at `now`, without the duration.
    pub fn state(&self, now: Instant) -> CheckState {
        self.read(now).state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn results_come_back_and_grow_stale() {
        let now = Instant::now();
        let cell = CheckCell::new(5 * SECOND, now);
        assert_eq!(cell.state(now + 60 * SECOND), CheckState::Unknown);
        assert_eq!(cell.last(), None);
        cell.record(true, Duration::from_millis(12), now);
        let reading = cell.read(now + 15 * SECOND);
        assert_eq!(reading.state, CheckState::Up);
        assert_eq!(reading.took, Duration::from_millis(12));
        assert_eq!(cell.state(now + 16 * SECOND), CheckState::Stale);
        assert_eq!(cell.last(), Some(true));
        cell.record(false, Duration::MAX, now + 20 * SECOND);
        assert_eq!(cell.state(now + 20 * SECOND), CheckState::Down);
    }

    #[test]
    fn what_was_known_is_shown_until_there_is_a_result() {
        let now = Instant::now();
        let known = CheckCell::new(5 * SECOND, now);
        let fresh = |interval| CheckCell::new(interval, now + 7 * SECOND);
        let unknown = fresh(SECOND).succeeding(&known);
        assert_eq!(unknown.state(now + 7 * SECOND), CheckState::Unknown);
        known.record(true, SECOND, now + 6 * SECOND);
        let next = fresh(SECOND).succeeding(&known);
        assert_eq!(next.state(now + 7 * SECOND), CheckState::Up);
        assert_eq!(next.last(), None, "its first result decides at once");
        assert_eq!(next.state(now + 10 * SECOND), CheckState::Stale);
        let third = fresh(5 * SECOND).succeeding(&next);
        assert_eq!(third.state(now + 20 * SECOND), CheckState::Up);
        third.record(false, SECOND, now + 20 * SECOND);
        assert_eq!(third.state(now + 20 * SECOND), CheckState::Down);
        let off = CheckCell::off(now).succeeding(&third);
        assert_eq!(off.state(now), CheckState::Off);
        let after_off = fresh(SECOND).succeeding(&off);
        assert_eq!(after_off.state(now + 7 * SECOND), CheckState::Unknown);
    }

    #[test]
    fn off_is_up_and_never_stale() {
        let now = Instant::now();
        let state = CheckCell::off(now).state(now + 1_000_000 * SECOND);
        assert_eq!(state, CheckState::Off);
        assert!(state.is_up());
    }
}
