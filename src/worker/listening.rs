//! A listening socket of this worker and the connections that came by it, from
//! the first to the last: what all kinds of doors have in common.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::drain::Phase;
use crate::model::{Failure, Kind};
use crate::net::{self, End, OpenListener, Watch};
use crate::reply;
use crate::telemetry::recorder::RecordedFailure;

/// Connections over the limit that are being answered at one time; more are
/// closed without an answer.
const MAX_TURNED_AWAY: usize = 256;
/// Idle connections are kept for this long after the listeners have closed: a
/// request may be on its way on one of them, sent when all was well. So are
/// those that come out of the accept queue later than that.
pub(super) const ON_THE_WAY: Duration = Duration::from_millis(250);

/// What is to be accepted from.
pub(super) type Opened = OpenListener<Rc<TcpListener>>;

/// One listening socket.
pub(super) struct Listening {
    /// The real one.
    address: SocketAddr,
    phase: Cell<Phase>,
    /// As `phase`; tunnels of calls end before the doors for calls do.
    tunnels: Cell<Phase>,
    /// Asked to accept no more.
    closed: CancellationToken,
    accepting: RefCell<Option<AbortHandle>>,
    /// Belongs to whoever accepts.
    socket: RefCell<Weak<TcpListener>>,
    is_accepting: Cell<bool>,
    open: Cell<usize>,
    turned_away: Cell<usize>,
    changed: Notify,
}

/// Counts one connection for as long as it lives.
pub(super) struct Counted(Rc<Listening>);

/// A place among those that are turned away with an answer.
pub(super) struct TurnedAway(Rc<Listening>);

impl Listening {
    /// Of a socket that is bound to this address, and not accepted from yet.
    pub(super) fn new(address: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            address,
            phase: Cell::new(Phase::Serving),
            tunnels: Cell::new(Phase::Serving),
            closed: CancellationToken::new(),
            accepting: RefCell::new(None),
            socket: RefCell::default(),
            is_accepting: Cell::new(false),
            open: Cell::new(0),
            turned_away: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// Begins to accept. `broken` is cancelled should that fail.
    pub(super) fn accept(
        self: &Rc<Self>,
        socket: Rc<TcpListener>,
        broken: CancellationToken,
        serve: impl Fn(TcpStream, SocketAddr) + 'static,
    ) {
        self.is_accepting.set(true);
        let guard = AcceptGuard {
            listening: Rc::clone(self),
            broken,
        };
        self.socket.replace(Rc::downgrade(&socket));
        let closed = self.closed.clone();
        // Ends when it is told to, at the latest with the last phase.
        let accepting = tokio::task::spawn_local(async move {
            if let Err(error) = net::accept_loop(socket, closed, Rc::new(serve)).await {
                tracing::error!(%error, "a listener failed");
            }
            drop(guard);
        });
        self.accepting.replace(Some(accepting.abort_handle()));
    }

    /// The number clients connect to.
    pub(super) fn number(&self) -> u16 {
        self.address.port()
    }

    /// For connections, which look at it when they are woken.
    pub(super) fn phase(&self) -> &Cell<Phase> {
        &self.phase
    }

    /// The same for tunnels.
    pub(super) fn tunnels(&self) -> &Cell<Phase> {
        &self.tunnels
    }

    /// Moves on; whoever calls wakes the connections.
    pub(super) fn advance(&self, phase: Phase) {
        self.phase.set(self.phase.get().max(phase));
        self.tunnels.set(self.tunnels.get().max(phase));
        if phase == Phase::Cut {
            // Told, so that its end is no fault of the worker's.
            self.closed.cancel();
            if let Some(accepting) = self.accepting.take() {
                accepting.abort();
            }
        }
    }

    /// Ends tunnels alone; whoever calls wakes them.
    pub(super) fn end_tunnels(&self) {
        self.tunnels
            .set(self.tunnels.get().max(Phase::EndingTunnels));
    }

    /// The socket, for whoever accepts from now on; nobody here does any more.
    /// `None` if it is closed, or only its queue is still being served.
    pub(super) fn hand_over(&self) -> Option<Rc<TcpListener>> {
        let socket = self.socket.borrow().upgrade()?;
        self.closed.cancel();
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        Some(socket)
    }

    /// Closes the socket once its accept queue is served.
    pub(super) fn stop_accepting(&self) {
        self.closed.cancel();
    }

    /// Resolves when the socket is closed.
    pub(super) async fn closed(&self) {
        self.until(|| !self.is_accepting.get()).await;
    }

    /// Resolves when nothing comes or goes here any more.
    pub(super) async fn over(&self) {
        self.until(|| self.is_over()).await;
    }

    /// Whether nothing comes or goes here any more.
    pub(super) fn is_over(&self) -> bool {
        !self.is_accepting.get() && self.open.get() == 0
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        loop {
            // Made first: it is woken by what changes from now on.
            let changed = self.changed.notified();
            if reached() {
                return;
            }
            changed.await;
        }
    }

    /// Counts a connection.
    pub(super) fn counted(self: &Rc<Self>) -> Counted {
        self.open.set(self.open.get() + 1);
        Counted(Rc::clone(self))
    }

    /// A place to answer a connection that is one too many, if there is one.
    pub(super) fn turn_away(self: &Rc<Self>) -> Option<TurnedAway> {
        let taken = self.turned_away.get();
        (taken < MAX_TURNED_AWAY).then(|| {
            self.turned_away.set(taken + 1);
            TurnedAway(Rc::clone(self))
        })
    }

    /// Gives a connection that was accepted late the time that others had.
    pub(super) async fn let_speak(&self, stream: &TcpStream) {
        if self.phase.get() >= Phase::Closing {
            // One that is broken shows that to whoever reads from it.
            let _ = timeout(ON_THE_WAY, stream.readable()).await;
        }
    }

    /// Ready when a client that has not said what it speaks is to be let go.
    pub(super) fn poll_unheard(&self, watch: &Watch, context: &mut Context<'_>) -> Poll<End> {
        // Registers for the call that announces a drain, too.
        if let Poll::Ready(stalled) = watch.poll_stalled(context) {
            return Poll::Ready(End::Stalled(stalled));
        }
        match self.phase.get() {
            Phase::Cut => Poll::Ready(End::Cut),
            Phase::Closing | Phase::EndingTunnels if !watch.heard() => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(listening) = self;
        listening.open.set(listening.open.get().saturating_sub(1));
        listening.changed.notify_waiters();
    }
}

impl Drop for TurnedAway {
    fn drop(&mut self) {
        let turned_away = &self.0.turned_away;
        turned_away.set(turned_away.get().saturating_sub(1));
    }
}

/// Tells the worker when accepting ends without having been told to, by a
/// panic too: the other sockets of the group would serve on, and nobody would
/// know.
struct AcceptGuard {
    listening: Rc<Listening>,
    broken: CancellationToken,
}

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        let Self { listening, broken } = self;
        if !listening.closed.is_cancelled() {
            broken.cancel();
        }
        listening.is_accepting.set(false);
        listening.changed.notify_waiters();
    }
}

/// What a connection is told of that never became a request.
pub(super) fn refusal(kind: Kind, detail: &'static str) -> RecordedFailure {
    reply::recorded(Failure::because(kind, detail))
}
