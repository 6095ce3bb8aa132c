//! File descriptors: the data path leaves some for the doors and the control loop.
//!
//! The kernel gives out the lowest free number, so the number of a new
//! descriptor says how many are open, without a counter.

use std::os::fd::{AsRawFd, RawFd};

use rlimit::Resource;

/// Kept for the doors, the control loop and its files (SPEC §11).
const RESERVE: u64 = 64;

/// The limits as they were found.
#[derive(Debug, Clone, Copy)]
pub struct FoundLimit {
    soft: u64,
    hard: u64,
}

/// Raises the soft limit to the hard one; gives what was found, for programs
/// that are started by this one.
pub fn raise_limit() -> Option<FoundLimit> {
    let (soft, hard) = Resource::NOFILE.get().ok()?;
    // What the limit stays at is no reason not to start.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    Some(FoundLimit { soft, hard })
}

impl FoundLimit {
    /// Runs `start` under the limits that were found: programs exist that fail
    /// or crawl when they may open a million files.
    pub fn during<T>(self, start: impl FnOnce() -> T) -> T {
        let raised = Resource::NOFILE.get();
        // A limit that cannot be lowered is inherited, as without this.
        let _ = Resource::NOFILE.set(self.soft, self.hard);
        let started = start();
        if let Ok((soft, hard)) = raised {
            // What was allowed a moment ago is allowed again.
            let _ = Resource::NOFILE.set(soft, hard);
        }
        started
    }
}

/// The first number that belongs to the reserve.
fn reserve_begins() -> RawFd {
    // `getrlimit` costs less than the `accept` or `connect` it follows.
    let limit = Resource::NOFILE.get().map_or(u64::MAX, |(soft, _)| soft);
    let begins = limit - RESERVE.min(limit / 2);
    RawFd::try_from(begins).unwrap_or(RawFd::MAX)
}

/// Whether the data path may keep this descriptor.
pub fn may_keep(descriptor: &impl AsRawFd) -> bool {
    descriptor.as_raw_fd() < reserve_begins()
}

/// The first number at which a listener accepts no more: half of what is left
/// above `open_now` and below the reserve stays free for connections to apps,
/// so that whoever was accepted can also be served.
pub(super) fn accept_ends(open_now: RawFd) -> RawFd {
    halfway(open_now, reserve_begins())
}

fn halfway(open_now: RawFd, reserve_begins: RawFd) -> RawFd {
    // A listener must be able to accept somebody, however low the limit is.
    open_now + ((reserve_begins - open_now) / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_leaves_room_for_the_app_and_the_reserve() {
        assert_eq!(halfway(30, 64), 47);
        assert_eq!(halfway(30, 1_048_512), 524_271);
        assert_eq!(halfway(30, 20), 31);
    }

    #[test]
    fn ordinary_descriptors_may_be_kept() {
        let file = std::fs::File::open("/dev/null").expect("there is one");
        assert!(may_keep(&file));
    }
}
