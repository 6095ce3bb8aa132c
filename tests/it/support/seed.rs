//! What is random in a test comes from a seed that is printed, and its length
//! from the environment, so that a failure can be had again and for longer.

use std::env;
use std::time::Duration;

/// `OUTRIGGER_TEST_SEED`, else one of the clock's; printed.
#[allow(
    clippy::disallowed_methods,
    reason = "settings of the tests themselves"
)]
pub(crate) fn seed(test: &str) -> u64 {
    let given = env::var("OUTRIGGER_TEST_SEED").ok();
    let seed = given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("{test}: OUTRIGGER_TEST_SEED={seed}");
    seed
}

/// So many seconds, unless the environment says otherwise; printed.
#[allow(
    clippy::disallowed_methods,
    reason = "settings of the tests themselves"
)]
pub(crate) fn seconds(variable: &str, normally: u64) -> Duration {
    let given = env::var(variable).ok();
    let seconds = given.and_then(|text| text.parse().ok()).unwrap_or(normally);
    println!("{variable}={seconds}");
    Duration::from_secs(seconds)
}
