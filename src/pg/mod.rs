//! PostgreSQL (POSTGRES.md): the connection, the pool, and what is done to a
//! database before its pool opens.
//!
//! [`prepare`](prepare()) runs once a version of a service is in force: roles,
//! schemas, migrations. What it returns is what the pool logs in with.

mod prepare;

pub use prepare::{
    AppliedMigration, Login, Preparation, PrepareFailure, Prepared, Progress, prepare,
};
