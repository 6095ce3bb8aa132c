//! Data threads: one runtime each, own listeners and pools.
//!
//! A worker shares nothing with its siblings but the published snapshot and
//! padded counters. It follows the control loop's commands in order; between
//! two of them nothing about the configuration changes under a request.

mod port;

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

use crate::auth::AuthWorker;
use crate::drain::Phase;
use crate::inbound::{Local, Site, WorkerParts};
use crate::net::deadline::{Clock, Deadlines};
use crate::net::{ListenerId, OpenListener, WorkerCommand};
use crate::snapshot::{Current, Snapshot};
use crate::telemetry::log::LogHandle;
use crate::trace::IdGenerator;

use port::{Connections, Port};

/// Tunnels end this long before the deadline of a drain (SPEC §11).
const TUNNELS_BEFORE_DEADLINE: Duration = Duration::from_secs(2);

/// What a worker is started with.
pub struct WorkerContext {
    /// Counts workers from 0.
    pub index: usize,
    pub current: Current,
    pub log: LogHandle,
    /// Shared by all workers: untrusted forwarding headers were warned of.
    pub warned: Arc<AtomicBool>,
    pub commands: mpsc::Receiver<WorkerCommand>,
}

/// Starts a data thread; it ends when the commands' sender is dropped. `gone`
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
    connections: Rc<Connections>,
    generation: RefCell<u64>,
}

impl Worker {
    fn new(context: WorkerContext, clock: Clock) -> Self {
        let deadlines = Deadlines::new(clock);
        let parts = WorkerParts {
            index: context.index,
            deadlines: deadlines.clone(),
            ids: IdGenerator::new(),
            log: context.log,
            warned: context.warned,
            auth: AuthWorker::new(context.index, deadlines.clone()),
        };
        Self {
            current: context.current,
            commands: Some(context.commands),
            parts: Rc::new(parts),
            sites: HashMap::new(),
            ports: HashMap::new(),
            connections: Rc::default(),
            generation: RefCell::new(0),
        }
    }

    async fn run(mut self) {
        let deadlines = self.parts.deadlines.clone();
        let sweeper = tokio::task::spawn_local(async move { deadlines.sweep().await });
        let Some(mut commands) = self.commands.take() else {
            return;
        };
        while let Some(command) = commands.recv().await {
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
                    done,
                } => {
                    self.drain(close_listeners, deadline, done);
                }
            }
        }
        sweeper.abort();
    }

    fn adopt(&mut self, generation: u64, open: Vec<OpenListener>, close: &[ListenerId]) {
        let snapshot = self.current.load();
        if *self.generation.borrow() != snapshot.generation {
            self.replace_sites(&snapshot);
            *self.generation.borrow_mut() = snapshot.generation;
        }
        debug_assert!(
            snapshot.generation >= generation,
            "published before it is adopted"
        );
        for listener in open {
            self.open(listener);
        }
        for id in close {
            if let Some(port) = self.ports.remove(id) {
                let settings = &snapshot.settings.shutdown;
                port.retire(settings.deadline, &self.parts.deadlines);
            }
        }
    }

    fn replace_sites(&mut self, snapshot: &Snapshot) {
        for service in snapshot.services.values() {
            let known = self.sites.get(&service.slot.index);
            let old = known.map(|site| site.current());
            // The generation is part of the record, so every site changes; its
            // pools do not.
            let local = Local::new(service.clone(), snapshot, &self.parts, old.as_deref());
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
    }

    fn open(&mut self, listener: OpenListener) {
        let Some(site) = self.sites.get(&listener.slot) else {
            tracing::error!(address = %listener.address, "a listener without its service");
            return;
        };
        let connections = Rc::clone(&self.connections);
        let (id, socket) = (listener.id, listener.socket);
        let port = Port::open(Rc::clone(site), Rc::clone(&self.parts), connections, socket);
        self.ports.insert(id, port);
    }

    fn drain(&mut self, close_listeners: Instant, deadline: Instant, done: oneshot::Sender<()>) {
        let ports: Vec<Rc<Port>> = self.ports.drain().map(|(_, port)| port).collect();
        let connections = Rc::clone(&self.connections);
        let deadlines = self.parts.deadlines.clone();
        // Owned by the runtime, which ends with the process.
        tokio::task::spawn_local(async move {
            for port in &ports {
                port.advance(Phase::Announced);
            }
            // HTTP/2 connections announce by GOAWAY.
            deadlines.wake_all();
            tokio::time::sleep_until(close_listeners.into()).await;
            for port in &ports {
                port.stop_accepting().await;
                port.advance(Phase::Closing);
            }
            deadlines.wake_all();
            let tunnels_end = deadline
                .checked_sub(TUNNELS_BEFORE_DEADLINE)
                .unwrap_or(deadline);
            for (phase, at) in [(Phase::EndingTunnels, tunnels_end), (Phase::Cut, deadline)] {
                let emptied = tokio::time::timeout_at(at.into(), connections.emptied()).await;
                if emptied.is_err() {
                    for port in &ports {
                        port.advance(phase);
                    }
                    deadlines.wake_all();
                }
            }
            connections.emptied().await;
            // Whoever asked may be gone.
            let _ = done.send(());
        });
    }
}
