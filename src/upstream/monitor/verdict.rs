//! From single results to a state, by thresholds.

/// The state of a target. The first result decides at once; after that it
/// takes as many equal results in a row as the thresholds say.
#[derive(Debug)]
pub(super) struct Verdict {
    unhealthy_threshold: u32,
    healthy_threshold: u32,
    up: Option<bool>,
    /// Results in a row that disagree with the state.
    against: u32,
}

/// The state turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

impl Verdict {
    pub(super) fn new(unhealthy_threshold: u32, healthy_threshold: u32) -> Self {
        Self {
            unhealthy_threshold,
            healthy_threshold,
            up: None,
            against: 0,
        }
    }

    /// Takes a result in; the change it made, if any.
    pub(super) fn learn(&mut self, good: bool) -> Option<Change> {
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

    pub(super) fn is_up(&self) -> bool {
        self.up == Some(true)
    }

    /// Up, and nothing speaks against it.
    pub(super) fn is_settled(&self) -> bool {
        self.is_up() && self.against == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut verdict = Verdict::new(3, 2);
        assert!(!verdict.is_up());
        assert_eq!(verdict.learn(true), Some(Change::Up));
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
            assert_eq!(verdict.learn(good), change);
        }
        assert!(verdict.is_settled());
    }
}
