//! How listening sockets come to their end (SPEC §11): announced, closed,
//! emptied, cut.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::listening::{Listening, ON_THE_WAY};
use crate::drain::Phase;
use crate::net::deadline::Deadlines;

/// Tunnels end this long before the deadline of a drain (SPEC §11).
const TUNNELS_BEFORE_DEADLINE: Duration = Duration::from_secs(2);

/// When what happens.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    pub(super) close_listeners: Instant,
    pub(super) deadline: Instant,
    /// Cancelled when there is no more reason to accept.
    pub(super) hurry: CancellationToken,
}

/// Brings sockets to their end; returns when they have no connection left.
/// `closing` is called before the accept queues are served and closed.
pub(super) async fn end(
    sockets: &[Rc<Listening>],
    timeline: Timeline,
    deadlines: &Deadlines,
    closing: impl FnOnce(),
) {
    let Timeline {
        close_listeners,
        deadline,
        hurry,
    } = timeline;
    advance(sockets, Phase::Announced, deadlines);
    tokio::select! {
        () = sleep_until(close_listeners.into()) => {}
        () = hurry.cancelled() => {}
    }
    closing();
    for socket in sockets {
        socket.stop_accepting();
    }
    let a_moment = || (Instant::now() + ON_THE_WAY).min(deadline);
    // A queue that waits for descriptors needs those of idle connections.
    let _ = timeout_at(a_moment().into(), closed(sockets)).await;
    sleep_until(a_moment().into()).await;
    advance(sockets, Phase::Closing, deadlines);
    for (phase, at) in [
        (Phase::EndingTunnels, tunnels_end(deadline)),
        (Phase::Cut, deadline),
    ] {
        if timeout_at(at.into(), over(sockets)).await.is_ok() {
            return;
        }
        advance(sockets, phase, deadlines);
    }
    over(sockets).await;
}

/// Ends what goes on by doors for calls when the process drains: they stay
/// open, for an app may call to its own end (SPEC §11).
pub(super) async fn end_calls(doors: &[Rc<Listening>], deadline: Instant, deadlines: &Deadlines) {
    sleep_until(tunnels_end(deadline).into()).await;
    for door in doors {
        door.end_tunnels();
    }
    deadlines.wake_all();
    sleep_until(deadline.into()).await;
    advance(doors, Phase::Cut, deadlines);
}

fn tunnels_end(deadline: Instant) -> Instant {
    deadline
        .checked_sub(TUNNELS_BEFORE_DEADLINE)
        .unwrap_or(deadline)
}

fn advance(sockets: &[Rc<Listening>], phase: Phase, deadlines: &Deadlines) {
    for socket in sockets {
        socket.advance(phase);
    }
    // Connections look at the phase when they are woken.
    deadlines.wake_all();
}

async fn closed(sockets: &[Rc<Listening>]) {
    for socket in sockets {
        socket.closed().await;
    }
}

async fn over(sockets: &[Rc<Listening>]) {
    for socket in sockets {
        socket.over().await;
    }
}
