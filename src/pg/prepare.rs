//! What is done to a database before the pool of a service opens.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::failure::ConnectFailure;
use super::migrate::lock::LockError;
use super::migrate::{self, Event, Job, MigrateError, Outcome};
use super::provision::{
    Outcome as ProvisionOutcome, ProvisionError, Source, Wanted, can_log_in, provision,
    refuse_privileges, role_login,
};
use super::session::SessionError;
use crate::drain::DrainWatcher;
use crate::model::{DatabaseSpec, Provision, ServiceName};
use crate::secret::Secret;
use crate::telemetry::metrics::MigrationMetrics;

/// What is to be prepared.
pub struct Preparation<'a> {
    pub service: &'a ServiceName,
    /// Holds the administrative login (`user`, `password`).
    pub spec: &'a DatabaseSpec,
    /// Told what is being done.
    pub progress: &'a Progress,
    /// Counts what is run.
    pub metrics: &'a MigrationMetrics,
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
    /// Whether it is worth another look now and then all the same: somebody may
    /// resolve it in the database.
    pub look_again: bool,
    /// Why there was no session, if that is what failed.
    pub cause: Option<ConnectFailure>,
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
    let prepared = steps(&preparation).await;
    preparation.progress.step("");
    prepared.map_err(|error| PrepareFailure {
        message: error.to_string(),
        retry: error.is_transient(),
        look_again: matches!(&error, PrepareError::Migrate(error) if error.is_resolvable()),
        cause: error.session().and_then(SessionError::connect_failure),
    })
}

async fn steps(preparation: &Preparation<'_>) -> Result<Prepared, PrepareError> {
    let Preparation {
        service,
        spec,
        progress,
        metrics,
        drain,
    } = preparation;
    progress.step("provisioning");
    let waiting = |holder: &str| {
        progress.step(format!("provisioning, waiting for {holder}"));
        tracing::info!(%service, holder, "waiting for another process that provisions");
    };
    let access = access(service, spec, &waiting).await?;
    access.log(service);
    if !spec.migrations {
        let login = access.login;
        let applied = Vec::new();
        return Ok(Prepared { login, applied });
    }
    progress.step("migrations");
    let report = |event: Event<'_>| report(service, progress, event);
    let outcome = migrate::up(&Job {
        service,
        spec,
        login: &access.login,
        drain: drain.clone(),
        report: &report,
    })
    .await;
    let outcome = outcome.inspect_err(|error| {
        if !error.is_transient() {
            metrics.failed();
        }
    })?;
    let Outcome {
        applied,
        ran,
        ahead,
        missing,
    } = outcome;
    if !ahead.is_empty() {
        tracing::warn!(%service, versions = ?ahead, "the database has newer migrations than this version");
    }
    if !missing.is_empty() {
        tracing::warn!(%service, versions = ?missing, "applied migrations have no files any more");
    }
    if ran > 0 {
        tracing::info!(%service, ran, "migrated");
    }
    metrics.succeeded(applied.len(), ahead.len(), ran);
    let login = access.login;
    Ok(Prepared { login, applied })
}

fn report(service: &ServiceName, progress: &Progress, event: Event<'_>) {
    match event {
        Event::Waits { holder } => {
            progress.step(format!("migrations, waiting for {holder}"));
            tracing::info!(%service, holder, "waiting for another process that migrates");
        }
        Event::Begins { name, number, of } => {
            progress.step(format!("migration {name} ({number} of {of})"));
            tracing::info!(%service, name, number, of, "a migration begins");
        }
        Event::Done { name, millis } => {
            tracing::info!(%service, name, millis, "a migration is applied");
        }
    }
}

/// How a service gets into its database.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) login: Login,
    /// Statements that provisioning took.
    pub(super) changes: usize,
    /// What somebody with more rights should run.
    pub(super) missing: Option<String>,
    /// The role's password comes from the administrative one.
    pub(super) derived_from_admin: bool,
}

impl Access {
    fn log(&self, service: &ServiceName) {
        if self.changes > 0 {
            let role = &*self.login.user;
            tracing::info!(%service, role, statements = self.changes, "provisioned");
        }
        if let Some(sql) = &self.missing {
            tracing::warn!(
                %service, user = &*self.login.user, sql,
                "the service has no role of its own: the login may not create roles"
            );
        }
        if self.derived_from_admin {
            tracing::warn!(
                %service,
                "the role's password is derived from the administrative one; set `roleSecret`"
            );
        }
    }
}

/// Provisions, where that is asked for and possible, and says who logs in.
///
/// # Errors
/// [`PrepareError`].
pub(super) async fn access(
    service: &ServiceName,
    spec: &DatabaseSpec,
    waiting: &(dyn Fn(&str) + Send + Sync),
) -> Result<Access, PrepareError> {
    let (own, source) = role_login(spec);
    let as_it_is = |missing| Access {
        login: Login {
            user: Arc::clone(&spec.user),
            password: spec.password.clone(),
        },
        changes: 0,
        missing,
        derived_from_admin: false,
    };
    // A password for the role is there on purpose: somebody else provisions.
    let is_known = matches!(source, Source::Written | Source::RoleSecret);
    let wanted = Wanted::new(service, spec);
    if spec.user == spec.role && spec.provision != Provision::Never {
        refuse_privileges(&wanted).await?;
    }
    if spec.user == spec.role || (spec.provision == Provision::Never && is_known) {
        return Ok(Access {
            login: own,
            ..as_it_is(None)
        });
    }
    if spec.provision == Provision::Never {
        return Ok(as_it_is(None));
    }
    match provision(&wanted, waiting).await? {
        ProvisionOutcome::Done { changes } => Ok(Access {
            login: own,
            changes,
            missing: None,
            derived_from_admin: source == Source::AdminPassword,
        }),
        ProvisionOutcome::MayNot { missing } if spec.provision == Provision::Always => {
            Err(PrepareError::MayNot {
                user: spec.user.to_string(),
                sql: missing.unwrap_or_default(),
            })
        }
        ProvisionOutcome::MayNot { missing } => {
            if is_known && can_log_in(&wanted).await? {
                return Ok(Access {
                    login: own,
                    ..as_it_is(None)
                });
            }
            Ok(as_it_is(missing))
        }
    }
}

/// Who will log in once all is well, without asking the server.
pub fn expected_login(spec: &DatabaseSpec) -> Login {
    let (own, source) = role_login(spec);
    let is_known = matches!(source, Source::Written | Source::RoleSecret);
    if is_known || spec.provision != Provision::Never {
        return own;
    }
    Login {
        user: Arc::clone(&spec.user),
        password: spec.password.clone(),
    }
}

/// Why a database is not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("`{user}` may not create roles. Somebody who may must run:\n{sql}")]
    MayNot { user: String, sql: String },
}

impl PrepareError {
    /// Whether trying again may help. What a server refuses can be mended there
    /// without a file being touched; only a migration's own error cannot.
    fn is_transient(&self) -> bool {
        match self {
            Self::Migrate(error) => error.is_transient(),
            Self::Provision(_) | Self::Session(_) | Self::MayNot { .. } => true,
        }
    }

    /// Whether there was nobody to talk to.
    pub(super) fn is_unreachable(&self) -> bool {
        let is_held = matches!(
            self,
            Self::Migrate(MigrateError::Lock(LockError::Held { .. }))
                | Self::Provision(ProvisionError::Lock(LockError::Held { .. }))
        );
        let session = self.session();
        is_held || session.is_some_and(|error| !matches!(error, SessionError::Sql(_)))
    }

    /// What went wrong with a session, if that is what it was.
    fn session(&self) -> Option<&SessionError> {
        match self {
            Self::Migrate(error) => error.session(),
            Self::Provision(
                ProvisionError::Session(error) | ProvisionError::Lock(LockError::Session(error)),
            )
            | Self::Session(error) => Some(error),
            Self::Provision(_) | Self::MayNot { .. } => None,
        }
    }
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
