//! What a person does to the bookkeeping: look, adopt, resolve.

use super::files::MigrationFile;
use super::plan;
use super::table::{self, Row};
use super::{Job, Line, MigrateError, lock};

/// What is to become of a file that was not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// What was missing has been done by hand.
    Applied,
    /// What was left has been removed: run it again.
    Retry,
}

/// A line for every version of either side, in order.
pub(super) fn lines(files: &[MigrationFile], rows: &[Row]) -> Vec<Line> {
    let plan = plan::compare(files, rows);
    let mut lines: Vec<Line> = rows
        .iter()
        .map(|row| (row.version, &row.name))
        .chain(files.iter().map(|file| (file.version, &file.name)))
        .map(|(version, name)| {
            let refusal = plan
                .refusals
                .iter()
                .find(|refusal| refusal.is_of(version, name));
            let pending = plan.pending.iter().any(|index| {
                files
                    .get(*index)
                    .is_some_and(|file| file.version == version)
            });
            let state = match refusal {
                Some(refusal) => refusal.to_string(),
                None if plan.ahead.contains(&version) => "ahead".to_owned(),
                None if plan.missing.contains(&version) => "applied, file missing".to_owned(),
                None if pending => "pending".to_owned(),
                None => "applied".to_owned(),
            };
            Line {
                version,
                name: name.clone(),
                state,
                is_problem: refusal.is_some(),
            }
        })
        .collect();
    // A file's row comes first: what it was called when it was applied.
    lines.sort_by_key(|line| line.version);
    lines.dedup_by_key(|line| line.version);
    lines
}

/// Counts every file up to and with `version` as applied, without running it:
/// another tool has.
///
/// # Errors
/// [`MigrateError`]; nothing is changed then.
pub(in crate::pg) async fn baseline(job: &Job<'_>, version: i64) -> Result<usize, MigrateError> {
    let files = job.files().await?;
    if !files.iter().any(|file| file.version == version) {
        let what = "no file has it";
        return Err(MigrateError::History { version, what });
    }
    let session = job.open().await?;
    let key = job.locked(&session).await?;
    let rows = table::rows(&session, job.spec).await?;
    if !rows.is_empty() {
        let what = "migrations have been run here already, so there is nothing to adopt";
        return Err(MigrateError::History { version, what });
    }
    session.run("BEGIN").await?;
    table::create(&session, job.spec).await?;
    let mut adopted = 0;
    for file in files.iter().filter(|file| file.version <= version) {
        table::insert(&session, job.spec, file, 0, true).await?;
        adopted += 1;
    }
    session.run("COMMIT").await?;
    lock::release(&session, key).await?;
    Ok(adopted)
}

/// Decides about a file that was begun without a transaction.
///
/// # Errors
/// [`MigrateError`]; nothing is changed then.
pub(in crate::pg) async fn resolve(
    job: &Job<'_>,
    version: i64,
    resolution: Resolution,
) -> Result<(), MigrateError> {
    let files = job.files().await?;
    let session = job.open().await?;
    let key = job.locked(&session).await?;
    let rows = table::rows(&session, job.spec).await?;
    let refused = |what| Err(MigrateError::History { version, what });
    match rows.iter().find(|row| row.version == version) {
        None => return refused("was never begun"),
        Some(row) if row.success => return refused("is applied; there is nothing to resolve"),
        Some(_) => {}
    }
    match resolution {
        Resolution::Retry => table::forget(&session, job.spec, version).await?,
        Resolution::Applied => match files.iter().find(|file| file.version == version) {
            Some(file) => table::succeed(&session, job.spec, file, 0).await?,
            None => return refused("no file has it"),
        },
    }
    lock::release(&session, key).await?;
    Ok(())
}
