//! How ports come to their end (SPEC §11): announced, closed, emptied, cut.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::port::Port;
use crate::drain::Phase;
use crate::net::deadline::Deadlines;

/// Tunnels end this long before the deadline of a drain (SPEC §11).
const TUNNELS_BEFORE_DEADLINE: Duration = Duration::from_secs(2);
/// Idle connections are kept for this long after the listeners have closed: a
/// request may be on its way on one of them, sent when all was well.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// When what happens.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    pub(super) close_listeners: Instant,
    pub(super) deadline: Instant,
    /// Cancelled when there is nothing to wait for.
    pub(super) hurry: CancellationToken,
}

/// Brings the ports to their end; returns when they have no connection left.
pub(super) async fn end(ports: &[Rc<Port>], timeline: Timeline, deadlines: &Deadlines) {
    let Timeline {
        close_listeners,
        deadline,
        hurry,
    } = timeline;
    let advance = |phase: Phase| {
        for port in ports {
            port.advance(phase);
        }
        // Connections look at the phase when they are woken.
        deadlines.wake_all();
    };
    advance(Phase::Announced);
    tokio::select! {
        () = sleep_until(close_listeners.into()) => {}
        () = hurry.cancelled() => {}
    }
    for port in ports {
        port.stop_accepting().await;
    }
    let on_the_way = (Instant::now() + ON_THE_WAY).min(deadline);
    tokio::select! {
        () = sleep_until(on_the_way.into()) => {}
        () = hurry.cancelled() => {}
    }
    advance(Phase::Closing);
    let tunnels_end = deadline
        .checked_sub(TUNNELS_BEFORE_DEADLINE)
        .unwrap_or(deadline);
    for (phase, at) in [(Phase::EndingTunnels, tunnels_end), (Phase::Cut, deadline)] {
        if timeout_at(at.into(), emptied(ports)).await.is_ok() {
            return;
        }
        advance(phase);
    }
    emptied(ports).await;
}

async fn emptied(ports: &[Rc<Port>]) {
    for port in ports {
        port.emptied().await;
    }
}
