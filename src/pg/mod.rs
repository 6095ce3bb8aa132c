//! PostgreSQL (POSTGRES.md): the connection, the pool, and what is done to a
//! database before its pool opens.
//!
//! [`prepare`](prepare()) runs once a version of a service is in force: roles,
//! schemas, migrations. What it returns is what the pool logs in with.

pub mod backend;
mod by_hand;
mod database;
pub mod failure;
mod migrate;
mod names;
pub mod pool;
mod prepare;
mod provision;
mod session;
pub mod value;
mod watch;

pub use by_hand::{ByHand, ByHandError, Line, Resolution, url};
pub use database::{Database, Databases, check_interval, pool_settings};
pub use prepare::{
    AppliedMigration, Login, Preparation, PrepareFailure, Prepared, Progress, expected_login,
    prepare,
};
pub use watch::MigrationWatch;
