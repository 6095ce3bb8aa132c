//! Telling people: the status board, metrics, and one log line per change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::claims::Wanted;
use super::reconcile::{Outcome, Reconciler};
use crate::config::{Compilation, Compiled, LocalService, Problem, Tree};
use crate::model::ServiceName;
use crate::snapshot::{ServiceStatus, ServingState, Status, StatusBoard, StatusProblem};
use crate::telemetry::metrics::{Metrics, ReloadResult, ServiceMetrics};

/// Names of services in one log line.
const MAX_NAMES: usize = 20;

/// What there is to report at the end of a turn.
pub(super) struct View<'a> {
    pub(super) problems: &'a [Problem],
    pub(super) compilation: &'a Compilation,
    pub(super) leaving: &'a BTreeSet<ServiceName>,
    pub(super) hash: &'a Arc<str>,
    pub(super) restart_needed: &'a [&'static str],
    pub(super) reconciler: &'a Reconciler,
    /// Whether anything on disk or in force changed.
    pub(super) changed: bool,
    /// Whether there is a new generation.
    pub(super) published: bool,
}

/// Reports, and remembers what was said.
pub(super) struct Reporter {
    status: StatusBoard,
    metrics: Metrics,
    /// Problems that were logged and are still there.
    said: BTreeSet<String>,
    restart_said: Vec<&'static str>,
    said_empty: bool,
    last_success: Option<SystemTime>,
    /// Failures of builds, binds and claims since the last report.
    failed: usize,
    /// Kept so that a service without a good version has its series.
    services: BTreeMap<ServiceName, Arc<ServiceMetrics>>,
}

impl Reporter {
    pub(super) fn new(status: StatusBoard, metrics: Metrics) -> Self {
        Self {
            status,
            metrics,
            said: BTreeSet::new(),
            restart_said: Vec::new(),
            said_empty: false,
            last_success: None,
            failed: 0,
            services: BTreeMap::new(),
        }
    }

    /// Service files compiled.
    pub(super) fn compiled(&self, count: usize) {
        self.metrics.services_compiled(count as u64);
    }

    /// A task of the loop panicked.
    pub(super) fn panicked(&self, task: &'static str) {
        self.metrics.task_panic(task);
    }

    /// Says once when there is nothing to serve.
    pub(super) fn note_services(&mut self, root: &Path, count: usize) {
        if count == 0 && !self.said_empty {
            let hint = Tree::LAYOUT;
            tracing::warn!(path = %root.display(), hint, "no service found");
        }
        self.said_empty = count == 0;
    }

    /// One line for what came into force.
    pub(super) fn note(&mut self, outcome: &Outcome) {
        self.failed += outcome.failed;
        self.metrics.services_built(outcome.built as u64);
        if outcome.published() {
            tracing::info!(
                generation = outcome.generation,
                added = listed(&outcome.added),
                changed = listed(&outcome.changed),
                removed = listed(&outcome.removed),
                "configuration in force"
            );
        }
    }

    /// Brings board, metrics and log up to date.
    pub(super) fn report(&mut self, view: &View<'_>) {
        let errors = view.problems.iter().filter(|problem| problem.is_error());
        let texts: Vec<String> = errors.map(ToString::to_string).collect();
        if view.changed {
            let any_new = texts.iter().any(|text| !self.said.contains(text));
            let result = if self.failed > 0 {
                ReloadResult::Failed
            } else if any_new || (!view.published && !texts.is_empty()) {
                ReloadResult::Refused
            } else {
                ReloadResult::Applied
            };
            self.metrics.config_reload(result);
            if texts.is_empty() {
                let now = SystemTime::now();
                self.last_success = Some(now);
                self.metrics.config_success(now);
            }
        }
        self.failed = 0;
        self.log_problems(view);
        let force = &view.reconciler.force;
        self.metrics.config_in_force(force.in_force(), view.hash);
        self.metrics
            .config_generations_alive(force.generations_alive());
        let status = self.status(view);
        self.mark_stale(&status);
        self.status.replace(status);
    }

    fn log_problems(&mut self, view: &View<'_>) {
        let mut present = BTreeSet::new();
        for problem in view.problems {
            let text = problem.to_string();
            if present.insert(text.clone()) && !self.said.contains(&text) {
                let place = problem.origin.to_string();
                let service = problem.service.as_ref().map(ServiceName::key);
                let hint = problem.hint.as_deref();
                let message = problem.message.as_str();
                if problem.is_error() {
                    tracing::error!(service, place, problem = message, hint, "bad configuration");
                } else {
                    tracing::warn!(service, place, problem = message, hint, "configuration");
                }
            }
        }
        let gone = self.said.difference(&present).count();
        if gone > 0 {
            tracing::info!(resolved = gone, left = present.len(), "problems resolved");
        }
        self.said = present;
        if self.restart_said != view.restart_needed {
            for key in view.restart_needed {
                tracing::warn!(key, "restart needed");
            }
            self.restart_said = view.restart_needed.to_vec();
        }
    }

    fn status(&self, view: &View<'_>) -> Status {
        let mut by_service: BTreeMap<&ServiceName, Vec<StatusProblem>> = BTreeMap::new();
        let mut problems = Vec::new();
        for problem in view.problems {
            match &problem.service {
                Some(name) if view.compilation.services.contains_key(name) => {
                    by_service.entry(name).or_default().push(shown(problem));
                }
                _ => problems.push(shown(problem)),
            }
        }
        let mut services = BTreeMap::new();
        let mut peers = Vec::new();
        for (name, compiled) in &view.compilation.services {
            match compiled {
                Compiled::Peer(_) => {
                    problems.extend(by_service.remove(name).unwrap_or_default());
                    peers.push(name.clone());
                }
                Compiled::Local(local) => {
                    let problems = by_service.remove(name).unwrap_or_default();
                    let status = service_status(name, local, problems, view);
                    services.insert(name.clone(), Arc::new(status));
                }
            }
        }
        Status {
            generation: view.reconciler.force.in_force(),
            hash: Arc::clone(view.hash),
            last_success: self.last_success,
            services,
            peers,
            problems,
            restart_needed: view.restart_needed.to_vec(),
        }
    }

    fn mark_stale(&mut self, status: &Status) {
        self.services
            .retain(|name, _| status.services.contains_key(name));
        for (name, service) in &status.services {
            let metrics = self
                .services
                .entry(name.clone())
                .or_insert_with(|| self.metrics.service(name));
            let stale = matches!(service.state, ServingState::Stale | ServingState::Invalid);
            metrics.set_stale(stale);
        }
    }
}

fn service_status(
    name: &ServiceName,
    local: &LocalService,
    problems: Vec<StatusProblem>,
    view: &View<'_>,
) -> ServiceStatus {
    let in_force = view.reconciler.force.services.get(name);
    let good = in_force.and_then(|service| service.wanted.spec());
    let errors = problems.iter().any(|problem| problem.error);
    let behind = errors
        || view.reconciler.is_refused(name)
        || view.reconciler.is_pending(name)
        || local.spec.as_ref().ok() != good;
    let state = match good {
        _ if view.leaving.contains(name) => ServingState::Leaving,
        Some(_) if behind => ServingState::Stale,
        Some(_) => ServingState::Serving,
        None if !errors && view.reconciler.is_pending(name) => ServingState::Preparing,
        None => ServingState::Invalid,
    };
    let port = match (in_force.map(|service| &service.wanted), &local.spec) {
        (Some(Wanted::Ready(spec)), _) | (_, Ok(spec)) => Some(spec.port),
        (_, Err(invalid)) => invalid.port,
    };
    ServiceStatus {
        state,
        generation: good.and(in_force).map(|service| service.generation),
        port,
        address: in_force.map(|service| service.listener.address),
        problems,
        effective: Arc::clone(&local.effective),
    }
}

/// The names, or the first of them.
fn listed(names: &BTreeSet<ServiceName>) -> String {
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(ServiceName::key).collect();
    let mut text = shown.join(" ");
    if names.len() > MAX_NAMES {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMES));
    }
    text
}

/// A problem as the board shows it.
pub(super) fn shown(problem: &Problem) -> StatusProblem {
    StatusProblem {
        error: problem.is_error(),
        service: problem.service.clone(),
        origin: problem.origin.clone(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}
