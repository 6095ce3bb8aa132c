//! What is in force, and how something else comes into force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::claims::{Clash, Wanted, clashes};
use super::exits::{Bound, Closing, Exits, Opening};
use super::prepare::BuildRequest;
use crate::control::claims::Listen;
use crate::model::{ProcessSettings, ServiceName};
use crate::net::{BindError, ListenerId, OpenListener, Purpose, WorkerCommand};
use crate::snapshot::{Publisher, Service, Snapshot};

/// A worker that takes longer is reported; its acknowledgement still counts.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Old snapshots kept until nobody reads them (three generations in all).
const MAX_RETIRED: usize = 2;
/// Longest wait for readers of old snapshots before the next is published.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// One service as it is served.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) wanted: Wanted,
    pub(super) service: Arc<Service>,
    /// Settings it was built with.
    pub(super) settings: Arc<ProcessSettings>,
    /// Generation it first appeared in.
    pub(super) generation: u64,
    pub(super) listener: Held,
    /// Ports of its dependencies.
    pub(super) exits: Exits,
}

/// An open group of listeners.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) id: ListenerId,
    pub(super) listen: Listen,
    /// The real one, also when port 0 was asked for.
    pub(super) address: SocketAddr,
}

/// A built version.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) request: BuildRequest,
    pub(super) service: Service,
}

/// Why a built version did not come into force.
#[derive(Debug)]
pub(super) enum Refusal {
    Clash(Clash),
    Bind(BindError),
    /// A port of a dependency.
    Exit(BindError),
    /// The shared door for calls to others.
    Door(Arc<BindError>),
}

/// What a commit did.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// Whether there is a new generation.
    pub(super) published: bool,
    pub(super) added: Vec<ServiceName>,
    pub(super) changed: Vec<ServiceName>,
    pub(super) removed: Vec<ServiceName>,
    pub(super) refused: BTreeMap<ServiceName, (BuildRequest, Refusal)>,
}

/// The conditions of a commit.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) settings: &'a Arc<ProcessSettings>,
    pub(super) hash: &'a Arc<str>,
    /// Publish nothing unless a good version is served afterwards.
    pub(super) only_if_serving: bool,
}

/// The published state and the workers that follow it.
pub(super) struct Force {
    pub(super) services: BTreeMap<ServiceName, InForce>,
    publisher: Publisher,
    /// The shared door, while a service calls others.
    pub(super) door: Option<Held>,
    pub(super) workers: Vec<mpsc::Sender<WorkerCommand>>,
    /// Published.
    generation: u64,
    /// Acknowledged by every worker.
    acknowledged: u64,
    late: Vec<oneshot::Receiver<()>>,
    settings: Option<Arc<ProcessSettings>>,
    pub(super) listeners: u32,
    /// Given up, the last ones last.
    pub(super) closing: Vec<Closing>,
    retired: Vec<Arc<Snapshot>>,
}

impl Force {
    pub(super) fn new(publisher: Publisher, workers: Vec<mpsc::Sender<WorkerCommand>>) -> Self {
        Self {
            services: BTreeMap::new(),
            publisher,
            workers,
            door: None,
            generation: 0,
            acknowledged: 0,
            late: Vec::new(),
            settings: None,
            listeners: 0,
            closing: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// The generation every worker follows.
    pub(super) fn in_force(&self) -> u64 {
        self.acknowledged
    }

    /// Snapshots not yet freed, the present one included.
    pub(super) fn generations_alive(&self) -> u64 {
        self.retired.len() as u64 + 1
    }

    /// Whether any good version is served.
    pub(super) fn is_serving(&self) -> bool {
        self.services
            .values()
            .any(|service| service.wanted.spec().is_some())
    }

    /// Versions in force.
    pub(super) fn wanted(&self) -> BTreeMap<ServiceName, Wanted> {
        self.services
            .iter()
            .map(|(name, service)| (name.clone(), service.wanted.clone()))
            .collect()
    }

    /// Brings what can be brought into force: binds, publishes, waits for the
    /// workers. What clashes or cannot be bound leaves its predecessor as it was.
    pub(super) async fn commit(
        &mut self,
        candidates: Vec<Candidate>,
        removed: &BTreeSet<ServiceName>,
        terms: &Terms<'_>,
    ) -> Committed {
        let mut committed = Committed::default();
        let mut candidates: BTreeMap<ServiceName, Candidate> = candidates
            .into_iter()
            .map(|candidate| (candidate.request.name.clone(), candidate))
            .collect();
        // First: whom it refuses keeps the ports of its predecessor.
        let door = self.bind_door(&mut candidates, terms.settings, &mut committed);
        let bound = self.bind_all(&mut candidates, removed, terms, &mut committed);
        let same_settings = self
            .settings
            .as_ref()
            .is_some_and(|settings| Arc::ptr_eq(settings, terms.settings));
        let nothing_to_do = candidates.is_empty() && removed.is_empty() && same_settings;
        let would_serve = self.is_serving()
            || candidates
                .values()
                .any(|candidate| candidate.request.wanted.spec().is_some());
        if nothing_to_do || (terms.only_if_serving && !would_serve) {
            return committed;
        }
        self.free_retired().await;
        self.generation += 1;
        let mut close = Vec::new();
        for name in removed {
            if let Some(gone) = self.services.remove(name) {
                close.push(gone.listener);
                close.extend(gone.exits.values());
                committed.removed.push(name.clone());
            }
        }
        let mut open = self.install(candidates, bound, &mut close, &mut committed);
        self.install_door(door, &mut open, &mut close);
        let snapshot = Snapshot {
            generation: self.generation,
            hash: Arc::clone(terms.hash),
            services: self
                .services
                .iter()
                .map(|(name, service)| (name.clone(), Arc::clone(&service.service)))
                .collect(),
            settings: Arc::clone(terms.settings),
        };
        self.settings = Some(Arc::clone(terms.settings));
        self.retired
            .push(self.publisher.publish(Arc::new(snapshot)));
        committed.published = true;
        self.give_up(&close, &terms.settings.shutdown);
        let close: Vec<ListenerId> = close.iter().map(|held| held.id).collect();
        self.adopt(open, &close).await;
        self.sweep();
        committed
    }

    /// Binds until nothing more is refused: a refusal leaves a predecessor in
    /// force, which may be in the way of another candidate.
    fn bind_all(
        &self,
        candidates: &mut BTreeMap<ServiceName, Candidate>,
        removed: &BTreeSet<ServiceName>,
        terms: &Terms<'_>,
        committed: &mut Committed,
    ) -> BTreeMap<ServiceName, Bound> {
        let in_force = self.wanted();
        let mut bound: BTreeMap<ServiceName, Bound> = BTreeMap::new();
        loop {
            let versions = candidates
                .iter()
                .map(|(name, candidate)| (name.clone(), candidate.request.wanted.clone()))
                .collect();
            let clashed = clashes(&in_force, removed, &versions, terms.settings);
            let mut refusals: Vec<_> = clashed
                .into_iter()
                .map(|(name, clash)| (name, Refusal::Clash(clash)))
                .collect();
            for (name, wanted) in versions {
                let refused = refusals.iter().any(|(refused, _)| *refused == name);
                if refused || bound.contains_key(&name) {
                    continue;
                }
                match self.bind_version(&name, &wanted, terms.settings) {
                    Ok(version) => {
                        bound.insert(name, version);
                    }
                    Err(refusal) => refusals.push((name, refusal)),
                }
            }
            if refusals.is_empty() {
                return bound;
            }
            for (name, refusal) in refusals {
                bound.remove(&name);
                if let Some(candidate) = candidates.remove(&name) {
                    let refused = (candidate.request, refusal);
                    committed.refused.insert(name, refused);
                }
            }
        }
    }

    /// What of a version's ports its predecessor does not hold.
    fn bind_version(
        &self,
        name: &ServiceName,
        wanted: &Wanted,
        settings: &ProcessSettings,
    ) -> Result<Bound, Refusal> {
        let listen = wanted.listen(settings);
        let public = match self.holds(name, listen) {
            true => None,
            false => Some((listen, self.bind(listen).map_err(Refusal::Bind)?)),
        };
        Ok(Bound {
            public,
            exits: self.bind_exits(name, wanted).map_err(Refusal::Exit)?,
        })
    }

    fn holds(&self, name: &ServiceName, listen: Listen) -> bool {
        self.services
            .get(name)
            .is_some_and(|service| service.listener.listen == listen)
    }

    /// Takes the candidates into force; gives each worker its listeners.
    fn install(
        &mut self,
        candidates: BTreeMap<ServiceName, Candidate>,
        mut bound: BTreeMap<ServiceName, Bound>,
        close: &mut Vec<Held>,
        committed: &mut Committed,
    ) -> Opening {
        let mut open: Opening = self.workers.iter().map(|_| Vec::new()).collect();
        for (name, Candidate { request, service }) in candidates {
            let predecessor = self.services.remove(&name);
            let Bound { public, exits } = bound.remove(&name).unwrap_or_default();
            let slot = request.slot.index;
            let listener = match (public, &predecessor) {
                (Some((listen, sockets)), _) => {
                    close.extend(predecessor.as_ref().map(|old| old.listener));
                    self.hand_out(sockets, listen, slot, Purpose::Service, &mut open)
                }
                (None, Some(predecessor)) => predecessor.listener,
                // Every accepted candidate is bound or keeps what it holds.
                (None, None) => continue,
            };
            match predecessor {
                Some(_) => committed.changed.push(name.clone()),
                None => committed.added.push(name.clone()),
            }
            let held = predecessor.map(|old| old.exits).unwrap_or_default();
            let exits = self.install_exits(slot, &request.wanted, held, exits, &mut open, close);
            let service = InForce {
                wanted: request.wanted,
                service: Arc::new(service),
                settings: request.settings,
                generation: self.generation,
                listener,
                exits,
            };
            self.services.insert(name, service);
        }
        open
    }

    async fn adopt(&mut self, open: Vec<Vec<OpenListener>>, close: &[ListenerId]) {
        let deadline = Instant::now() + ACK_TIMEOUT;
        let mut acks = Vec::with_capacity(self.workers.len());
        for (worker, open) in self.workers.iter().zip(open) {
            let (ack, acknowledged) = oneshot::channel();
            let command = WorkerCommand::Adopt {
                generation: self.generation,
                open,
                close: close.to_vec(),
                ack,
            };
            // A worker that is gone or does not listen shows in the acknowledgement.
            let _ = timeout_at(deadline, worker.send(command)).await;
            acks.push(acknowledged);
        }
        self.late.clear();
        for mut acknowledged in acks {
            match timeout_at(deadline, &mut acknowledged).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tracing::error!(self.generation, "a worker is gone"),
                Err(_) => {
                    tracing::warn!(self.generation, "a worker is late to follow");
                    self.late.push(acknowledged);
                }
            }
        }
        self.note_late();
    }

    /// Looks whether the workers that were late have followed by now.
    pub(super) fn note_late(&mut self) {
        use oneshot::error::TryRecvError;
        self.late
            .retain_mut(|ack| matches!(ack.try_recv(), Err(TryRecvError::Empty)));
        if self.late.is_empty() {
            self.acknowledged = self.generation;
        }
    }

    /// Frees old snapshots that nobody reads any more, here and not on a worker.
    pub(super) fn sweep(&mut self) {
        self.retired
            .retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Waits a little for readers when there are too many old snapshots.
    async fn free_retired(&mut self) {
        let deadline = Instant::now() + RETIRE_TIMEOUT;
        self.sweep();
        while self.retired.len() >= MAX_RETIRED && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.sweep();
        }
    }
}
