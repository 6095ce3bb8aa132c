//! Why a service's migrations did not come to their end.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::files::FilesError;
use super::lock::LockError;
use super::plan::Refusal;
use super::script::ScriptError;
use crate::pg::session::SessionError;

/// What went wrong, with file and line.
#[derive(Debug, thiserror::Error)]
pub(in crate::pg) enum MigrateError {
    #[error("{}", with_source(.0))]
    Files(#[from] FilesError),
    #[error("{}", list(.0))]
    Refused(Vec<Refusal>),
    /// Before anything of the file was run.
    #[error("{}:{}: {}", .path.display(), .error.line, .error.what)]
    Script { path: PathBuf, error: ScriptError },
    #[error("{}:{line}: {error}{after}", .path.display())]
    Statement {
        path: PathBuf,
        line: usize,
        error: Box<SessionError>,
        /// What else there is to say: a hint, what was left.
        after: String,
    },
    #[error(
        "the schema `{schema}` is not there in `{database}`: run `outrigger migrate provision`"
    )]
    NoSchema { schema: String, database: String },
    #[error("version {version}: {what}")]
    History { version: i64, what: &'static str },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(
        "{name} let go of the lock that keeps others from migrating: remove pg_advisory_unlock_all"
    )]
    LostLock { name: String },
    #[error("{name} left its transaction")]
    LeftTransaction { name: String },
    /// Told to end; the file under way was rolled back.
    #[error("interrupted{}", .name.as_ref().map_or(String::new(), |name| format!(" in {name}")))]
    Interrupted { name: Option<String> },
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl MigrateError {
    /// Whether the same may work later without anybody doing anything.
    pub(in crate::pg) fn is_transient(&self) -> bool {
        match self {
            Self::Session(error) | Self::Lock(LockError::Session(error)) => error.is_transient(),
            // The file without a transaction has its row then, which is refused
            // next time.
            Self::Statement { error, .. } => error.is_transient(),
            Self::Lock(LockError::Held { .. }) => true,
            Self::Files(FilesError::Read { .. }) => true,
            // A Job may provision.
            Self::NoSchema { .. } => true,
            Self::Files(_)
            | Self::Refused(_)
            | Self::Script { .. }
            | Self::History { .. }
            | Self::LostLock { .. }
            | Self::LeftTransaction { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    /// Whether a person may mend it in the database, without a file being
    /// touched.
    pub(in crate::pg) fn is_resolvable(&self) -> bool {
        let Self::Refused(refusals) = self else {
            return false;
        };
        let mut refusals = refusals.iter();
        refusals.any(|refusal| matches!(refusal, Refusal::Unfinished { .. }))
    }

    /// What went wrong with the session, if that is what it was.
    pub(in crate::pg) fn session(&self) -> Option<&SessionError> {
        match self {
            Self::Statement { error, .. } => Some(error),
            Self::Session(error) | Self::Lock(LockError::Session(error)) => Some(error),
            _ => None,
        }
    }
}

fn with_source(error: &FilesError) -> String {
    match error {
        FilesError::Read { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

fn list(refusals: &[Refusal]) -> String {
    let mut text = String::new();
    for (index, refusal) in refusals.iter().enumerate() {
        let between = if index > 0 { "; " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{between}{refusal}");
    }
    text
}
