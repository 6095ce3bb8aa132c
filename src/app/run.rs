//! From ready to the end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc};

use super::child::{Child, Plan};
use super::signals::{Signals, is_ending};
use super::{Bound, Ended, StartError, ending, spans};
use crate::admin::{self, DoorKind, House};
use crate::control::{Control, LifecycleRequest};
use crate::snapshot::StatusBoard;
use crate::sql::Sql;
use crate::telemetry::readiness::Heartbeat;
use crate::telemetry::supervise::Supervisor;

/// How often the control runtime shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often it is looked whether start-up has ended.
const STARTUP_LOOK: Duration = Duration::from_millis(20);
/// For what is still to be logged.
const FLUSH: Duration = Duration::from_secs(2);
/// Whatever the hour: enough where somebody takes the lines.
const LEAST_FLUSH: Duration = Duration::from_millis(100);

/// What ends normal service.
struct Watch<'a> {
    signals: &'a mut Signals,
    /// A signal has asked for the end.
    told: bool,
    lifecycle: &'a mut mpsc::Receiver<LifecycleRequest>,
    worker_gone: &'a mut mpsc::Receiver<usize>,
}

/// Why normal service ends.
enum Reason {
    Asked,
    /// The command ended, or could not be started.
    Command(u8),
    WorkerGone,
}

impl Bound {
    /// The addresses of services and doors, as really bound.
    pub fn board(&self) -> &StatusBoard {
        &self.house.board
    }

    /// Serves until SIGTERM, SIGINT, the admin port or the end of the command;
    /// then drains. A second signal ends the process at once; the first is none
    /// where something else began the drain.
    ///
    /// # Errors
    /// The doors cannot be served.
    pub fn run(self) -> Result<Ended, StartError> {
        let Self {
            runtime,
            mut signals,
            control,
            supervisor,
            house,
            doors,
            crew,
            mut lifecycle,
            drain,
            command,
            started,
            exporter: (spans, span_task),
            sql,
        } = self;
        let mut worker_gone = crew.gone;
        let mut gone_by = Instant::now() + FLUSH;
        let ended = runtime.block_on(async {
            let doors = doors
                .into_iter()
                .map(|(kind, listener)| serve_door(kind, listener, &house, &supervisor));
            let doors = doors.collect::<io::Result<Vec<_>>>();
            let doors = join_all(doors.map_err(StartError::Runtime)?);
            drop(started);
            tracing::info!(generation = house.board.load().generation, "ready");
            let main = async {
                let control = Mutex::new(control);
                let mut watch = Watch {
                    signals: &mut signals,
                    told: false,
                    lifecycle: &mut lifecycle,
                    worker_gone: &mut worker_gone,
                };
                let reason = tokio::select! {
                    () = follow_files(&control, &supervisor) => Reason::Asked,
                    reason = watch.reason(&house, command) => reason,
                };
                if matches!(reason, Reason::WorkerGone) {
                    return Ended::WorkerGone;
                }
                tracing::info!("draining");
                let settings = house.current.load().settings.shutdown.clone();
                gone_by = Instant::now() + settings.deadline;
                let workers = ending::Workers::new(&crew.commands, &crew.calls);
                let draining = async {
                    ending::drain(&workers, &drain, &house, &settings).await;
                    spans.flush().await;
                };
                watch.end(control.into_inner(), draining).await;
                match (watch.worker_gone.try_recv(), reason) {
                    (Ok(index), _) => worker_ended(index),
                    (Err(_), Reason::Command(code)) => Ended::Command(code),
                    (Err(_), Reason::Asked | Reason::WorkerGone) => Ended::Drained,
                }
            };
            let exporting = spans::run(span_task, supervisor.clone());
            let heart = house.liveness.watch("control", Instant::now());
            Ok(tokio::select! {
                ended = main => ended,
                // Neither ends.
                _ = doors => Ended::Drained,
                () = beat(&heart) => Ended::Drained,
                () = exporting => Ended::Drained,
            })
        });
        end_wings(&sql, &house, gone_by);
        drop(crew.commands);
        runtime.shutdown_background();
        // Threads that are cut here hold nothing that needs an end.
        drop(crew.threads);
        ended
    }
}

/// What is left once nothing is served: open transactions, lines of the log.
fn end_wings(sql: &Sql, house: &House, gone_by: Instant) {
    sql.stop();
    // A reader that takes nothing is not waited for beyond the deadline.
    let left = gone_by.saturating_duration_since(Instant::now());
    house.log.flush(left.clamp(LEAST_FLUSH, FLUSH));
}

impl Watch<'_> {
    async fn reason(&mut self, house: &House, command: Option<Plan>) -> Reason {
        let Some(plan) = command else {
            return self.without_command().await;
        };
        loop {
            tokio::select! {
                () = startup_ended(house) => break,
                signal = self.signals.next() => {
                    if is_ending(signal) {
                        self.told = true;
                        return Reason::Command(killed_by(signal.as_raw()));
                    }
                }
                Some(_) = self.lifecycle.recv() => return Reason::Asked,
                Some(index) = self.worker_gone.recv() => return gone(index),
            }
        }
        match plan.start(&house.databases) {
            Ok(child) => self.with_command(child).await,
            Err(code) => Reason::Command(code),
        }
    }

    async fn without_command(&mut self) -> Reason {
        tokio::select! {
            _ = self.signals.ending() => {
                self.told = true;
                Reason::Asked
            }
            Some(_) = self.lifecycle.recv() => Reason::Asked,
            Some(index) = self.worker_gone.recv() => gone(index),
        }
    }

    /// Drains, unless somebody will not wait for it.
    async fn end(&mut self, mut control: Control, draining: impl Future<Output = ()>) {
        tokio::select! {
            () = draining => {}
            () = self.told_twice() => {
                tracing::warn!("told twice to stop, leaving at once");
            }
            () = control.refuse_changes() => {}
        }
    }

    /// Resolves with the second signal that asks for the end.
    async fn told_twice(&mut self) {
        if !self.told {
            self.signals.ending().await;
            self.told = true;
            tracing::info!("told to stop, draining already");
        }
        self.signals.ending().await;
    }

    /// The command decides: what asks the process to end is handed on to it.
    async fn with_command(&mut self, mut child: Child) -> Reason {
        loop {
            tokio::select! {
                code = child.ended() => {
                    tracing::info!(code, "the command ended");
                    return Reason::Command(code);
                }
                signal = self.signals.next() => {
                    self.told |= is_ending(signal);
                    child.forward(signal);
                }
                Some(_) = self.lifecycle.recv() => child.terminate(),
                Some(index) = self.worker_gone.recv() => {
                    child.terminate();
                    return gone(index);
                }
            }
        }
    }
}

/// As shells report it.
fn killed_by(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

fn gone(index: usize) -> Reason {
    worker_ended(index);
    Reason::WorkerGone
}

fn worker_ended(index: usize) -> Ended {
    tracing::error!(worker = index, "a worker ended, so the process does");
    Ended::WorkerGone
}

async fn startup_ended(house: &House) {
    while !house.startup.is_ready() {
        tokio::time::sleep(STARTUP_LOOK).await;
    }
}

/// Runs the control loop, again after a panic.
async fn follow_files(control: &Mutex<Control>, supervisor: &Supervisor) {
    let run = || async { control.lock().await.run().await };
    supervisor.clone().keep("control", run).await;
}

/// Serves a door, again after a panic.
fn serve_door(
    kind: DoorKind,
    listener: std::net::TcpListener,
    house: &Arc<House>,
    supervisor: &Supervisor,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let door = admin::Door {
        kind,
        house: Arc::clone(house),
    };
    // Fails early, if at all, when it cannot be copied.
    drop(listener.try_clone()?);
    let serve = move || {
        let (listener, door) = (listener.try_clone(), door.clone());
        async move {
            let served = match listener {
                Ok(listener) => admin::serve(listener, door).await,
                Err(error) => Err(error),
            };
            let Err(error) = served;
            tracing::error!(%error, "a door cannot be served");
            std::future::pending().await
        }
    };
    Ok(supervisor.clone().keep("door", serve))
}

async fn beat(heart: &Heartbeat) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    loop {
        interval.tick().await;
        heart.beat(Instant::now());
    }
}
