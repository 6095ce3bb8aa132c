//! Who may call what, and by which name: one worker's view of a generation.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;

use super::Entry;
use super::credential::Minted;
use crate::forward::Reserved;
use crate::model::{Limits, ProcessSettings};
use crate::net::deadline::Deadlines;
use crate::snapshot::{Dependency, Ready, Service, Snapshot};
use crate::telemetry::log::LogHandle;
use crate::telemetry::recorder::Recorder;
use crate::telemetry::spans::SpanBuffer;
use crate::trace::IdGenerator;
use crate::upstream::cluster::Lanes;

/// What all calls of a worker share.
pub struct CallerParts {
    pub index: usize,
    pub deadlines: Deadlines,
    pub ids: IdGenerator,
    pub log: LogHandle,
    /// What apps may not send (ID-1), from headers and trailers.
    pub reserved: Arc<Reserved>,
    pub spans: Rc<SpanBuffer>,
}

/// Every caller of a worker, in order of name.
pub struct Directory {
    callers: Vec<Rc<Caller>>,
    pub(super) settings: Arc<ProcessSettings>,
    pub(super) parts: Rc<CallerParts>,
    /// With a single local service, whoever calls is its app.
    single: bool,
    /// For calls that name nobody, where several services might have made them.
    strangers: Option<Rc<Recorder>>,
}

/// A local service that calls others.
pub struct Caller {
    pub(super) service: Arc<Service>,
    routes: Vec<Rc<Route>>,
    /// For calls that name nothing it may call.
    pub(super) strangers: Rc<Recorder>,
}

/// One worker's way to one dependency.
pub struct Route {
    pub(super) dependency: Arc<Dependency>,
    pub(super) lanes: Rc<Lanes>,
    pub(super) recorder: Rc<Recorder>,
    token: RefCell<Option<Minted>>,
}

/// Whom a call is from and to.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) caller: Rc<Caller>,
    pub(super) route: Rc<Route>,
    /// The caller is certain, so its credential may be attached.
    pub(super) known: bool,
}

impl CallerParts {
    /// For the worker with this index.
    pub fn new(
        index: usize,
        deadlines: Deadlines,
        log: LogHandle,
        spans: Rc<SpanBuffer>,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            deadlines,
            log,
            ids: IdGenerator::new(),
            reserved: Arc::new(Reserved::new([])),
            spans,
        })
    }
}

impl Directory {
    /// Takes over the predecessor's connections where the dependency is the same.
    pub fn new(
        snapshot: &Snapshot,
        parts: &Rc<CallerParts>,
        predecessor: Option<&Self>,
    ) -> Rc<Self> {
        let known: Vec<&Rc<Route>> = predecessor.into_iter().flat_map(Self::routes).collect();
        let build = |service: &Arc<Service>| {
            let ready = service
                .as_ready()
                .filter(|ready| !ready.dependencies.is_empty())?;
            let recorder = |peer| recorder(service, snapshot.generation, parts, peer);
            let routes = ready.dependencies.iter().map(|dependency| {
                let old = known
                    .iter()
                    .find(|old| Arc::ptr_eq(&old.dependency, dependency));
                Rc::new(Route {
                    lanes: old
                        .map_or_else(|| lanes(dependency, parts), |old| Rc::clone(&old.lanes)),
                    recorder: recorder(Arc::clone(&dependency.metrics)),
                    token: RefCell::default(),
                    dependency: Arc::clone(dependency),
                })
            });
            Some(Rc::new(Caller {
                routes: routes.collect(),
                strangers: recorder(service.metrics.peer("")),
                service: Arc::clone(service),
            }))
        };
        let callers: Vec<Rc<Caller>> = snapshot.services.values().filter_map(build).collect();
        let strangers = callers.first().map(|caller| Rc::clone(&caller.strangers));
        let made = Rc::new(Self {
            single: snapshot.services.len() == 1,
            settings: Arc::clone(&snapshot.settings),
            parts: Rc::clone(parts),
            strangers: strangers.or_else(|| predecessor?.strangers.clone()),
            callers,
        });
        for old in known {
            if !made
                .routes()
                .any(|route| Rc::ptr_eq(&route.lanes, &old.lanes))
            {
                old.lanes.retire();
            }
        }
        made
    }

    fn routes(&self) -> impl Iterator<Item = &Rc<Route>> {
        self.callers.iter().flat_map(|caller| &caller.routes)
    }

    /// What the port of a dependency leads to.
    pub(super) fn by_port(&self, slot: u32, port: u16) -> Option<Found> {
        let caller = self.caller(slot)?;
        let mut routes = caller.routes.iter();
        let route = routes.find(|route| route.dependency.spec.local_port == Some(port))?;
        Some(Found {
            route: Rc::clone(route),
            caller: Rc::clone(caller),
            known: true,
        })
    }

    /// Who is taken for the caller where nobody is named.
    pub(super) fn presumed_caller(&self, slot: Option<u32>) -> Option<&Caller> {
        let caller = slot.and_then(|slot| self.caller(slot));
        caller.or(self.callers.first()).map(Rc::as_ref)
    }

    fn caller(&self, slot: u32) -> Option<&Rc<Caller>> {
        let mut callers = self.callers.iter();
        callers.find(|caller| caller.service.slot.index == slot)
    }

    /// What a name leads to, unless it may mean two dependencies of one caller.
    /// Where several services know the name, the call goes as the first one's,
    /// without its credential.
    pub(super) fn by_name(&self, name: &str) -> Option<Found> {
        self.callers.iter().find_map(|caller| {
            let mut named = caller
                .routes
                .iter()
                .filter(|route| route.dependency.is_called(name));
            match (named.next(), named.next()) {
                (Some(route), None) => Some(Found {
                    route: Rc::clone(route),
                    caller: Rc::clone(caller),
                    known: self.single,
                }),
                _ => None,
            }
        })
    }

    /// Where it is recorded what comes in here without becoming a call.
    pub fn unnamed(&self, entry: Entry) -> Option<Rc<Recorder>> {
        self.strangers(entry.slot())
    }

    /// Where calls are recorded that name nobody.
    pub(super) fn strangers(&self, slot: Option<u32>) -> Option<Rc<Recorder>> {
        slot.and_then(|slot| self.caller(slot))
            .map(|caller| Rc::clone(&caller.strangers))
            .or_else(|| self.strangers.clone())
    }
}

impl Caller {
    /// Callers are services with a good version.
    pub(super) fn ready(&self) -> Option<&Ready> {
        self.service.as_ready()
    }
}

impl Route {
    /// `Authorization` for a call of `caller`; made anew when half of its life
    /// is over.
    pub(super) fn token(&self, caller: &str, now: SystemTime) -> Option<HeaderValue> {
        let mut token = self.token.borrow_mut();
        if !token.as_ref().is_some_and(|token| token.is_fresh(now)) {
            *token = Minted::new(&self.dependency, caller, now);
        }
        token.as_ref().map(Minted::value)
    }
}

fn recorder(
    service: &Arc<Service>,
    generation: u64,
    parts: &CallerParts,
    peer: Arc<crate::telemetry::metrics::PeerMetrics>,
) -> Rc<Recorder> {
    Rc::new(Recorder {
        shard: service.metrics.shard(parts.index),
        peer: Some(peer),
        log: parts.log.clone(),
        service: service.name.shared_key(),
        generation,
        resource: Arc::clone(&service.resource),
        spans: Rc::clone(&parts.spans),
    })
}

fn lanes(dependency: &Arc<Dependency>, parts: &CallerParts) -> Rc<Lanes> {
    let idle = Limits::default().idle_timeout;
    Rc::new(Lanes::new(
        Arc::clone(&dependency.cluster),
        idle,
        parts.deadlines.clone(),
    ))
}
