//! The pace of the SQL thread under load.
//!
//! With more queries under way than the server has CPUs, answers come one by
//! one, and each would wake this thread by itself: a switch on our side and a
//! wake on PostgreSQL's, which together cost more than the answer. Then nothing
//! is lost when it rests for a moment and takes what came meanwhile in one go.

use std::thread;
use std::time::Duration;

use tokio::task::yield_now;

use crate::pg::Databases;
use crate::pg::pool::Pulse;

/// A rest; the kernel makes it some 50 µs longer. With eight sessions at work
/// or more it lets more queries pass than one thread can carry.
const REST: Duration = Duration::from_micros(150);
/// Rests in a row in which nothing came, after which the thread sleeps until
/// something does.
const IN_VAIN: u32 = 8;

/// Keeps the pace for these databases. Ends with its task.
pub(super) async fn keep(databases: Databases) {
    keep_pace(databases.pulse(), || databases.are_crowded(), rest).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the whole thread rests; what it waits for is time"
)]
fn rest() {
    thread::sleep(REST);
}

async fn keep_pace(pulse: &Pulse, is_crowded: impl Fn() -> bool, rest: impl Fn()) {
    loop {
        pulse.crowd().await;
        let mut in_vain = 0;
        while in_vain < IN_VAIN && is_crowded() {
            let before = pulse.beats();
            // First all that has come: the runtime looks once, without waiting.
            yield_now().await;
            if pulse.beats() == before {
                in_vain += 1;
                rest();
            } else {
                in_vain = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Runs for a while; how often it rested.
    async fn rests(crowded: bool, stirs: u32) -> u32 {
        let (pulse, rests) = (Pulse::default(), Cell::new(0));
        let pace = keep_pace(&pulse, || crowded, || rests.set(rests.get() + 1));
        let others = async {
            for _ in 0..stirs {
                pulse.stir(true);
                yield_now().await;
            }
            for _ in 0..100 {
                yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = pace => unreachable!("it goes on for ever"),
            () = others => rests.get(),
        }
    }

    #[tokio::test]
    async fn it_rests_in_a_crowd_only_and_not_for_ever() {
        assert_eq!(rests(true, 0).await, 0);
        assert_eq!(rests(false, 20).await, 0);
        // A crowd that nothing comes of.
        assert_eq!(rests(true, 1).await, IN_VAIN);
        // While something comes there is no time to rest.
        let busy = rests(true, 1000).await;
        assert!(busy <= 2 * IN_VAIN, "{busy}");
    }
}
