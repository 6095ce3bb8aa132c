//! From files to what is in force: the one loop that changes anything.
//!
//! ```text
//! trigger, clock ─▶ observe ─▶ absence ─▶ compile ─▶ reconcile ─▶ force ─▶ workers
//!   (a bell)      (discover,  (what to   (config)   (omission,   (claims,
//!                  settled)    believe)              prepare)     publish)
//! ```
//!
//! A turn takes no input but the disk and is idempotent; start-up is its first.
//! Every service is prepared and refused on its own, and a refusal leaves what
//! was in force as it was.

mod absence;
mod claims;
mod desire;
mod diff;
mod discover;
mod exits;
mod fingerprint;
#[cfg(test)]
mod fixture;
mod follow;
mod force;
mod inputs;
mod lost_settings;
mod observe;
mod omission;
mod prepare;
mod problems;
mod read;
mod reconcile;
mod report;
mod restart;
mod slots;
mod sources;
mod trigger;
mod turn;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

pub use follow::AfterPublish;

use crate::config::{Environment, LoadedProcess, Problem, ProcessFlags, Tree};
use crate::net::WorkerCommand;
use crate::snapshot::{AdminCommand, Publisher, ReloadOutcome, StatusBoard};
use crate::telemetry::metrics::Metrics;
use prepare::{Build, Built};
use turn::Cause;

/// Longest time the bell is not heard after rings without a reason.
const MAX_DEAF: Duration = Duration::from_millis(500);

/// Looks at a services folder once, as the loop does. Blocks on the file system.
pub fn discover(root: &Path) -> Tree {
    // Without a working directory paths are shown absolute.
    let working_dir = std::env::current_dir().unwrap_or_default();
    discover::scan(root, &working_dir, None).tree
}

/// What the loop is made of.
pub struct Parts {
    pub flags: ProcessFlags,
    pub environment: Environment,
    /// As loaded for the start.
    pub process: LoadedProcess,
    pub publisher: Publisher,
    /// One for each worker; their number is that of the sockets of a port.
    pub workers: Vec<mpsc::Sender<WorkerCommand>>,
    pub status: StatusBoard,
    pub metrics: Metrics,
    /// From the admin port.
    pub commands: mpsc::Receiver<AdminCommand>,
    /// To whoever ends the process; requests that find it full are repeats.
    pub lifecycle: mpsc::Sender<LifecycleRequest>,
    pub after_publish: Box<dyn AfterPublish>,
}

/// What the admin port asks of the process rather than of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleRequest {
    Drain,
    Quit,
}

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Every local service has errors, or a service was asked for that is not
    /// in the tree. All problems there are.
    #[error("no service can be served")]
    Problems(Vec<Problem>),
}

/// The control loop. Whoever owns it runs [`Control::first_turn`], then
/// [`Control::run`]; after a panic `run` may be called again.
pub struct Control {
    turn: turn::Turn,
    commands: mpsc::Receiver<AdminCommand>,
    lifecycle: mpsc::Sender<LifecycleRequest>,
    last_look: Instant,
    /// Until when rings are not heard, and for how long at a time.
    deaf_until: Instant,
    deaf: Duration,
}

enum Wake {
    Ring,
    Clock,
    Command(AdminCommand),
    Built(Box<Built>),
}

impl Control {
    /// Nothing is read or bound yet.
    pub fn new(parts: Parts) -> Self {
        let metrics = parts.metrics.clone();
        let build = move |request: &_| prepare::build_service(request, &metrics);
        Self::with_build(parts, Arc::new(build))
    }

    fn with_build(parts: Parts, build: Build) -> Self {
        let now = Instant::now();
        let Parts {
            flags,
            environment,
            process,
            publisher,
            workers,
            status,
            metrics,
            commands,
            lifecycle,
            after_publish,
        } = parts;
        let inputs = inputs::Inputs::new(flags, environment, process);
        let force = force::Force::new(publisher, workers);
        let reporter = report::Reporter::new(status, metrics);
        Self {
            turn: turn::Turn::new(inputs, force, reporter, build, after_publish),
            commands,
            lifecycle,
            last_look: now,
            deaf_until: now,
            deaf: Duration::ZERO,
        }
    }

    /// Reads, builds, binds and publishes for the first time.
    ///
    /// # Errors
    /// [`StartError`] when nothing can be served; nothing was published then.
    pub async fn first_turn(&mut self) -> Result<(), StartError> {
        self.turn.take(Cause::Start).await;
        self.last_look = Instant::now();
        self.turn
            .start_errors()
            .map_or(Ok(()), |problems| Err(StartError::Problems(problems)))
    }

    /// Follows the files until dropped.
    pub async fn run(&mut self) {
        loop {
            match self.wake().await {
                Wake::Ring => {
                    let changed = self.look(Cause::Ring).await;
                    self.listen_less(changed);
                }
                Wake::Clock => {
                    self.look(Cause::Clock).await;
                }
                Wake::Built(built) => self.turn.take_built(*built).await,
                Wake::Command(command) => self.obey(command).await,
            }
        }
    }

    /// Answers the admin port while the process ends: nothing is changed any
    /// more. Never returns.
    pub async fn refuse_changes(&mut self) {
        while let Some(command) = self.commands.recv().await {
            // A reload's caller sees its sender dropped; an end is under way.
            drop(command);
        }
        std::future::pending().await
    }

    async fn wake(&mut self) -> Wake {
        let poll = self.last_look + self.turn.settings().reload.poll;
        let next = self.turn.look_again().map_or(poll, |at| at.min(poll));
        let bell = self.turn.bell();
        let deaf_until = self.deaf_until;
        let ring = async move {
            tokio::time::sleep_until(deaf_until).await;
            bell.rung().await;
        };
        tokio::select! {
            Some(command) = self.commands.recv() => Wake::Command(command),
            built = self.turn.next_built() => Wake::Built(Box::new(built)),
            () = ring => Wake::Ring,
            () = tokio::time::sleep_until(next) => Wake::Clock,
        }
    }

    async fn look(&mut self, cause: Cause) -> bool {
        let changed = self.turn.take(cause).await;
        self.last_look = Instant::now();
        changed
    }

    /// Rings without a reason (an app writes beside its file) are heard less
    /// and less often, but never less than twice a second.
    fn listen_less(&mut self, changed: bool) {
        let quiet = self.turn.settings().reload.quiet;
        self.deaf = if changed {
            Duration::ZERO
        } else {
            (self.deaf * 2).clamp(quiet.min(MAX_DEAF), MAX_DEAF)
        };
        self.deaf_until = Instant::now() + self.deaf;
    }

    async fn obey(&mut self, command: AdminCommand) {
        let request = match command {
            AdminCommand::Reload {
                confirm_removals,
                done,
            } => {
                let before = self.turn.generation();
                self.look(Cause::Asked { confirm_removals }).await;
                let outcome = self.outcome(before);
                // The caller may have gone away.
                let _ = done.send(outcome);
                return;
            }
            AdminCommand::Drain => LifecycleRequest::Drain,
            AdminCommand::Quit => LifecycleRequest::Quit,
        };
        // Full: the same was asked before and is being done.
        let _ = self.lifecycle.try_send(request);
    }

    fn outcome(&self, before: u64) -> ReloadOutcome {
        let generation = self.turn.generation();
        ReloadOutcome {
            generation,
            changed: generation != before,
            problems: self.turn.problems_shown(),
            leaving: self.turn.leaving_shown(),
        }
    }
}

#[cfg(test)]
mod tests;
