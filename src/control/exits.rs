//! Listeners: how they pass from version to version and service to service, and
//! those for what apps call, a port per dependency and the shared door.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::claims::{Listen, Wanted};
use super::force::{Candidate, Committed, Force, Held, Refusal};
use crate::model::{DoorListen, ProcessSettings, ServiceName, ShutdownSettings};
use crate::net::{
    BindError, BoundGroup, ListenerId, ListenerSocket, OpenListener, Purpose, bind_group,
    join_group,
};

/// A port that is drained may close this much later than planned.
const CLOSING_TAKES: Duration = Duration::from_secs(1);

/// The open ports of a service's dependencies, by number.
pub(super) type Exits = BTreeMap<u16, Held>;

/// What was bound for one version of a service.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Its public port, unless the predecessor's is kept.
    pub(super) public: Option<(Listen, Sockets)>,
    /// Ports of dependencies that its predecessor did not have.
    pub(super) exits: BTreeMap<u16, Sockets>,
}

/// Where the workers have the sockets of a listener from.
#[derive(Debug)]
pub(super) enum Sockets {
    /// Bound for it.
    New(BoundGroup),
    /// Those of one that is given up with the same commit, or was not long ago.
    Of(Held),
}

/// A group of listeners that was given up (SPEC §11).
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    held: Held,
    /// They accept until then at least.
    accepts: Instant,
    /// They are closed by then.
    until: Instant,
}

/// One list of listeners to open per worker.
pub(super) type Opening = Vec<Vec<OpenListener>>;

fn calls_others(wanted: &Wanted) -> bool {
    wanted
        .spec()
        .is_some_and(|spec| !spec.dependencies.is_empty())
}

impl Force {
    /// The ports of dependencies that a version needs and does not have yet.
    pub(super) fn bind_exits(
        &self,
        name: &ServiceName,
        wanted: &Wanted,
    ) -> Result<BTreeMap<u16, Sockets>, BindError> {
        let held = self.services.get(name).map(|service| &service.exits);
        let mut bound = BTreeMap::new();
        for port in wanted.local_ports() {
            if !held.is_some_and(|held| held.contains_key(&port)) {
                bound.insert(port, self.bind(Listen::exit(port))?);
            }
        }
        Ok(bound)
    }

    /// Hands a version's ports to the workers; those it no longer has are closed.
    pub(super) fn install_exits(
        &mut self,
        slot: u32,
        wanted: &Wanted,
        mut held: Exits,
        bound: BTreeMap<u16, Sockets>,
        open: &mut Opening,
        close: &mut Vec<Held>,
    ) -> Exits {
        let ports = wanted.local_ports();
        for (port, sockets) in bound {
            let (listen, purpose) = (Listen::exit(port), Purpose::LocalPort(port));
            held.insert(port, self.hand_out(sockets, listen, slot, purpose, open));
        }
        held.retain(|port, listener| {
            let kept = ports.contains(port);
            if !kept {
                close.push(*listener);
            }
            kept
        });
        held
    }

    /// Gives each worker its socket of a group.
    pub(super) fn hand_out(
        &mut self,
        sockets: Sockets,
        listen: Listen,
        slot: u32,
        purpose: Purpose,
        open: &mut Opening,
    ) -> Held {
        let id = ListenerId(self.listeners);
        self.listeners += 1;
        let (address, sockets): (_, Vec<ListenerSocket>) = match sockets {
            Sockets::New(group) => {
                let sockets = group.sockets.into_iter().map(ListenerSocket::Bound);
                (group.address, sockets.collect())
            }
            Sockets::Of(held) => {
                let socket = |_: &Vec<_>| ListenerSocket::Of(held.id);
                (held.address, open.iter().map(socket).collect())
            }
        };
        for (worker, socket) in open.iter_mut().zip(sockets) {
            worker.push(OpenListener {
                id,
                slot,
                purpose,
                address,
                socket,
            });
        }
        Held {
            id,
            listen,
            address,
        }
    }

    /// Binds the shared door with the first service that calls others. Where it
    /// cannot be had, those that need it are refused.
    pub(super) fn bind_door(
        &self,
        candidates: &mut BTreeMap<ServiceName, Candidate>,
        settings: &ProcessSettings,
        committed: &mut Committed,
    ) -> Option<(Listen, BoundGroup)> {
        let DoorListen::At(address) = settings.outbound.listen else {
            return None;
        };
        let needing: Vec<ServiceName> = candidates
            .iter()
            .filter(|(_, candidate)| calls_others(&candidate.request.wanted))
            .map(|(name, _)| name.clone())
            .collect();
        if self.door.is_some() || needing.is_empty() {
            return None;
        }
        let listen = Listen {
            ip: Some(address.ip()),
            port: address.port(),
        };
        // One that was given up may still be open.
        let bind = match self.is_closing(listen) {
            true => join_group,
            false => bind_group,
        };
        match bind(listen.ip, listen.port, self.workers.len()) {
            Ok(group) => Some((listen, group)),
            Err(error) => {
                let error = std::sync::Arc::new(error);
                for name in needing {
                    if let Some(candidate) = candidates.remove(&name) {
                        let refusal = Refusal::Door(std::sync::Arc::clone(&error));
                        committed.refused.insert(name, (candidate.request, refusal));
                    }
                }
                None
            }
        }
    }

    /// Remembers what the workers are told to close.
    pub(super) fn give_up(&mut self, close: &[Held], shutdown: &ShutdownSettings) {
        let now = Instant::now();
        self.closing.retain(|closing| closing.until > now);
        self.closing.extend(close.iter().map(|held| Closing {
            held: *held,
            accepts: now + shutdown.accept.min(shutdown.deadline),
            until: now + shutdown.accept + CLOSING_TAKES,
        }));
    }

    /// Sockets for a port that nobody outside this process holds. Whether it may
    /// pass from one service to another was decided with the claims: who has it
    /// in force gives it up with this commit.
    pub(super) fn bind(&self, listen: Listen) -> Result<Sockets, BindError> {
        let now = Instant::now();
        let in_force = self.services.values().flat_map(|service| {
            let exits = service.exits.values();
            exits.chain([&service.listener])
        });
        let accepting = self.closing.iter().filter(|one| one.accepts > now);
        let held = in_force.chain(accepting.map(|one| &one.held).rev());
        let mut held = held.filter(|held| held.listen.overlaps(listen));
        let ours = held.clone().next().is_some() || self.is_closing(listen);
        if let Some(same) = held.find(|held| held.listen == listen) {
            return Ok(Sockets::Of(*same));
        }
        let bind = if ours { join_group } else { bind_group };
        bind(listen.ip, listen.port, self.workers.len()).map(Sockets::New)
    }

    /// Whether listeners that were given up are still open there.
    fn is_closing(&self, listen: Listen) -> bool {
        let now = Instant::now();
        let mut closing = self.closing.iter().filter(|one| one.until > now);
        closing.any(|one| one.held.listen.overlaps(listen))
    }

    /// Opens the door that was bound, and closes one that nobody needs any more.
    pub(super) fn install_door(
        &mut self,
        bound: Option<(Listen, BoundGroup)>,
        open: &mut Opening,
        close: &mut Vec<Held>,
    ) {
        let needed = self
            .services
            .values()
            .any(|service| calls_others(&service.wanted));
        if !needed {
            close.extend(self.door.take());
        } else if let Some((listen, group)) = bound {
            let door = self.hand_out(Sockets::New(group), listen, 0, Purpose::OutboundDoor, open);
            self.door = Some(door);
        }
    }
}
