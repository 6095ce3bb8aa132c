//! Running files: all of one or nothing of it, and never unnoticed.

use std::time::Instant;

use tokio::time::{Duration, timeout};
use tokio_postgres::error::{ErrorPosition, SqlState};

use super::files::MigrationFile;
use super::script::{self, Statement};
use super::{Event, Job, MigrateError, lock, table};
use crate::drain::Phase;
use crate::pg::session::{Session, SessionError};

/// For a cancelled statement to end; then the session is closed, which ends it.
const CANCELLED: Duration = Duration::from_secs(5);
/// Words that begin a statement which may commit in its middle.
const MAY_COMMIT: [&str; 2] = ["call", "do"];

/// A file under way.
struct Run<'a> {
    job: &'a Job<'a>,
    session: &'a Session,
    lock: i64,
    file: &'a MigrationFile,
    statements: Vec<Statement<'a>>,
}

/// Runs files in order, until one fails or the process is to end.
///
/// # Errors
/// [`MigrateError`].
pub(super) async fn all(
    job: &Job<'_>,
    session: &Session,
    lock: i64,
    files: &[&MigrationFile],
) -> Result<(), MigrateError> {
    let mut runs = Vec::new();
    // All are read before the first is run: what is refused later would leave
    // the database between two versions.
    for file in files {
        let statements = script::split(&file.text).map_err(|error| MigrateError::Script {
            path: job.spec.migrations_dir.join(&file.name),
            error,
        })?;
        runs.push(Run {
            job,
            session,
            lock,
            file,
            statements,
        });
    }
    let of = runs.len();
    for (index, run) in runs.iter().enumerate() {
        if job.drain.phase() >= Phase::Announced {
            return Err(MigrateError::Interrupted { name: None });
        }
        let name = &run.file.name;
        let number = index + 1;
        (job.report)(Event::Begins { name, number, of });
        let began = Instant::now();
        run.whole(began).await?;
        let millis = u64::try_from(millis_since(began)).unwrap_or(0);
        (job.report)(Event::Done { name, millis });
        fresh(session).await?;
    }
    Ok(())
}

/// A process that is killed must not leave its statement running.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn notice_lost_clients(session: &Session) -> Result<(), SessionError> {
    // PostgreSQL 14 and later.
    session
        .run(
            "SELECT set_config('client_connection_check_interval', '1s', false) \
             FROM pg_settings WHERE name = 'client_connection_check_interval'",
        )
        .await
}

/// What a file set for its session ends with it.
async fn fresh(session: &Session) -> Result<(), SessionError> {
    session.run("RESET SESSION AUTHORIZATION").await?;
    session.run("RESET ALL").await?;
    notice_lost_clients(session).await
}

fn millis_since(began: Instant) -> i64 {
    i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)
}

impl Run<'_> {
    async fn whole(&self, began: Instant) -> Result<(), MigrateError> {
        if !self.file.in_transaction {
            return self.without_transaction(began).await;
        }
        let result = self.in_transaction(began).await;
        if result.is_err() {
            // A session that is gone has rolled back.
            let _ = self.session.run("ROLLBACK").await;
        }
        result
    }

    async fn in_transaction(&self, began: Instant) -> Result<(), MigrateError> {
        let session = self.session;
        session.run("BEGIN").await?;
        let transaction = self.transaction().await?;
        for statement in &self.statements {
            self.one(statement).await?;
        }
        if self.transaction().await? != transaction {
            let name = self.file.name.clone();
            return Err(MigrateError::LeftTransaction { name });
        }
        self.holds_lock().await?;
        session.run("RESET SESSION AUTHORIZATION").await?;
        table::insert(session, self.job.spec, self.file, millis_since(began), true).await?;
        // Deferred constraints speak up here.
        let committed = session.run("COMMIT").await;
        committed.map_err(|error| self.failed(self.last_line(), error))
    }

    /// The row is there from the beginning, so that an end in the middle shows.
    async fn without_transaction(&self, began: Instant) -> Result<(), MigrateError> {
        let (session, spec) = (self.session, self.job.spec);
        let before = table::invalid_indexes(session, spec).await?;
        table::insert(session, spec, self.file, 0, false).await?;
        for (index, statement) in self.statements.iter().enumerate() {
            if let Err(error) = self.one(statement).await {
                return Err(self.broke_off(index, statement, &before, error).await);
            }
        }
        self.holds_lock().await?;
        session.run("RESET SESSION AUTHORIZATION").await?;
        table::succeed(session, spec, self.file, millis_since(began)).await?;
        Ok(())
    }

    /// Says what was left. Where the first statement failed and left nothing,
    /// the file counts as not begun.
    async fn broke_off(
        &self,
        index: usize,
        statement: &Statement<'_>,
        before: &[String],
        error: MigrateError,
    ) -> MigrateError {
        let spec = self.job.spec;
        // What stands in the way is the error itself, which is told.
        let _ = self.session.run("RESET SESSION AUTHORIZATION").await;
        let Ok(after) = table::invalid_indexes(self.session, spec).await else {
            return error;
        };
        let left: Vec<&str> = after
            .iter()
            .filter(|name| !before.contains(name))
            .map(String::as_str)
            .collect();
        let first = statement.text.split_whitespace().next().unwrap_or_default();
        let may_commit = MAY_COMMIT
            .iter()
            .any(|word| first.eq_ignore_ascii_case(word));
        if index == 0 && left.is_empty() && !may_commit {
            let forgotten = table::forget(self.session, spec, self.file.version).await;
            if forgotten.is_ok() {
                return error;
            }
        }
        let mut text = format!("; {index} of {} statements are done", self.statements.len());
        if !left.is_empty() {
            text.push_str(&format!(", invalid indexes are left: {}", left.join(", ")));
        }
        match error {
            MigrateError::Statement {
                path,
                line,
                error,
                after,
            } => MigrateError::Statement {
                path,
                line,
                error,
                after: after + &text,
            },
            MigrateError::Interrupted { .. } => MigrateError::Interrupted {
                name: Some(format!("{}{text}", self.file.name)),
            },
            other => other,
        }
    }

    /// One statement; cancelled when the process is to end.
    async fn one(&self, statement: &Statement<'_>) -> Result<(), MigrateError> {
        let mut drain = self.job.drain.clone();
        let interrupted = || MigrateError::Interrupted {
            name: Some(self.file.name.clone()),
        };
        let running = self.session.run(statement.text);
        tokio::pin!(running);
        tokio::select! {
            biased;
            () = drain.reached(Phase::Announced) => {
                self.session.cancel().send().await;
                // However it ended: nothing of it is kept in a transaction.
                let _ = timeout(CANCELLED, running).await;
                Err(interrupted())
            }
            result = &mut running => result.map_err(|error| self.failed_in(statement, error)),
        }
    }

    async fn transaction(&self) -> Result<i64, SessionError> {
        let rows = self
            .session
            .client
            .query_typed("SELECT txid_current()", &[])
            .await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    async fn holds_lock(&self) -> Result<(), MigrateError> {
        if lock::is_held(self.session, self.lock).await? {
            return Ok(());
        }
        let name = self.file.name.clone();
        Err(MigrateError::LostLock { name })
    }

    fn last_line(&self) -> usize {
        self.statements.last().map_or(1, |statement| statement.line)
    }

    /// The line is that of the place the server points at.
    fn failed_in(&self, statement: &Statement<'_>, error: SessionError) -> MigrateError {
        let position = match &error {
            SessionError::Sql(sql) => sql.position(),
            _ => None,
        };
        let lines_before = match position {
            Some(ErrorPosition::Original(position)) => {
                let before = statement.text.chars().take(*position as usize - 1);
                before.filter(|character| *character == '\n').count()
            }
            _ => 0,
        };
        self.failed(statement.line + lines_before, error)
    }

    fn failed(&self, line: usize, error: SessionError) -> MigrateError {
        let after = match error.code() {
            Some(&SqlState::ACTIVE_SQL_TRANSACTION) => {
                "; put `-- outrigger: no-transaction` on the first line"
            }
            Some(&SqlState::LOCK_NOT_AVAILABLE) => "; a lock was not had in time",
            _ => "",
        };
        MigrateError::Statement {
            path: self.job.spec.migrations_dir.join(&self.file.name),
            line,
            error: Box::new(error),
            after: after.to_owned(),
        }
    }
}
