//! What the admin port asks of the control loop.

use tokio::sync::oneshot;

use super::status::StatusProblem;

/// Sent over a bounded channel.
#[derive(Debug)]
pub enum AdminCommand {
    /// `POST /reload`: look at the files now, also at what failed before.
    Reload {
        /// `?confirm=removals`: remove what is gone from the tree without
        /// waiting, however much it is. What could not be seen is never removed.
        confirm_removals: bool,
        /// A caller that went away is no error.
        done: oneshot::Sender<ReloadOutcome>,
    },
    /// `POST /drain`; handed on to whoever ends the process.
    Drain,
    /// `POST /quitquitquit`; handed on likewise.
    Quit,
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// In force afterwards.
    pub generation: u64,
    /// Whether this reload made it.
    pub changed: bool,
    /// Every problem there is now, of the tree and of all services.
    pub problems: Vec<StatusProblem>,
    /// Services gone from the tree that still wait for the removal to be
    /// certain or confirmed, as `domain/name`.
    pub leaving: Vec<String>,
}
