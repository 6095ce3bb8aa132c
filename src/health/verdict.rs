//! From single results to a state, by thresholds.

use super::check::CheckState;

/// The state of a target. The first result decides at once; after that it
/// takes as many equal results in a row as the thresholds say.
#[derive(Debug)]
pub struct Verdict {
    unhealthy_threshold: u32,
    healthy_threshold: u32,
    up: Option<bool>,
    /// Results in a row that disagree with the state.
    against: u32,
}

/// The state turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Up,
    Down,
}

impl Change {
    /// Whether others were told something else so far: a check that changed
    /// begins anew, but shows what was known.
    pub fn is_news(self, shown: CheckState) -> bool {
        !matches!(
            (self, shown),
            (Self::Up, CheckState::Up) | (Self::Down, CheckState::Down)
        )
    }
}

impl Verdict {
    /// Goes on from `before`, the state as last known; `None` = never looked.
    /// Thresholds are at least 1.
    pub const fn new(
        unhealthy_threshold: u32,
        healthy_threshold: u32,
        before: Option<bool>,
    ) -> Self {
        Self {
            unhealthy_threshold,
            healthy_threshold,
            up: before,
            against: 0,
        }
    }

    /// Takes the result of a look in, and what real traffic said since the look
    /// before; the change they made, if any.
    ///
    /// Traffic is a second witness: where it agrees with the look, it counts as
    /// one more result in the row. Where it disagrees, the look decides, so one
    /// broken route of an app, which clients can ask for as they like, never
    /// makes the app count as down.
    pub fn learn(&mut self, good: bool, traffic: Traffic) -> Option<Change> {
        let Traffic { succeeded, failed } = traffic;
        let agrees = if good { succeeded } else { failed };
        let change = self.count(good);
        if agrees && self.up != Some(good) {
            return change.or_else(|| self.count(good));
        }
        change
    }

    fn count(&mut self, good: bool) -> Option<Change> {
        let threshold = match (self.up, good) {
            (None, _) => 1,
            (Some(true), false) => self.unhealthy_threshold,
            (Some(false), true) => self.healthy_threshold,
            (Some(true), true) | (Some(false), false) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        if self.against < threshold {
            return None;
        }
        self.against = 0;
        self.up = Some(good);
        Some(if good { Change::Up } else { Change::Down })
    }

    /// Whether the target counts as working.
    pub fn is_up(&self) -> bool {
        self.up == Some(true)
    }

    /// Up, and nothing speaks against it.
    pub fn is_settled(&self) -> bool {
        self.is_up() && self.against == 0
    }
}

/// What requests that were made anyway said of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub succeeded: bool,
    pub failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Traffic = Traffic {
        succeeded: false,
        failed: false,
    };
    const GOOD: Traffic = Traffic {
        succeeded: true,
        failed: false,
    };
    const BAD: Traffic = Traffic {
        succeeded: false,
        failed: true,
    };
    const BOTH: Traffic = Traffic {
        succeeded: true,
        failed: true,
    };

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut verdict = Verdict::new(3, 2, None);
        assert!(!verdict.is_up());
        assert_eq!(verdict.learn(true, SILENT), Some(Change::Up));
        for (good, change) in [
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(Change::Down)),
            (false, None),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(Change::Up)),
        ] {
            assert_eq!(verdict.learn(good, SILENT), change);
        }
        assert!(verdict.is_settled());
    }

    #[test]
    fn traffic_that_agrees_counts_once_more() {
        let mut verdict = Verdict::new(3, 2, Some(true));
        assert_eq!(verdict.learn(false, BAD), None);
        assert_eq!(verdict.learn(false, BAD), Some(Change::Down));
        assert_eq!(verdict.learn(true, BOTH), Some(Change::Up));
        // One result decides where the threshold is one; it is not counted on.
        let mut verdict = Verdict::new(1, 1, Some(true));
        assert_eq!(verdict.learn(false, BAD), Some(Change::Down));
        assert_eq!(verdict.learn(true, GOOD), Some(Change::Up));
        assert!(verdict.is_settled());
    }

    #[test]
    fn traffic_alone_turns_nothing() {
        let mut verdict = Verdict::new(1, 1, Some(true));
        for _ in 0..10 {
            assert_eq!(verdict.learn(true, BAD), None);
        }
        assert!(verdict.is_settled());
        let mut verdict = Verdict::new(3, 2, Some(false));
        for _ in 0..10 {
            assert_eq!(verdict.learn(false, GOOD), None);
        }
        assert!(!verdict.is_up());
    }

    #[test]
    fn goes_on_from_what_was_known() {
        let mut verdict = Verdict::new(3, 2, Some(false));
        assert_eq!(verdict.learn(true, SILENT), None);
        assert_eq!(verdict.learn(true, SILENT), Some(Change::Up));
        let mut verdict = Verdict::new(3, 2, Some(true));
        assert!(verdict.is_up());
        assert_eq!(verdict.learn(false, SILENT), None);
        assert!(verdict.is_up());
    }
}
