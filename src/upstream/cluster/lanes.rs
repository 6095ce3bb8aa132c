//! One worker's connections to a dependency.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use smallvec::SmallVec;

use super::endpoint::{Endpoint, Standing};
use super::{Admission, Cluster, RetryBudget};
use crate::model::Address;
use crate::net::deadline::{Deadline, Deadlines};
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::Pool;

/// One lane per address. Not `Send`: no locks.
pub struct Lanes {
    cluster: Arc<Cluster>,
    /// The addresses `lanes` were made for.
    seen: RefCell<Arc<Vec<Arc<Endpoint>>>>,
    lanes: RefCell<Vec<Rc<Lane>>>,
    client_idle: Duration,
    deadlines: Deadlines,
    random: RefCell<fastrand::Rng>,
    budget: RetryBudget,
}

struct Lane {
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    pool: Rc<Pool>,
    /// Requests of this worker, to the end of their bodies.
    in_flight: Cell<u32>,
}

/// The address chosen for an attempt; counts as in flight until it is dropped.
pub struct Pick {
    lane: Rc<Lane>,
    /// This request finds out whether the address is well again.
    probe: bool,
    /// The head of a good answer came.
    well: bool,
}

impl Lanes {
    /// `client_idle` bounds an app that stalls in the middle of its body.
    pub fn new(cluster: Arc<Cluster>, client_idle: Duration, deadlines: Deadlines) -> Self {
        Self {
            cluster,
            seen: RefCell::default(),
            lanes: RefCell::default(),
            client_idle,
            deadlines,
            random: RefCell::new(fastrand::Rng::new()),
            budget: RetryBudget::default(),
        }
    }

    /// What the lanes lead to.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Retries of this worker.
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// A disarmed deadline of this worker.
    pub fn deadline(&self) -> Deadline {
        self.deadlines.add()
    }

    /// Chooses an address: one that is due for its probe, else the less busy of
    /// two taken by chance (P2C). `avoid` is taken only when there is no other.
    ///
    /// # Errors
    /// `dns` while no address is known.
    pub async fn pick(&self, avoid: Option<SocketAddr>) -> Result<Pick, UpstreamError> {
        self.cluster.known().await?;
        self.follow();
        let lanes = self.lanes.borrow();
        let mut fit: SmallVec<[&Rc<Lane>; 8]> = SmallVec::new();
        for lane in lanes
            .iter()
            .filter(|lane| Some(lane.endpoint.address) != avoid)
        {
            match lane.endpoint.standing(|| self.cluster.now_ms()) {
                Standing::In => fit.push(lane),
                Standing::Due if lane.endpoint.begin_probe() => return Ok(Pick::new(lane, true)),
                Standing::Due | Standing::Out => {}
            }
        }
        if fit.is_empty() {
            // Somebody has to be asked.
            fit.extend(lanes.iter());
        }
        let mut random = self.random.borrow_mut();
        let chosen = match fit.len() {
            0 => None,
            count => {
                let first = random.usize(..count);
                // Another than the first, where there is one.
                let second = (first + 1 + random.usize(..count.saturating_sub(1).max(1))) % count;
                let busier = |one: &&&Rc<Lane>| one.in_flight.get();
                [first, second]
                    .iter()
                    .filter_map(|index| fit.get(*index))
                    .min_by_key(busier)
            }
        };
        chosen
            .map(|lane| Pick::new(lane, false))
            .ok_or_else(|| UpstreamError::connecting(crate::model::Kind::Dns, "no address"))
    }

    /// Takes over the addresses as they are now known.
    fn follow(&self) {
        let endpoints = self.cluster.endpoints.load();
        if Arc::ptr_eq(&endpoints, &self.seen.borrow()) {
            return;
        }
        let mut lanes = self.lanes.borrow_mut();
        let old = std::mem::take(&mut *lanes);
        for endpoint in endpoints.iter() {
            let known = old
                .iter()
                .find(|lane| Arc::ptr_eq(&lane.endpoint, endpoint));
            lanes.push(known.map_or_else(|| self.lane(endpoint), Rc::clone));
        }
        for lane in old {
            if !lanes.iter().any(|kept| Rc::ptr_eq(kept, &lane)) {
                lane.pool.retire();
            }
        }
        self.seen.replace(Arc::clone(&endpoints));
    }

    fn lane(&self, endpoint: &Arc<Endpoint>) -> Rc<Lane> {
        let upstream = Arc::clone(&endpoint.upstream);
        Rc::new(Lane {
            cluster: Arc::clone(&self.cluster),
            pool: Pool::new(upstream, self.client_idle, self.deadlines.clone()),
            endpoint: Arc::clone(endpoint),
            in_flight: Cell::new(0),
        })
    }

    /// No connection is kept from now on.
    pub fn retire(&self) {
        for lane in self.lanes.borrow().iter() {
            lane.pool.retire();
        }
    }
}

impl Pick {
    fn new(lane: &Rc<Lane>, probe: bool) -> Self {
        lane.in_flight.set(lane.in_flight.get() + 1);
        Self {
            lane: Rc::clone(lane),
            probe,
            well: false,
        }
    }

    /// This worker's connections to the address.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.lane.pool
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.lane.endpoint.address
    }

    /// The address as logs show it.
    pub fn label(&self) -> &Arc<str> {
        &self.lane.endpoint.label
    }

    /// The same as it is configured, perhaps by name.
    pub fn configured(&self) -> &Address {
        &self.lane.endpoint.configured
    }

    /// What a request there names as its host.
    pub fn host(&self) -> &HeaderValue {
        self.lane.endpoint.host()
    }

    /// Whether this request finds out how the address is.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Leaves finding out to the next request.
    pub fn give_probe_back(&mut self) {
        if std::mem::take(&mut self.probe) {
            self.lane.endpoint.end_probe();
        }
    }

    /// The head of a good answer came.
    pub fn succeeded(&mut self, admission: &mut Admission) {
        self.well = true;
        let probe = std::mem::take(&mut self.probe);
        if self.lane.endpoint.succeeded(probe) {
            let (service, peer) = (&*self.lane.cluster.service, self.lane.cluster.peer());
            tracing::info!(service, peer, address = %self.address(), "address taken in again");
        }
        admission.succeeded();
    }

    /// The other side did not answer, or said that it cannot.
    pub fn failed(&mut self, admission: &mut Admission) {
        let probe = std::mem::take(&mut self.probe);
        let endpoint = &self.lane.endpoint;
        let was_out = endpoint.is_out();
        let cluster = &self.lane.cluster;
        let ejected = endpoint.failed(probe, cluster.now_ms(), || cluster.may_eject());
        if ejected {
            self.tell_ejected();
            admission.forget();
        }
        // What is left out says nothing about the rest.
        if admission.is_probe() || !(ejected || was_out) {
            admission.failed();
        }
    }

    /// The body of the answer came to its end.
    pub fn completed(&self) {
        if !self.well {
            return;
        }
        self.lane.endpoint.completed();
        if let Some(breaker) = &self.lane.cluster.breaker {
            breaker.completed();
        }
    }

    /// The body of the answer broke off, by the other side's fault.
    pub fn broke_off(&self) {
        let Lane {
            cluster, endpoint, ..
        } = &*self.lane;
        // What failed by its head has been counted.
        if !self.well || endpoint.is_out() {
            return;
        }
        let now_ms = cluster.now_ms();
        let breaker = cluster.breaker.as_ref();
        if endpoint.broke_off(now_ms, || cluster.may_eject()) {
            self.tell_ejected();
            breaker.inspect(|breaker| breaker.forget());
        } else if breaker.is_some_and(|breaker| breaker.broke_off(now_ms)) {
            cluster.opened();
        }
    }

    fn tell_ejected(&self) {
        let (service, peer) = (&*self.lane.cluster.service, self.lane.cluster.peer());
        tracing::warn!(service, peer, address = %self.address(), "address ejected");
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.lane
            .in_flight
            .set(self.lane.in_flight.get().saturating_sub(1));
        self.give_probe_back();
    }
}
