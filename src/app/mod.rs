//! The process: what is started in which order, and how it ends.
//!
//! The only file that names every room. [`build`] binds every socket before
//! anything is served, so a clash fails by name; [`Bound::run`] serves until
//! told to stop.

mod child;
mod ending;
mod expiry;
mod follow;
mod monitors;
mod panics;
mod run;
mod signals;
mod spans;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admin::{DoorKind, House};
use crate::config::{Environment, Problem, ProcessFlags, load_process};
use crate::control::{self, Control, LifecycleRequest};
use crate::drain::{self, DrainTrigger};
use crate::model::{DoorListen, ProcessSettings};
use crate::net::{Permits, WorkerCommand, bind_alone, files};
use crate::pg::Databases;
use crate::snapshot::{self, StatusBoard};
use crate::sql::{self, Sql};
use crate::telemetry::log::{self, LogError, LogSettings};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Liveness, Pending, Readiness};
use crate::telemetry::supervise::Supervisor;
use crate::worker::{self, WorkerContext};
use child::Plan;
use signals::Signals;
use spans::{SpanTask, Spans};

/// Commands in a worker's queue; the control loop waits for each to be done.
const WORKER_QUEUE: usize = 16;
/// Requests of the admin port in the control loop's queue.
const ADMIN_QUEUE: usize = 16;
/// A worker or control loop that has not ticked for this long is stuck.
const LIVENESS_PATIENCE: Duration = Duration::from_secs(10);

/// What the process is started with.
#[derive(Debug, Clone)]
pub struct Options {
    pub flags: ProcessFlags,
    pub environment: Environment,
    /// A program and its arguments, to be run beside and ended with; none for
    /// a daemon.
    pub command: Vec<OsString>,
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
    /// The command ended, or could not be started; exit with its code.
    Command(u8),
    /// A worker died: its listeners would swallow connections. Exit 70.
    WorkerGone,
}

/// Everything bound and published, ready to run.
pub struct Bound {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
    control: Control,
    supervisor: Supervisor,
    house: Arc<House>,
    doors: Vec<(DoorKind, TcpListener)>,
    crew: Crew,
    lifecycle: mpsc::Receiver<LifecycleRequest>,
    drain: DrainTrigger,
    command: Option<Plan>,
    started: Pending,
    exporter: (Spans, SpanTask),
    sql: Sql,
}

/// Loads, binds and publishes; nothing is served by doors yet, but services
/// already are.
///
/// # Errors
/// [`StartError`]; nothing is left behind then.
pub fn build(options: Options) -> Result<Bound, StartError> {
    // First of all: as process 1 an unhandled signal would be lost.
    let (runtime, signals) = start_runtime(!options.command.is_empty())?;
    let process = load_process(&options.flags, &options.environment).map_err(StartError::Config)?;
    let settings = Arc::clone(&process.settings);
    let found_limit = files::raise_limit();
    let metrics = Metrics::new(settings.workers);
    let log = start_log(&settings, &metrics)?;
    let doors = bind_doors(&settings)?;
    let (publisher, current) = snapshot::channel(Arc::clone(&settings));
    let liveness = Liveness::new(LIVENESS_PATIENCE, Instant::now());
    let (spans, span_task) = Spans::new(&settings.exporter, &metrics, log.clone());
    let shared = worker::Shared {
        current: current.clone(),
        log: log.clone(),
        warned: Arc::default(),
        metrics: metrics.clone(),
        liveness: liveness.clone(),
        spans: spans.queue(),
        calls: Permits::default(),
    };
    let crew = Crew::start(settings.workers, &shared)?;
    let supervisor = Supervisor::new(metrics.clone(), liveness.clone());
    let (command_sender, commands) = mpsc::channel(ADMIN_QUEUE);
    let (lifecycle_sender, lifecycle) = mpsc::channel(2);
    let (drain, drain_watcher) = drain::channel();
    let house = Arc::new(House {
        current,
        databases: Databases::default(),
        board: StatusBoard::default(),
        metrics,
        log,
        startup: Readiness::new(),
        liveness,
        drain: drain_watcher,
        commands: command_sender,
    });
    let sql = postgres_wing(&house, &shared, &supervisor);
    let following = follow::Following::new(&shared, supervisor.clone(), spans.clone(), sql.clone());
    let command = Plan::new(&options, found_limit);
    let mut control = Control::new(control::Parts {
        flags: options.flags,
        environment: options.environment,
        process,
        publisher,
        workers: crew.commands.clone(),
        status: house.board.clone(),
        metrics: house.metrics.clone(),
        commands,
        lifecycle: lifecycle_sender,
        after_publish: Box::new(following),
    });
    let started = house.startup.wait_for("configuration");
    let first_turn = runtime.block_on(control.first_turn());
    first_turn.map_err(|control::StartError::Problems(problems)| StartError::Config(problems))?;
    sql_door_is_bound(&sql)?;
    Ok(Bound {
        runtime,
        signals,
        control,
        supervisor,
        house,
        doors,
        crew,
        lifecycle,
        drain,
        command,
        started,
        exporter: (spans, span_task),
        sql,
    })
}

fn start_log(settings: &ProcessSettings, metrics: &Metrics) -> Result<log::LogHandle, StartError> {
    let log = log::init(LogSettings::of(settings), metrics.lines_dropped())?;
    panics::report_to_log();
    if settings.disabled {
        tracing::warn!("MICROSERVICES is false: no service is fronted");
    }
    Ok(log)
}

fn sql_door_is_bound(sql: &Sql) -> Result<(), StartError> {
    sql.bound().map_err(|(address, source)| StartError::Door {
        door: "sql.listen",
        address,
        source,
    })
}

/// Begins with the first service that has a database.
fn postgres_wing(house: &House, shared: &worker::Shared, supervisor: &Supervisor) -> Sql {
    Sql::new(sql::Parts {
        current: house.current.clone(),
        databases: house.databases.clone(),
        metrics: house.metrics.clone(),
        supervisor: supervisor.clone(),
        startup: house.startup.clone(),
        drain: house.drain.clone(),
        spans: shared.spans.clone(),
        log: house.log.clone(),
    })
}

/// The control runtime, listening for the signals it handles.
fn start_runtime(with_command: bool) -> Result<(tokio::runtime::Runtime, Signals), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        .build()
        .map_err(StartError::Runtime)?;
    let handled = signals::handled(with_command);
    let signals = runtime.block_on(async { Signals::listen(handled) });
    Ok((runtime, signals.map_err(StartError::Runtime)?))
}

/// The data threads.
struct Crew {
    commands: Vec<mpsc::Sender<WorkerCommand>>,
    threads: Vec<JoinHandle<()>>,
    /// The index of each worker that ended.
    gone: mpsc::Receiver<usize>,
    /// Calls of apps to others that are in flight.
    calls: Permits,
}

impl Crew {
    fn start(count: usize, shared: &worker::Shared) -> Result<Self, StartError> {
        let (gone_sender, gone) = mpsc::channel(count);
        let mut crew = Self {
            commands: Vec::new(),
            threads: Vec::new(),
            gone,
            calls: shared.calls.clone(),
        };
        for index in 0..count {
            let (sender, commands) = mpsc::channel(WORKER_QUEUE);
            let context = WorkerContext {
                index,
                shared: shared.clone(),
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
        let listener = bind_alone(address).map_err(|source| StartError::Door {
            door,
            address,
            source,
        })?;
        doors.push((kind, listener));
    }
    Ok(doors)
}
