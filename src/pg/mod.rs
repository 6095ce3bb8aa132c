//! PostgreSQL (POSTGRES.md): the connection, the pool, and what is done to a
//! database before its pool opens.
//!
//! [`prepare`](prepare()) runs once a version of a service is in force: roles,
//! schemas, migrations. What it returns is what the pool logs in with.

mod by_hand;
mod migrate;
mod names;
mod prepare;
mod provision;
mod session;

pub use by_hand::{ByHand, ByHandError, Line, Resolution, url};
pub use prepare::{
    AppliedMigration, Login, Preparation, PrepareFailure, Prepared, Progress, prepare,
};
