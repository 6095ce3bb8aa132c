//! What the control loop tells a worker.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Names one listening socket group of the process; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

/// A worker's own socket of a SO_REUSEPORT group.
#[derive(Debug)]
pub struct OpenListener<S = ListenerSocket> {
    pub id: ListenerId,
    /// `SlotId::index` of the service behind the port, or calling through it;
    /// without meaning for [`Purpose::OutboundDoor`].
    pub slot: u32,
    pub purpose: Purpose,
    /// The real address, also when port 0 was asked for.
    pub address: SocketAddr,
    pub socket: S,
}

/// Where a worker has its socket from.
#[derive(Debug)]
pub enum ListenerSocket {
    /// Bound, listening, non-blocking.
    Bound(TcpListener),
    /// It is that of a listener which closes with the same command, or is
    /// closing: who connects meanwhile finds it open. A second socket on the
    /// address would not do: what the kernel has given to the first is reset
    /// with it.
    Of(ListenerId),
}

/// What comes in by a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests to the service.
    Service,
    /// Calls of the service's app to the dependency with this `localPort`.
    LocalPort(u16),
    /// Calls of any app, by the name of what they call.
    OutboundDoor,
}

/// Sent over a bounded channel, one per worker, handled in order.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Load the current snapshot, open and close listeners, acknowledge. Once
    /// every worker has acknowledged, the generation is in force: each request
    /// begun afterwards follows it.
    Adopt {
        generation: u64,
        open: Vec<OpenListener>,
        /// Drained by the timeline of [`WorkerCommand::Drain`]; at once where
        /// a listener of `open` takes the port or the socket over.
        close: Vec<ListenerId>,
        ack: oneshot::Sender<()>,
    },
    /// SIGTERM or `/drain`: responses carry `Connection: close` from now on;
    /// at `close_listeners` the accept queues are served and the listeners
    /// closed; tunnels end two seconds before `deadline`, at which what is left
    /// is cut. `done` when nothing is left.
    Drain {
        close_listeners: Instant,
        deadline: Instant,
        /// Cancelled when there is nothing to wait for: listeners close now.
        hurry: CancellationToken,
        done: oneshot::Sender<()>,
    },
}
