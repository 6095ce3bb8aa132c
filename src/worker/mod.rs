//! Data threads: one runtime each, own listeners and pools.
//!
//! A worker shares nothing with its siblings but the published snapshot and
//! padded counters. It follows the control loop's commands in order; between
//! two of them nothing about the configuration changes under a request.

mod ending;
mod equip;
mod exit;
mod keeping;
mod leaving;
mod listening;
mod port;
mod secure;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::auth::AuthWorker;
use crate::inbound::{Local, Site, WorkerParts};
use crate::model::ShutdownSettings;
use crate::net::deadline::{Clock, Deadlines};
use crate::net::http1::Spares;
use crate::net::{ListenerId, OpenListener, Permits, WorkerCommand};
use crate::outbound::{CallerParts, Directory, Entry};
use crate::snapshot::{Current, Snapshot};
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Liveness;
use crate::telemetry::spans::{SpanBuffer, SpanQueue};
use crate::trace::IdGenerator;

use ending::Timeline;
use exit::{Callers, Exit, ExitParts};
use listening::{Listening, Opened};
use port::Port;

/// How often a worker shows that it is alive; costs an idle one a wake-up.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a worker is started with.
pub struct WorkerContext {
    /// Counts workers from 0.
    pub index: usize,
    pub shared: Shared,
    pub commands: mpsc::Receiver<WorkerCommand>,
}

/// What all workers are started with.
#[derive(Clone)]
pub struct Shared {
    pub current: Current,
    pub log: LogHandle,
    /// Untrusted forwarding headers were warned of.
    pub warned: Arc<AtomicBool>,
    pub metrics: Metrics,
    pub liveness: Liveness,
    pub spans: SpanQueue,
    /// Calls of apps to others, each to the end of its answer.
    pub calls: Permits,
}

/// Starts a data thread; it ends when the commands' sender is dropped, and when
/// one of its listeners fails: connections would wait there for nobody. `gone`
/// is told when it ends, however it does.
///
/// # Errors
/// No thread or no runtime could be made.
pub fn spawn(context: WorkerContext, gone: mpsc::Sender<usize>) -> io::Result<JoinHandle<()>> {
    let notice = Notice {
        index: context.index,
        gone,
    };
    let clock = Clock::start();
    let (refreshed, at_park) = (clock.clone(), clock.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_unpark(move || refreshed.refresh())
        .max_blocking_threads(4)
        .build()?;
    at_park.refresh();
    std::thread::Builder::new()
        .name(format!("worker-{}", context.index))
        .spawn(move || {
            let _notice = notice;
            let local = LocalSet::new();
            local.block_on(&runtime, Worker::new(context, clock).run());
        })
}

/// Sends the worker's index when dropped, by a panic too.
struct Notice {
    index: usize,
    gone: mpsc::Sender<usize>,
}

impl Drop for Notice {
    fn drop(&mut self) {
        // Full or closed means that somebody knows already.
        let _ = self.gone.try_send(self.index);
    }
}

/// One data thread's state.
struct Worker {
    current: Current,
    commands: Option<mpsc::Receiver<WorkerCommand>>,
    parts: Rc<WorkerParts>,
    /// By `SlotId::index`.
    sites: HashMap<u32, Rc<Site>>,
    ports: HashMap<ListenerId, Rc<Port>>,
    /// No longer wanted, on their way to their end.
    retiring: Vec<Retiring>,
    /// Ports that apps call others through. A drain leaves them open: apps may
    /// call to their own end, which is the process's.
    exits: HashMap<ListenerId, Rc<Exit>>,
    exit_parts: ExitParts,
    caller_parts: Rc<CallerParts>,
    generation: RefCell<u64>,
    liveness: Liveness,
    /// Cancelled when a listener ended that should not have.
    broken: CancellationToken,
}

/// A socket that is being drained alone.
struct Retiring {
    id: ListenerId,
    listening: Rc<Listening>,
    /// Where it is a service's.
    port: Option<Rc<Port>>,
    hurry: CancellationToken,
}

impl Worker {
    fn new(context: WorkerContext, clock: Clock) -> Self {
        let WorkerContext {
            index,
            shared,
            commands,
        } = context;
        let deadlines = Deadlines::new(clock);
        let spans = Rc::new(SpanBuffer::new(shared.spans));
        let (log, of_calls) = (shared.log, Rc::clone(&spans));
        let caller_parts = CallerParts::new(index, deadlines.clone(), log.clone(), of_calls);
        let parts = WorkerParts {
            index,
            deadlines: deadlines.clone(),
            ids: IdGenerator::new(),
            log,
            warned: shared.warned,
            metrics: shared.metrics,
            auth: AuthWorker::new(index, deadlines.clone()),
            spans,
            spares: Spares::default(),
            current: shared.current.clone(),
        };
        Self {
            current: shared.current,
            commands: Some(commands),
            parts: Rc::new(parts),
            sites: HashMap::new(),
            ports: HashMap::new(),
            retiring: Vec::new(),
            exits: HashMap::new(),
            exit_parts: ExitParts {
                callers: Callers::default(),
                spares: Rc::default(),
                deadlines,
                calls: shared.calls,
            },
            caller_parts,
            generation: RefCell::new(0),
            liveness: shared.liveness,
            broken: CancellationToken::new(),
        }
    }

    async fn run(mut self) {
        let deadlines = self.parts.deadlines.clone();
        let mut sweeper = tokio::task::spawn_local(async move { deadlines.sweep().await });
        let Some(mut commands) = self.commands.take() else {
            return;
        };
        let who = format!("worker {}", self.parts.index);
        let heart = self.liveness.watch(&who, Instant::now());
        let mut beat = tokio::time::interval(HEARTBEAT);
        let broken = self.broken.clone();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                _ = beat.tick() => {
                    heart.beat(Instant::now());
                    self.parts.spans.flush();
                }
                () = broken.cancelled() => break,
                // Without it no deadline would ever come.
                _ = &mut sweeper => return,
            }
        }
        sweeper.abort();
    }

    fn obey(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Adopt {
                generation,
                open,
                close,
                ack,
            } => {
                self.adopt(generation, open, &close);
                // A control loop that no longer waits is ending.
                let _ = ack.send(());
            }
            WorkerCommand::Drain {
                close_listeners,
                deadline,
                hurry,
                done,
            } => {
                let timeline = Timeline {
                    close_listeners,
                    deadline,
                    hurry,
                };
                self.drain(timeline, done);
            }
        }
    }

    fn adopt(&mut self, generation: u64, open: Vec<OpenListener>, close: &[ListenerId]) {
        let snapshot = self.current.load();
        let directory = self.exit_parts.callers.borrow().clone();
        if *self.generation.borrow() != snapshot.generation {
            self.replace_sites(&snapshot);
            *self.generation.borrow_mut() = snapshot.generation;
        }
        debug_assert!(
            snapshot.generation >= generation,
            "published before it is adopted"
        );
        #[cfg(any(test, feature = "fault-injection"))]
        crate::telemetry::fault::in_thread(&snapshot.settings.services_dir, "worker");
        let retiring = self.retiring.iter().filter_map(|one| one.port.as_ref());
        for port in self.ports.values().chain(retiring) {
            port.judge_peers();
        }
        // Two may change their sockets: both are taken before either accepts.
        let open = open.into_iter().filter_map(|one| self.equip(one));
        let open: Vec<Opened> = open.collect();
        let retired: Vec<(ListenerId, Rc<Port>)> = close
            .iter()
            .filter_map(|id| self.ports.remove_entry(id))
            .collect();
        for listener in open {
            match Exit::entry(&listener) {
                None => self.open(listener),
                Some(entry) => self.open_exit(listener, entry),
            }
        }
        let shutdown = &snapshot.settings.shutdown;
        for id in close {
            let Some(exit) = self.exits.remove(id) else {
                continue;
            };
            exit.keep(directory.clone());
            self.retire(*id, Rc::clone(exit.listening()), None, shutdown);
        }
        for (id, port) in retired {
            self.retire(id, Rc::clone(port.listening()), Some(port), shutdown);
        }
        self.hand_over_ports();
    }

    /// Drains a socket that is no longer wanted, by the timeline of a process.
    fn retire(
        &mut self,
        id: ListenerId,
        listening: Rc<Listening>,
        port: Option<Rc<Port>>,
        shutdown: &ShutdownSettings,
    ) {
        let now = Instant::now();
        let hurry = CancellationToken::new();
        let timeline = Timeline {
            close_listeners: now + shutdown.accept.min(shutdown.deadline),
            deadline: now + shutdown.deadline,
            hurry: hurry.clone(),
        };
        self.retiring.push(Retiring {
            id,
            listening: Rc::clone(&listening),
            port,
            hurry,
        });
        let deadlines = self.parts.deadlines.clone();
        // Ends by itself soon after the deadline.
        tokio::task::spawn_local(async move {
            ending::end(&[listening], timeline, &deadlines, || {}).await;
        });
    }

    /// Where a new listener has the port, connections must not reach the old one.
    fn hand_over_ports(&mut self) {
        let ports = self.ports.values().map(|port| port.listening());
        let exits = self.exits.values().map(|exit| exit.listening());
        let wanted: HashSet<u16> = ports.chain(exits).map(|one| one.number()).collect();
        for retiring in &self.retiring {
            if wanted.contains(&retiring.listening.number()) {
                retiring.hurry.cancel();
            }
        }
        self.retiring.retain(|one| !one.listening.is_over());
    }

    fn open_exit(&mut self, listener: Opened, entry: Entry) {
        let (id, parts) = (listener.id, self.exit_parts.clone());
        let exit = Exit::open(listener, entry, parts, self.broken.clone());
        self.exits.insert(id, exit);
    }

    fn replace_sites(&mut self, snapshot: &Snapshot) {
        let callers = &self.exit_parts.callers;
        let old = callers.borrow().clone();
        let new = Directory::new(snapshot, &self.caller_parts, old.as_deref());
        callers.replace(Some(new));
        let mut outdated = false;
        for service in snapshot.services.values() {
            let known = self.sites.get(&service.slot.index);
            let old = known.map(|site| site.current());
            // The generation is part of the record, so every site changes; its
            // pools do not.
            let local = Local::new(service.clone(), snapshot, &self.parts, old.as_deref());
            outdated |= old.is_some_and(|old| {
                old.connection_settings() != local.connection_settings()
                    || !local.is_under(old.tls())
            });
            match known {
                Some(site) => site.replace(local),
                None => {
                    self.sites.insert(service.slot.index, Site::new(local));
                }
            }
        }
        let present: HashSet<u32> = snapshot
            .services
            .values()
            .map(|service| service.slot.index)
            .collect();
        self.sites.retain(|index, _| present.contains(index));
        if outdated {
            // Connections look at their settings when they are woken.
            self.parts.deadlines.wake_all();
        }
    }

    fn open(&mut self, listener: Opened) {
        let Some(site) = self.sites.get(&listener.slot) else {
            tracing::error!(address = %listener.address, "a listener without its service");
            return;
        };
        let id = listener.id;
        let (site, parts) = (Rc::clone(site), Rc::clone(&self.parts));
        let port = Port::open(site, parts, listener, self.broken.clone());
        self.ports.insert(id, port);
    }

    fn drain(&mut self, timeline: Timeline, done: oneshot::Sender<()>) {
        self.parts.spans.hurry();
        let ports = self.ports.drain();
        let ports = ports.map(|(_, port)| Rc::clone(port.listening()));
        let retiring = self.retiring.drain(..).map(|one| one.listening);
        let sockets: Vec<Rc<Listening>> = ports.chain(retiring).collect();
        let exits = self.exits.values();
        let exits: Vec<Rc<Listening>> = exits.map(|exit| Rc::clone(exit.listening())).collect();
        let sites: Vec<Rc<Site>> = self.sites.values().map(Rc::clone).collect();
        let deadlines = self.parts.deadlines.clone();
        let (deadline, of_calls) = (timeline.deadline, deadlines.clone());
        // Both are owned by the runtime, which ends with the process.
        tokio::task::spawn_local(async move {
            ending::end_calls(&exits, deadline, &of_calls).await;
        });
        tokio::task::spawn_local(async move {
            let closing = || sites.iter().for_each(|site| site.keep_no_connections());
            ending::end(&sockets, timeline, &deadlines, closing).await;
            // Whoever asked may be gone.
            let _ = done.send(());
        });
    }
}
