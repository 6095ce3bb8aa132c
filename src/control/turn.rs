//! One turn of the loop: from a look at the disk to what is in force.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::absence::Keeper;
use super::desire::Desire;
use super::discover::same_files;
use super::follow::AfterPublish;
use super::force::Force;
use super::inputs::Inputs;
use super::observe::{Hung, Observation, Observer};
use super::prepare::{Build, Built, Workshop};
use super::reconcile::Reconciler;
use super::report::{Reporter, View};
use super::sources::Sources;
use super::trigger::{Bell, Trigger};
use crate::config::{Compilation, Compiled, Problem, Tree};
use crate::model::{Origin, ProcessSettings, ServiceName};
use crate::snapshot::StatusProblem;

/// Why a turn is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Start,
    /// The bell.
    Ring,
    /// What failed for reasons outside the files is tried again.
    Clock,
    /// The admin port.
    Asked {
        confirm_removals: bool,
    },
}

/// Everything a turn works on.
pub(super) struct Turn {
    inputs: Inputs,
    observer: Observer,
    /// `None` while watches are made.
    trigger: Option<Trigger>,
    bell: Arc<Bell>,
    keeper: Keeper,
    seen: Option<Arc<Observation>>,
    hung: bool,
    referenced: Arc<BTreeSet<PathBuf>>,
    /// As believed.
    tree: Arc<Tree>,
    leaving: BTreeSet<ServiceName>,
    look_again: Option<Instant>,
    compilation: Compilation,
    /// The compiler failed on the present tree.
    compiler_failed: bool,
    hash: Arc<str>,
    /// The bytes that the versions in force were compiled from.
    sources: Sources,
    reconciler: Reconciler,
    reporter: Reporter,
}

impl Turn {
    pub(super) fn new(
        inputs: Inputs,
        force: Force,
        reporter: Reporter,
        build: Build,
        after_publish: Box<dyn AfterPublish>,
    ) -> Self {
        let trigger = Trigger::new();
        let referenced = Arc::new(inputs.process.referenced.clone());
        Self {
            observer: Observer::new(&inputs.process.settings.services_dir),
            bell: trigger.bell(),
            trigger: Some(trigger),
            inputs,
            keeper: Keeper::default(),
            seen: None,
            hung: false,
            referenced,
            tree: Arc::default(),
            leaving: BTreeSet::new(),
            look_again: None,
            compilation: Compilation::default(),
            compiler_failed: false,
            hash: Arc::from(""),
            sources: Sources::default(),
            reconciler: Reconciler::new(force, Workshop::new(build), after_publish),
            reporter,
        }
    }

    pub(super) fn settings(&self) -> &Arc<ProcessSettings> {
        &self.inputs.process.settings
    }

    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// When a removal may become certain.
    pub(super) fn look_again(&self) -> Option<Instant> {
        self.look_again
    }

    /// In force in every worker.
    pub(super) fn generation(&self) -> u64 {
        self.reconciler.force.in_force()
    }

    /// One turn. Returns whether anything on disk or in force changed.
    pub(super) async fn take(&mut self, cause: Cause) -> bool {
        #[cfg(any(test, feature = "fault-injection"))]
        crate::telemetry::fault::in_thread(&self.settings().services_dir, "control");
        self.reconciler.force.note_late();
        self.reconciler.force.sweep();
        let seen = match self.look().await {
            Ok(seen) => seen,
            Err(Hung) => {
                self.hung = true;
                self.report(false, false);
                return false;
            }
        };
        self.hung = false;
        let before = self.seen.replace(Arc::clone(&seen));
        let differs = before.as_ref().is_none_or(|before| !before.same_as(&seen));
        let process_differs = self.follow_process(before.as_deref(), &seen).await;
        let confirmed = cause
            == Cause::Asked {
                confirm_removals: true,
            };
        let believed = self.believe(&seen, confirmed);
        let tried_in_vain = self.compiler_failed || self.compilation.unanswered;
        let compiling = differs || believed || process_differs || tried_in_vain;
        // New references are looked at for the first time without having changed.
        let compiled = compiling && self.compile().await;
        let published = self.reconcile(cause).await;
        let changed = published || compiled || believed || process_differs;
        if cause == Cause::Start && self.start_errors().is_some() {
            // Whoever started the process is told instead.
            return changed;
        }
        self.watch(&seen).await;
        self.report(changed, published);
        changed
    }

    /// Loads the process's settings again where there is reason to. Returns
    /// whether their files differ, or what they say does.
    async fn follow_process(&mut self, before: Option<&Observation>, seen: &Observation) -> bool {
        let files = &self.inputs.process.referenced;
        let differs = before.is_some_and(|before| before.differs_in(seen, files));
        let in_vain = self.inputs.in_vain;
        if (differs || in_vain) && self.inputs.load_again().await {
            self.reconciler
                .settings_changed(&self.inputs.process.settings);
        }
        differs || in_vain != self.inputs.in_vain
    }

    /// Takes in the end of a build that took longer than its turn.
    pub(super) async fn take_built(&mut self, built: Built) {
        let desire = self.desire();
        let outcome = self.reconciler.late(built, &desire).await;
        self.remember_sources();
        self.reporter.note(&outcome);
        self.report(outcome.published(), outcome.published());
    }

    /// The next build that ends.
    pub(super) async fn next_built(&mut self) -> Built {
        self.reconciler.workshop.next().await
    }

    /// What keeps the process from starting, if anything does.
    pub(super) fn start_errors(&self) -> Option<Vec<Problem>> {
        let locals = self.compilation.services.values();
        let any_local = locals
            .into_iter()
            .any(|compiled| matches!(compiled, Compiled::Local(_)));
        let problems = self.problems();
        // Without a file it is the environment or a flag: a service asked for
        // by a name that is not there.
        let asked_wrongly = problems.iter().any(|problem| {
            problem.is_error()
                && problem.service.is_none()
                && problem.origin.file.as_os_str().is_empty()
        });
        let nothing_served = any_local && !self.reconciler.force.is_serving();
        (asked_wrongly || nothing_served).then_some(problems)
    }

    /// Every problem there is.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.inputs.problems.clone();
        problems.extend(self.compilation.problems.iter().cloned());
        problems.extend(self.reconciler.problems(&self.compilation, &self.tree));
        if self.hung {
            let message = "the services folder does not answer; nothing is changed until it does";
            problems.push(Problem::error(Origin::file(&self.tree.root), message));
        }
        if self.compiler_failed {
            let message = "compiling failed inside the sidecar; nothing is changed";
            problems.push(Problem::error(Origin::file(&self.tree.root), message));
        }
        problems
    }

    /// The same as they are shown.
    pub(super) fn problems_shown(&self) -> Vec<StatusProblem> {
        self.problems().iter().map(super::report::shown).collect()
    }

    /// Services whose removal is not certain yet.
    pub(super) fn leaving_shown(&self) -> Vec<String> {
        self.leaving.iter().map(ToString::to_string).collect()
    }

    /// Looks; when something differs, until it holds still.
    async fn look(&mut self) -> Result<Arc<Observation>, Hung> {
        let seen = self.observer.look(&self.referenced).await?;
        if let Some(before) = &self.seen
            && before.same_as(&seen)
        {
            return Ok(seen);
        }
        // At start nothing rang: mostly the files have been there for long.
        if self.seen.is_none() && self.observer.has_rested(&seen).await {
            return Ok(seen);
        }
        let reload = self.inputs.process.settings.reload.clone();
        let settled = self
            .observer
            .settle(seen, &self.referenced, &reload)
            .await?;
        if !settled.unsettled.is_empty() {
            self.bell.ring();
        }
        Ok(settled)
    }

    /// Returns whether the tree to believe in is another.
    fn believe(&mut self, seen: &Observation, confirmed: bool) -> bool {
        let now = Instant::now();
        let kept = self
            .keeper
            .review(&seen.scan, &seen.unsettled, now, confirmed);
        let same = same_files(&self.tree.files, &kept.tree.files)
            && self.tree.problems == kept.tree.problems;
        self.leaving = kept.leaving;
        self.look_again = kept.look_again;
        if !same || self.seen.is_none() {
            self.tree = Arc::new(kept.tree);
        }
        !same
    }

    /// Returns whether any service was compiled anew.
    async fn compile(&mut self) -> bool {
        let compiled = self.inputs.compile(Arc::clone(&self.tree)).await;
        self.compiler_failed = compiled.is_none();
        let Some((compilation, hash)) = compiled else {
            self.reporter.panicked("config");
            return false;
        };
        let any = compilation.compiled > 0;
        self.reporter.compiled(compilation.compiled);
        let settings = Arc::clone(self.settings());
        self.reporter
            .note_services(&settings.services_dir, compilation.services.len());
        self.hash = hash;
        self.compilation = compilation;
        let referenced = self.inputs.referenced(&self.compilation);
        if *self.referenced != referenced {
            self.referenced = Arc::new(referenced);
            // They are not watched yet, and may have changed since they were read.
            self.bell.ring();
        }
        any
    }

    async fn reconcile(&mut self, cause: Cause) -> bool {
        let desire = self.desire();
        let outcome = self.reconciler.reconcile(cause, &desire).await;
        self.remember_sources();
        self.reporter.note(&outcome);
        outcome.published()
    }

    fn desire(&self) -> Desire {
        let force = &self.reconciler.force;
        let cut = self.sources.cut(&self.tree);
        Desire::of(force, self.settings(), &self.hash, &self.compilation, &cut)
    }

    fn remember_sources(&mut self) {
        let force = &self.reconciler.force.services;
        self.sources
            .remember(&self.tree, &self.compilation, |name| {
                force.get(name).and_then(|service| service.wanted.spec())
            });
    }

    async fn watch(&mut self, seen: &Arc<Observation>) {
        // Lost when a turn was given up half-way.
        let trigger = self.trigger.take();
        let mut trigger = trigger.unwrap_or_else(|| Trigger::on(self.bell()));
        let folders = seen.folders();
        let names: BTreeSet<OsString> = self
            .referenced
            .iter()
            .filter_map(|path| path.file_name().map(ToOwned::to_owned))
            .collect();
        let work = spawn_blocking(move || {
            let added = trigger.watch(&folders, names);
            (trigger, added)
        });
        // An error: the watcher's thread is gone, and the next turn makes another.
        if let Ok((trigger, added)) = work.await {
            self.trigger = Some(trigger);
            if added {
                self.bell.ring();
            }
        }
    }

    fn report(&mut self, changed: bool, published: bool) {
        let problems = self.problems();
        let view = View {
            problems: &problems,
            compilation: &self.compilation,
            leaving: &self.leaving,
            hash: &self.hash,
            restart_needed: &self.inputs.restart_needed,
            reconciler: &self.reconciler,
            changed,
            published,
        };
        self.reporter.report(&view);
    }
}
