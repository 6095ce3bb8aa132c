//! The SQL door (POSTGRES.md §5): HTTP on loopback, wire-compatible with the
//! Neon serverless driver, on a runtime of its own together with the pools.
//!
//! [`Sql`] is what the rest of the process holds: it is told which services are
//! served and starts thread, door and pools with the first database. The way of
//! a request: `door` accepts → `gate` (host, pages, token) → `route` (service,
//! action) → `request` (JSON to statements) → `run` (one flight over a borrowed
//! session) → `rows` (messages to JSON). `pace` lets the thread rest between
//! answers that come one by one.

mod door;
mod follow;
mod pace;
mod runtime;

pub use runtime::{Parts, Sql};
