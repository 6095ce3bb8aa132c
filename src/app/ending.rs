//! The end of the process (SPEC §11).

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admin::House;
use crate::drain::{DrainTrigger, Phase};
use crate::model::ShutdownSettings;
use crate::net::{Permits, WorkerCommand};

/// What is left is cut this long before the deadline, so that the process is
/// gone at it.
const CUT_BEFORE_DEADLINE: Duration = Duration::from_millis(250);
/// Given to workers beyond the cut before they are given up on.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether the apps are gone.
const LOOK: Duration = Duration::from_millis(250);
/// An app that takes longer to refuse is not gone.
const REFUSAL: Duration = Duration::from_secs(1);

/// What is to be drained.
pub(super) struct Workers<'a> {
    commands: &'a [mpsc::Sender<WorkerCommand>],
    /// Calls of apps to others that are in flight.
    calls: &'a Permits,
}

impl<'a> Workers<'a> {
    pub(super) fn new(commands: &'a [mpsc::Sender<WorkerCommand>], calls: &'a Permits) -> Self {
        Self { commands, calls }
    }
}

/// Drains every worker by the timeline; returns when nothing is left, or little
/// after the deadline.
pub(super) async fn drain(
    workers: &Workers<'_>,
    trigger: &DrainTrigger,
    house: &House,
    settings: &ShutdownSettings,
) {
    let Workers { commands, calls } = *workers;
    trigger.advance(Phase::Announced);
    // Also where one service's port tells of another.
    for service in house.current.load().services.values() {
        if let Some(ready) = service.as_ready() {
            ready.health.drain();
        }
    }
    let now = Instant::now();
    let whole = settings.deadline.saturating_sub(CUT_BEFORE_DEADLINE);
    let deadline = now + whole;
    let hurry = CancellationToken::new();
    let mut waiting = Vec::new();
    for worker in commands {
        let (done, ended) = oneshot::channel();
        let command = WorkerCommand::Drain {
            close_listeners: now + settings.accept.min(whole),
            deadline,
            hurry: hurry.clone(),
            done,
        };
        // A worker that does not take commands is given up on below.
        let sent = timeout_at(deadline.into(), worker.send(command)).await;
        if matches!(sent, Ok(Ok(()))) {
            waiting.push(ended);
        }
    }
    let all = async {
        for ended in waiting {
            // A worker that is gone has nothing left to drain.
            let _ = ended.await;
        }
        no_calls_to_come(house, calls, deadline).await;
    };
    let hurrying = async {
        nothing_to_wait_for(house, calls).await;
        hurry.cancel();
        std::future::pending::<()>().await;
    };
    let over = async {
        tokio::select! {
            () = all => {}
            () = hurrying => {}
        }
    };
    if timeout_at((deadline + GRACE).into(), over).await.is_err() {
        tracing::warn!("some connections could not be ended in time");
    }
}

/// Resolves when no app calls others or asks databases any more, or at the
/// deadline: the doors for both stay until then (SPEC §11).
async fn no_calls_to_come(house: &House, calls: &Permits, deadline: Instant) {
    let is_over = async || {
        // Before the app is asked, which may take long, and after.
        calls.held() == 0
            && (!doors_are_used(house) || apps_are_gone(house).await)
            && calls.held() == 0
    };
    while Instant::now() < deadline && !is_over().await {
        // Also the time in which the last answer leaves.
        sleep(LOOK).await;
    }
}

/// Resolves when nothing is in flight and every app is gone: whatever came
/// would be refused.
async fn nothing_to_wait_for(house: &House, calls: &Permits) {
    let is_idle = || is_idle(house) && calls.held() == 0;
    loop {
        if is_idle() && apps_are_gone(house).await && is_idle() {
            return;
        }
        sleep(LOOK).await;
    }
}

fn is_idle(house: &House) -> bool {
    let snapshot = house.current.load();
    let mut services = snapshot.services.values();
    services.all(|service| service.in_flight.held() == 0)
}

fn doors_are_used(house: &House) -> bool {
    let snapshot = house.current.load();
    let mut ready = snapshot
        .services
        .values()
        .filter_map(|service| service.as_ready());
    ready.any(|ready| !ready.dependencies.is_empty() || ready.spec.database.is_some())
}

async fn apps_are_gone(house: &House) -> bool {
    let snapshot = house.current.load();
    for service in snapshot.services.values() {
        let Some(ready) = service.as_ready() else {
            continue;
        };
        if !matches!(timeout(REFUSAL, ready.upstream.refuses()).await, Ok(true)) {
            return false;
        }
    }
    true
}
