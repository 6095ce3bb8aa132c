//! Migrations: files of a service, run once each in its own schema by its own
//! role (POSTGRES.md §3).
//!
//! ```text
//! files ─▶ plan ◀─ rows        compare; refuse what cannot be trusted
//!           │
//!         lock (polled)        then compare again: another may have been faster
//!           │
//!         run                  each file and its row in one transaction
//! ```

mod error;
mod files;
mod history;
pub(super) mod lock;
mod plan;
mod run;
mod script;
mod table;

use std::path::Path;

use tokio_postgres::types::Type;

pub(super) use error::MigrateError;
pub use history::Resolution;
pub(super) use history::{baseline, resolve};
pub(super) use table::TABLE;

use super::names::{migration_lock, search_path};
use super::session::{Session, SessionError, Target};
use super::{AppliedMigration, Login};
use crate::drain::DrainWatcher;
use crate::model::{DatabaseSpec, ServiceName};
use files::MigrationFile;
use plan::Plan;
use table::Row;

/// A migration that does not get its lock is tried again rather than have
/// everybody queue behind it.
const LOCK_TIMEOUT: &str = "5s";

/// The migrations of one service and who runs them.
pub(super) struct Job<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) spec: &'a DatabaseSpec,
    /// The service's own role.
    pub(super) login: &'a Login,
    pub(super) drain: DrainWatcher,
    /// Told what is being done.
    pub(super) report: &'a (dyn Fn(Event<'_>) + Send + Sync),
}

/// What is being done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// Another process migrates the same schema.
    Waits {
        holder: &'a str,
    },
    Begins {
        name: &'a str,
        number: usize,
        of: usize,
    },
    Done {
        name: &'a str,
        millis: u64,
    },
}

/// What a schema has now.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// In order of version.
    pub(super) applied: Vec<AppliedMigration>,
    /// Run by us, just now.
    pub(super) ran: usize,
    /// Newer than every file here.
    pub(super) ahead: Vec<i64>,
    /// Applied once; their files are gone.
    pub(super) missing: Vec<i64>,
}

/// One version in a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub version: i64,
    /// Of the file, as it was called when it was applied.
    pub name: String,
    /// `applied`, `pending`, `ahead`, or why nothing is run.
    pub state: String,
    /// Whether it keeps the service from being ready.
    pub is_problem: bool,
}

impl Job<'_> {
    async fn open(&self) -> Result<Session, MigrateError> {
        let path = search_path(self.spec);
        let session = Session::open(&Target {
            service: self.service,
            spec: self.spec,
            login: self.login,
            database: &self.spec.database,
            settings: &[
                ("search_path", path.as_str()),
                ("statement_timeout", "0"),
                ("idle_in_transaction_session_timeout", "0"),
                ("lock_timeout", LOCK_TIMEOUT),
                ("standard_conforming_strings", "on"),
                ("client_encoding", "UTF8"),
            ],
        })
        .await?;
        run::notice_lost_clients(&session).await?;
        self.schema_exists(&session).await?;
        Ok(session)
    }

    async fn schema_exists(&self, session: &Session) -> Result<(), MigrateError> {
        let query = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        let schema: &str = &self.spec.schema;
        let rows = session
            .client
            .query_typed(query, &[(&schema, Type::TEXT)])
            .await;
        let rows = rows.map_err(SessionError::from)?;
        if rows.first().is_some_and(|row| row.get(0)) {
            return Ok(());
        }
        Err(MigrateError::NoSchema {
            schema: self.spec.schema.to_string(),
            database: self.spec.database.to_string(),
        })
    }

    async fn files(&self) -> Result<Vec<MigrationFile>, MigrateError> {
        let folder = self.spec.migrations_dir.clone();
        let read = tokio::task::spawn_blocking(move || files::read(&folder)).await;
        // The runtime ends.
        Ok(read.map_err(|_| MigrateError::Interrupted { name: None })??)
    }

    async fn locked(&self, session: &Session) -> Result<i64, MigrateError> {
        let key = migration_lock(self.spec);
        let waiting = |holder: &str| (self.report)(Event::Waits { holder });
        lock::take(session, key, waiting).await?;
        Ok(key)
    }
}

/// Runs what has not been run.
///
/// # Errors
/// [`MigrateError`]; a file with a transaction left nothing then.
pub(super) async fn up(job: &Job<'_>) -> Result<Outcome, MigrateError> {
    let files = job.files().await?;
    let session = job.open().await?;
    let rows = table::rows(&session, job.spec).await?;
    let plan = plan::compare(&files, &rows);
    if plan.pending.is_empty() && plan.refusals.is_empty() {
        return Ok(outcome(&plan, &rows, 0));
    }
    // What looks unfinished may be under way: only with the lock it is not.
    let key = job.locked(&session).await?;
    // Another may have run them while we waited.
    let rows = table::rows(&session, job.spec).await?;
    let plan = compare(&files, &rows)?;
    let ran = plan.pending.len();
    if ran > 0 {
        let pending: Vec<&MigrationFile> = plan
            .pending
            .iter()
            .filter_map(|index| files.get(*index))
            .collect();
        table::create(&session, job.spec).await?;
        run::all(job, &session, key, &pending).await?;
    }
    let rows = table::rows(&session, job.spec).await?;
    lock::release(&session, key).await?;
    Ok(outcome(&plan, &rows, ran))
}

/// Names and checksums of a folder's files, in order; why not, as text. Blocks.
///
/// # Errors
/// What is wrong with the files.
pub(super) fn read_folder(folder: &Path) -> Result<Vec<(String, [u8; 32])>, String> {
    let files = files::read(folder).map_err(|error| error.to_string())?;
    Ok(files
        .into_iter()
        .map(|file| (file.name, file.checksum))
        .collect())
}

/// What has been run and what has not; changes nothing.
///
/// # Errors
/// [`MigrateError`], but not for files that would be refused.
pub(super) async fn status(job: &Job<'_>) -> Result<Vec<Line>, MigrateError> {
    let files = job.files().await?;
    let session = job.open().await?;
    let rows = table::rows(&session, job.spec).await?;
    Ok(history::lines(&files, &rows))
}

fn compare(files: &[MigrationFile], rows: &[Row]) -> Result<Plan, MigrateError> {
    let plan = plan::compare(files, rows);
    if plan.refusals.is_empty() {
        Ok(plan)
    } else {
        Err(MigrateError::Refused(plan.refusals))
    }
}

fn outcome(plan: &Plan, rows: &[Row], ran: usize) -> Outcome {
    let applied = rows.iter().filter(|row| row.success);
    let applied = applied.map(|row| AppliedMigration {
        version: row.version.unsigned_abs(),
        name: row.name.clone(),
    });
    Outcome {
        applied: applied.collect(),
        ran,
        ahead: plan.ahead.clone(),
        missing: plan.missing.clone(),
    }
}
