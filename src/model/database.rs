//! The database of a service, validated (POSTGRES.md §1).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::secret::Secret;

/// A service's `database` block merged with the process defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSpec {
    pub isolation: DatabaseIsolation,
    pub migrations: bool,
    /// Host name, IP literal, or directory of a Unix socket.
    pub host: Arc<str>,
    pub port: u16,
    /// The agreed database (`POSTGRES_DB`) that provisioning starts from.
    pub base_database: Arc<str>,
    /// The service's database: the base one when shared, its own when isolated.
    pub database: Arc<str>,
    /// The service's schema when shared, `public` when isolated.
    pub schema: Arc<str>,
    /// The service's login role.
    pub role: Arc<str>,
    pub role_password: Option<Secret>,
    /// The configured login: provisions when it may, else is the pool's login.
    pub user: Arc<str>,
    pub password: Option<Secret>,
    /// Process setting, ≥ 32 bytes.
    pub role_secret: Option<Secret>,
    pub max: u32,
    pub idle_timeout: Duration,
    pub connection_timeout: Duration,
    pub max_lifetime: Duration,
    pub statement_timeout: Duration,
    pub lock_timeout: Option<Duration>,
    pub idle_in_transaction_timeout: Duration,
    pub required: bool,
    pub provision: Provision,
    /// Absolute, or below the service's folder.
    pub migrations_dir: PathBuf,
    pub migrate_on_reload: bool,
    /// Services whose tables may be read, as both sides say.
    pub reads: Vec<DatabaseNeighbour>,
    /// Services that may read ours, as both sides say.
    pub shares_with: Vec<DatabaseNeighbour>,
    pub door_token: Option<Secret>,
    pub reset: DatabaseReset,
    pub tls: DatabaseTls,
}

/// Another service of the same database, which reads or is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseNeighbour {
    /// `domain/name`.
    pub name: Arc<str>,
    pub role: Arc<str>,
    pub schema: Arc<str>,
}

/// The boundary between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseIsolation {
    /// A schema of its own in the base database.
    Shared,
    /// A database of its own.
    Isolated,
}

/// Whether roles, schemas and databases are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    /// If the login may create roles.
    Auto,
    Always,
    Never,
}

/// When a connection is reset before the next borrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseReset {
    Always,
    /// Only when something was seen to change: a documented opt-out.
    Dirty,
}

/// TLS toward PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTls {
    Disable,
    /// Encrypted, not verified.
    Require {
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        /// Of the files' contents: other files make another value.
        digest: [u8; 32],
    },
    VerifyFull {
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        /// As of `Require`.
        digest: [u8; 32],
    },
}
