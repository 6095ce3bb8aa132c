//! How whoever serves learns that it should come to an end.

use tokio::sync::watch;

/// Where a drain stands. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal service.
    Serving,
    /// Still accepting, but responses announce the close.
    Announced,
    /// Listeners are closed; idle connections end now, busy ones after their response.
    Closing,
    /// Shortly before the deadline: tunnels end.
    EndingTunnels,
    /// The deadline: whatever is left is cut.
    Cut,
}

/// The side that moves the phase.
#[derive(Debug)]
pub struct DrainTrigger {
    sender: watch::Sender<Phase>,
}

/// The side that follows. Whatever is alive holds a clone.
#[derive(Debug, Clone)]
pub struct DrainWatcher {
    receiver: watch::Receiver<Phase>,
}

/// A pair in [`Phase::Serving`].
pub fn channel() -> (DrainTrigger, DrainWatcher) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (DrainTrigger { sender }, DrainWatcher { receiver })
}

impl DrainTrigger {
    /// Moves on; a step back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.sender.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    /// Resolves when the last watcher is gone.
    pub async fn drained(&self) {
        self.sender.closed().await;
    }

    /// Another watcher.
    pub fn watcher(&self) -> DrainWatcher {
        DrainWatcher {
            receiver: self.sender.subscribe(),
        }
    }
}

impl DrainWatcher {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.receiver.borrow()
    }

    /// Resolves when `phase` or a later one is reached; a trigger that is gone
    /// counts as [`Phase::Cut`].
    pub async fn reached(&mut self, phase: Phase) {
        // An error means the trigger is gone: nobody will serve again.
        let _ = self.receiver.wait_for(|current| *current >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_forward_and_the_last_watcher_ends_it() {
        let (trigger, mut watcher) = channel();
        trigger.advance(Phase::Closing);
        trigger.advance(Phase::Announced);
        assert_eq!(watcher.phase(), Phase::Closing);
        watcher.reached(Phase::Announced).await;
        drop(watcher);
        trigger.drained().await;
    }
}
