//! How many retries a worker may make: a share of its requests.

use std::cell::Cell;

/// Earned by each request: with what is lent at the start never more than a fifth
/// of a hundred calls.
const SHARE: f64 = 0.19;
/// Lent at the start: the first call of all may be repeated.
const FIRST: f64 = 0.81;
/// Saved up at most: a burst of failures is not answered by a burst of retries.
const MOST: f64 = 10.0;

/// Retries toward one dependency, of one worker. Keeps the load of a chain of
/// failing services near its own (SPEC §6: 20 %).
#[derive(Debug)]
pub struct RetryBudget {
    saved: Cell<f64>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            saved: Cell::new(FIRST),
        }
    }
}

impl RetryBudget {
    /// A request that is no retry.
    pub fn earn(&self) {
        self.saved.set((self.saved.get() + SHARE).min(MOST));
    }

    /// Whether one retry may be made; it is taken off.
    pub fn spend(&self) -> bool {
        let left = self.saved.get() - 1.0;
        // Sums of fractions may be a hair less than one.
        let enough = left > -1e-9;
        if enough {
            self.saved.set(left.max(0.0));
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated() {
        let budget = RetryBudget::default();
        let mut retries = 0;
        for _ in 0..1000 {
            budget.earn();
            retries += u32::from(budget.spend());
        }
        assert!((185..=200).contains(&retries), "{retries}");
        for _ in 0..1000 {
            budget.earn();
        }
        let burst = (0..100).filter(|_| budget.spend()).count();
        assert_eq!(burst, 10);
    }
}
