//! The process: what is started in which order, and how it ends.
//!
//! The only file that names every room. [`build`] binds every socket before
//! anything is served, so a clash fails by name; [`Bound::run`] serves until
//! told to stop.

mod follow;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::admin::{self, DoorKind, House};
use crate::config::{Environment, Problem, ProcessFlags, load_process};
use crate::control::{self, Control, LifecycleRequest};
use crate::drain::{self, DrainTrigger, Phase};
use crate::model::{DoorListen, ProcessSettings};
use crate::net::WorkerCommand;
use crate::snapshot::{self, StatusBoard};
use crate::telemetry::log::{self, LogError, LogSettings};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Liveness, Readiness};
use crate::worker::{self, WorkerContext};

/// Commands in a worker's queue; the control loop waits for each to be done.
const WORKER_QUEUE: usize = 16;
/// Requests of the admin port in the control loop's queue.
const ADMIN_QUEUE: usize = 16;
/// A worker or control loop that has not ticked for this long is stuck.
const LIVENESS_PATIENCE: Duration = Duration::from_secs(10);
/// Added to the drain deadline before workers are given up on.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// What the process is started with.
#[derive(Debug, Clone)]
pub struct Options {
    pub flags: ProcessFlags,
    pub environment: Environment,
}

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Exit 64: every problem there is.
    #[error("the configuration cannot be used")]
    Config(Vec<Problem>),
    /// Exit 64: the address of a door is taken.
    #[error("{door} cannot listen on {address}")]
    Door {
        door: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("a thread or runtime cannot be made")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// How the process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As asked; exit 0.
    Drained,
    /// A worker died: its listeners would swallow connections. Exit 70.
    WorkerGone,
}

/// Everything bound and published, ready to run.
pub struct Bound {
    runtime: tokio::runtime::Runtime,
    control: Control,
    house: Arc<House>,
    doors: Vec<(DoorKind, TcpListener)>,
    workers: Vec<mpsc::Sender<WorkerCommand>>,
    worker_gone: mpsc::Receiver<usize>,
    lifecycle: mpsc::Receiver<LifecycleRequest>,
    drain: DrainTrigger,
    threads: Vec<JoinHandle<()>>,
    started: crate::telemetry::readiness::Pending,
}

/// Loads, binds and publishes; nothing is served by doors yet, but services
/// already are.
///
/// # Errors
/// [`StartError`]; nothing is left behind then.
pub fn build(options: Options) -> Result<Bound, StartError> {
    let process = load_process(&options.flags, &options.environment).map_err(StartError::Config)?;
    let settings = Arc::clone(&process.settings);
    // What the limit stays at is no reason not to start.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let metrics = Metrics::new(settings.workers);
    let log = log::init(LogSettings::of(&settings), metrics.lines_dropped())?;
    if settings.disabled {
        tracing::warn!("MICROSERVICES is false: no service is fronted");
    }
    let doors = bind_doors(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        .build()
        .map_err(StartError::Runtime)?;
    let (publisher, current) = snapshot::channel(Arc::clone(&settings));
    let crew = Crew::start(settings.workers, &current, &log)?;
    let board = StatusBoard::default();
    let (command_sender, commands) = mpsc::channel(ADMIN_QUEUE);
    let (lifecycle_sender, lifecycle) = mpsc::channel(2);
    let mut control = Control::new(control::Parts {
        flags: options.flags,
        environment: options.environment,
        process,
        publisher,
        workers: crew.commands.clone(),
        status: board.clone(),
        metrics: metrics.clone(),
        commands,
        lifecycle: lifecycle_sender,
        after_publish: Box::new(follow::Following::new(metrics.clone(), log.clone())),
    });
    let startup = Readiness::new();
    let started = startup.wait_for("configuration");
    let first_turn = runtime.block_on(control.first_turn());
    first_turn.map_err(|control::StartError::Problems(problems)| StartError::Config(problems))?;
    let (drain, drain_watcher) = drain::channel();
    let house = Arc::new(House {
        current,
        board,
        metrics,
        log,
        startup,
        liveness: Liveness::new(LIVENESS_PATIENCE, Instant::now()),
        drain: drain_watcher,
        commands: command_sender,
    });
    Ok(Bound {
        runtime,
        control,
        house,
        doors,
        workers: crew.commands,
        worker_gone: crew.gone,
        lifecycle,
        drain,
        threads: crew.threads,
        started,
    })
}

/// The data threads.
struct Crew {
    commands: Vec<mpsc::Sender<WorkerCommand>>,
    threads: Vec<JoinHandle<()>>,
    /// The index of each worker that ended.
    gone: mpsc::Receiver<usize>,
}

impl Crew {
    fn start(
        count: usize,
        current: &snapshot::Current,
        log: &log::LogHandle,
    ) -> Result<Self, StartError> {
        let (gone_sender, gone) = mpsc::channel(count);
        let mut crew = Self {
            commands: Vec::new(),
            threads: Vec::new(),
            gone,
        };
        let warned = Arc::new(AtomicBool::new(false));
        for index in 0..count {
            let (sender, commands) = mpsc::channel(WORKER_QUEUE);
            let context = WorkerContext {
                index,
                current: current.clone(),
                log: log.clone(),
                warned: Arc::clone(&warned),
                commands,
            };
            let thread =
                worker::spawn(context, gone_sender.clone()).map_err(StartError::Runtime)?;
            crew.commands.push(sender);
            crew.threads.push(thread);
        }
        Ok(crew)
    }
}

fn bind_doors(settings: &ProcessSettings) -> Result<Vec<(DoorKind, TcpListener)>, StartError> {
    let admin = DoorKind::Admin { hosts: Vec::new() };
    let wanted = [
        ("observe.listen", settings.observe, DoorKind::Observe),
        ("admin.listen", settings.admin.listen, admin),
    ];
    let mut doors = Vec::new();
    for (door, listen, kind) in wanted {
        let DoorListen::At(address) = listen else {
            continue;
        };
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| StartError::Door {
            door,
            address,
            source,
        })?;
        doors.push((kind, listener));
    }
    Ok(doors)
}

impl Bound {
    /// The addresses of services and doors, as really bound.
    pub fn board(&self) -> &StatusBoard {
        &self.house.board
    }

    /// Serves until `stop` resolves or the admin port asks for an end; then
    /// drains. `stop` is polled a second time after that: resolving again means
    /// at once.
    ///
    /// # Errors
    /// The doors cannot be served.
    pub fn run<F>(self, mut stop: impl FnMut() -> F) -> Result<Ended, StartError>
    where
        F: Future<Output = ()>,
    {
        let Self {
            runtime,
            mut control,
            house,
            doors,
            workers,
            mut worker_gone,
            mut lifecycle,
            drain,
            threads,
            started,
        } = self;
        let ended = runtime.block_on(async {
            for (kind, listener) in doors {
                let door = admin::Door {
                    kind,
                    house: Arc::clone(&house),
                };
                // Ends with the runtime.
                tokio::spawn(admin::serve(listener, door));
            }
            drop(started);
            tracing::info!(generation = house.board.load().generation, "ready");
            let gone = tokio::select! {
                () = control.run() => false,
                () = stop() => false,
                Some(_) = lifecycle.recv() => false,
                Some(index) = worker_gone.recv() => {
                    tracing::error!(worker = index, "a worker ended, so the process does");
                    true
                }
            };
            if gone {
                return Ok(Ended::WorkerGone);
            }
            tracing::info!("draining");
            tokio::select! {
                () = drain_workers(&workers, &drain, &house) => {}
                () = stop() => tracing::warn!("told twice to stop, leaving at once"),
            }
            Ok(Ended::Drained)
        });
        house.log.flush(Duration::from_secs(2));
        drop((control, workers));
        runtime.shutdown_background();
        // Threads that are cut here hold nothing that needs an end.
        drop(threads);
        ended
    }
}

async fn drain_workers(
    workers: &[mpsc::Sender<WorkerCommand>],
    drain: &DrainTrigger,
    house: &House,
) {
    let settings = house.current.load().settings.shutdown.clone();
    drain.advance(Phase::Announced);
    let now = Instant::now();
    let deadline = now + settings.deadline;
    let mut waiting = Vec::new();
    for worker in workers {
        let (done, ended) = oneshot::channel();
        let close_listeners = now + settings.accept.min(settings.deadline);
        let command = WorkerCommand::Drain {
            close_listeners,
            deadline,
            done,
        };
        if worker.send(command).await.is_ok() {
            waiting.push(ended);
        }
    }
    let all = async {
        for ended in waiting {
            // A worker that is gone has nothing left to drain.
            let _ = ended.await;
        }
    };
    if tokio::time::timeout_at((deadline + DRAIN_GRACE).into(), all)
        .await
        .is_err()
    {
        tracing::warn!("some connections could not be ended in time");
    }
}
