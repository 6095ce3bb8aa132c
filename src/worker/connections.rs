//! What a port keeps of its connections: how many there are, and whether
//! anybody still accepts them.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The client connections of a port.
#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) open: Cell<usize>,
    pub(super) turned_away: Cell<usize>,
    changed: Notify,
}

/// Counts one connection for as long as it lives.
pub(super) struct Counted(Rc<Connections>);

impl Connections {
    /// Resolves when there is none.
    pub(super) async fn emptied(&self) {
        while self.open.get() > 0 {
            self.changed.notified().await;
        }
    }
}

impl Counted {
    pub(super) fn new(connections: &Rc<Connections>) -> Self {
        connections.open.set(connections.open.get() + 1);
        Self(Rc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.changed.notify_one();
    }
}

/// Tells the worker when accepting ends without having been told to, by a
/// panic too: the other sockets of the group would serve on, and nobody would
/// know.
pub(super) struct AcceptGuard {
    pub(super) closed: CancellationToken,
    pub(super) broken: CancellationToken,
}

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        if !self.closed.is_cancelled() {
            self.broken.cancel();
        }
    }
}
