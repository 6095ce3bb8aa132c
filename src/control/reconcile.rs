//! From what is wanted to what is in force, service by service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::claims::Wanted;
use super::desire::Desire;
use super::diff::diff;
use super::follow::AfterPublish;
use super::force::{Candidate, Committed, Force, Refusal, Terms};
use super::omission::Opening;
use super::prepare::{BuildRequest, Built, Workshop};
use super::slots::Slots;
use super::turn::Cause;
use crate::model::{ProcessSettings, ServiceName, ServiceSpec, UpstreamSpec};

/// How long a turn waits for builds; what takes longer comes into force on its
/// own, later.
const GATHER: Duration = Duration::from_millis(300);
/// The same at start, when there is nothing in force to go on with.
const GATHER_AT_START: Duration = Duration::from_secs(10);
/// How long the end of one late build waits for others, to publish once.
const GATHER_LATE: Duration = Duration::from_millis(10);

/// What came of it, over all commits of a turn.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) added: BTreeSet<ServiceName>,
    pub(super) changed: BTreeSet<ServiceName>,
    pub(super) removed: BTreeSet<ServiceName>,
    /// Good versions built.
    pub(super) built: usize,
    /// Builds, binds or claims that failed.
    pub(super) failed: usize,
    published: bool,
    /// In force afterwards.
    pub(super) generation: u64,
}

impl Outcome {
    /// Whether there is a new generation.
    pub(super) fn published(&self) -> bool {
        self.published
    }
}

/// Which refused versions are tried again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// None: nothing changed for them.
    New,
    /// Those that clashed with something that has changed.
    Clashes,
    All,
}

/// A version that was built or bound in vain.
pub(super) struct Refused {
    wanted: Wanted,
    settings: Arc<ProcessSettings>,
    pub(super) why: Why,
}

pub(super) enum Why {
    Build(String),
    Commit(Refusal),
}

/// A build that has not ended.
struct Pending {
    ticket: u64,
    wanted: Wanted,
    settings: Arc<ProcessSettings>,
}

/// Brings what is wanted into force.
pub(super) struct Reconciler {
    pub(super) force: Force,
    pub(super) workshop: Workshop,
    after_publish: Box<dyn AfterPublish>,
    slots: Slots,
    pending: BTreeMap<ServiceName, Pending>,
    pub(super) refused: BTreeMap<ServiceName, Refused>,
    /// Would open by omission.
    pub(super) opening: BTreeMap<ServiceName, Opening>,
    new_settings: Option<Arc<ProcessSettings>>,
}

impl Reconciler {
    pub(super) fn new(
        force: Force,
        workshop: Workshop,
        after_publish: Box<dyn AfterPublish>,
    ) -> Self {
        Self {
            force,
            workshop,
            after_publish,
            slots: Slots::default(),
            pending: BTreeMap::new(),
            refused: BTreeMap::new(),
            opening: BTreeMap::new(),
            new_settings: None,
        }
    }

    /// To be told once they are published.
    pub(super) fn settings_changed(&mut self, settings: &Arc<ProcessSettings>) {
        self.new_settings = Some(Arc::clone(settings));
    }

    /// Whether a version is being prepared.
    pub(super) fn is_pending(&self, name: &ServiceName) -> bool {
        self.pending.contains_key(name) || self.workshop.is_busy(name)
    }

    /// One reconciliation; builds that take long are left running.
    pub(super) async fn reconcile(&mut self, cause: Cause, desire: &Desire) -> Outcome {
        self.opening.clone_from(&desire.opening);
        let retry = match cause {
            Cause::Ring => Retry::New,
            Cause::Start | Cause::Clock | Cause::Asked { .. } => Retry::All,
        };
        let window = if cause == Cause::Start {
            GATHER_AT_START
        } else {
            GATHER
        };
        let mut outcome = Outcome::default();
        // At start a process that can serve nothing ends; without any service
        // it waits for one.
        let only_if_serving = cause == Cause::Start && desire.any_local;
        self.bring(retry, window, only_if_serving, desire, &mut outcome)
            .await;
        outcome
    }

    /// The end of a build after its turn; others that end now are taken along.
    pub(super) async fn late(&mut self, first: Built, desire: &Desire) -> Outcome {
        let mut outcome = Outcome::default();
        let mut candidates = Vec::new();
        candidates.extend(self.accept(first, &mut outcome));
        while !self.pending.is_empty() {
            match timeout(GATHER_LATE, self.workshop.next()).await {
                Ok(built) => candidates.extend(self.accept(built, &mut outcome)),
                Err(_) => break,
            }
        }
        let none = BTreeSet::new();
        let published = self
            .commit(candidates, &none, false, desire, &mut outcome)
            .await;
        // Its end may also have made room for a newer version of its service.
        let retry = if published {
            Retry::Clashes
        } else {
            Retry::New
        };
        self.bring(retry, GATHER, false, desire, &mut outcome).await;
        outcome
    }

    /// Builds and commits until nothing more comes of it: a version that took
    /// a port away or gave one back may have made room for another.
    async fn bring(
        &mut self,
        mut retry: Retry,
        window: Duration,
        only_if_serving: bool,
        desire: &Desire,
        outcome: &mut Outcome,
    ) {
        loop {
            let (tickets, removed) = self.begin(retry, desire);
            let candidates = self.gather(tickets, window, outcome).await;
            let published = self
                .commit(candidates, &removed, only_if_serving, desire, outcome)
                .await;
            let clashed = self
                .refused
                .values()
                .any(|refused| matches!(refused.why, Why::Commit(Refusal::Clash(_))));
            if !published || !clashed {
                return;
            }
            retry = Retry::Clashes;
        }
    }

    /// Begins the builds that are due. Returns their tickets and what is to go.
    fn begin(&mut self, retry: Retry, desire: &Desire) -> (BTreeSet<u64>, BTreeSet<ServiceName>) {
        let in_force = self.force.wanted();
        let difference = diff(&in_force, &desire.desired);
        let mut due = difference.added;
        due.extend(difference.changed);
        for (name, service) in &self.force.services {
            let outdated = !Arc::ptr_eq(&service.settings, &desire.settings);
            if let (true, Some(wanted)) = (outdated, desire.desired.get(name)) {
                due.insert(name.clone(), wanted.clone());
            }
        }
        self.pending.retain(|name, _| due.contains_key(name));
        self.refused.retain(|name, _| due.contains_key(name));
        let services = &self.force.services;
        self.slots
            .keep(|name| services.contains_key(name) || due.contains_key(name));
        let mut tickets = BTreeSet::new();
        for (name, wanted) in due {
            if self.is_tried(&name, &wanted, retry, desire) {
                continue;
            }
            if !self.workshop.has_room(&name) {
                // What runs is of an older version; its end brings us back here.
                self.pending.remove(&name);
                continue;
            }
            let request = self.request(&name, wanted.clone(), desire);
            let ticket = self.workshop.begin(request);
            tickets.insert(ticket);
            let settings = Arc::clone(&desire.settings);
            let pending = Pending {
                ticket,
                wanted,
                settings,
            };
            self.pending.insert(name, pending);
        }
        (tickets, difference.removed)
    }

    /// Whether this very version is being built, or was refused and nothing
    /// gives it a better chance now.
    fn is_tried(&self, name: &ServiceName, wanted: &Wanted, retry: Retry, desire: &Desire) -> bool {
        if let Some(pending) = self.pending.get(name) {
            return pending.wanted == *wanted && Arc::ptr_eq(&pending.settings, &desire.settings);
        }
        let Some(refused) = self.refused.get(name) else {
            return false;
        };
        let same = refused.wanted == *wanted && Arc::ptr_eq(&refused.settings, &desire.settings);
        let again = match retry {
            Retry::New => false,
            Retry::Clashes => matches!(refused.why, Why::Commit(Refusal::Clash(_))),
            Retry::All => true,
        };
        same && !again
    }

    fn request(&mut self, name: &ServiceName, wanted: Wanted, desire: &Desire) -> BuildRequest {
        let predecessor = self.force.services.get(name);
        let before = predecessor.and_then(|service| service.wanted.spec());
        let fresh = match (before, wanted.spec()) {
            (Some(before), Some(next)) => !upstreams(before).eq(upstreams(next)),
            _ => false,
        };
        BuildRequest {
            slot: self.slots.slot(name, fresh),
            predecessor: predecessor.map(|service| Arc::clone(&service.service)),
            settings: Arc::clone(&desire.settings),
            name: name.clone(),
            wanted,
        }
    }

    /// Waits for these builds, but not longer than the window.
    async fn gather(
        &mut self,
        mut tickets: BTreeSet<u64>,
        window: Duration,
        outcome: &mut Outcome,
    ) -> Vec<Candidate> {
        let deadline = Instant::now() + window;
        let mut candidates = Vec::new();
        while !tickets.is_empty() {
            let Ok(built) = timeout_at(deadline, self.workshop.next()).await else {
                break;
            };
            tickets.remove(&built.ticket);
            candidates.extend(self.accept(built, outcome));
        }
        candidates
    }

    /// A candidate, if the build is still wanted and went well.
    fn accept(&mut self, built: Built, outcome: &mut Outcome) -> Option<Candidate> {
        let Built {
            ticket,
            request,
            result,
        } = built;
        if self.pending.get(&request.name)?.ticket != ticket {
            return None;
        }
        self.pending.remove(&request.name);
        match result {
            Ok(service) => {
                outcome.built += usize::from(request.wanted.spec().is_some());
                Some(Candidate { request, service })
            }
            Err(message) => {
                outcome.failed += 1;
                let stand_in = request.stand_in();
                self.refuse(request, Why::Build(message));
                let request = stand_in?;
                let service = self.workshop.build_now(&request)?;
                Some(Candidate { request, service })
            }
        }
    }

    fn refuse(&mut self, request: BuildRequest, why: Why) {
        let refused = Refused {
            wanted: request.wanted,
            settings: request.settings,
            why,
        };
        self.refused.insert(request.name, refused);
    }

    async fn commit(
        &mut self,
        candidates: Vec<Candidate>,
        removed: &BTreeSet<ServiceName>,
        only_if_serving: bool,
        desire: &Desire,
        outcome: &mut Outcome,
    ) -> bool {
        for candidate in &candidates {
            // What only stands in for a version leaves that one refused.
            let request = &candidate.request;
            if self.refused.get(&request.name).is_none_or(|refused| {
                request.wanted.spec().is_some() || refused.wanted.spec().is_none()
            }) {
                self.refused.remove(&request.name);
            }
        }
        let terms = Terms {
            settings: &desire.settings,
            hash: &desire.hash,
            only_if_serving,
        };
        let committed = self.force.commit(candidates, removed, &terms).await;
        let Committed {
            published,
            added,
            changed,
            removed,
            refused,
        } = committed;
        outcome.failed += refused.len();
        for (request, why) in refused.into_values() {
            self.refuse(request, Why::Commit(why));
        }
        if !published {
            return false;
        }
        outcome.published = true;
        outcome.generation = self.force.in_force();
        if let Some(settings) = self.new_settings.take() {
            self.after_publish.settings(&settings);
        }
        for name in added.iter().chain(&changed) {
            if let Some(service) = self.force.services.get(name) {
                self.after_publish.serving(&service.service);
            }
        }
        for name in &removed {
            self.after_publish.gone(name);
        }
        outcome.added.extend(added);
        outcome.changed.extend(changed);
        outcome.removed.extend(removed);
        true
    }

    /// Whether the version on disk was kept out of force.
    pub(super) fn is_refused(&self, name: &ServiceName) -> bool {
        self.opening.contains_key(name) || self.refused.contains_key(name)
    }
}

/// Everything that decides which upstream pools a service has.
fn upstreams(spec: &ServiceSpec) -> impl Iterator<Item = &UpstreamSpec> {
    let rules = spec.auth.rules.iter();
    std::iter::once(&spec.upstream).chain(rules.filter_map(|rule| rule.upstream.as_ref()))
}
