//! Severity and the `/health` report: pure, no I/O.
//!
//! Whoever looks after a target (an app, a database, a dependency) turns single
//! results into a state with a [`Verdict`] and writes it into a [`CheckCell`];
//! [`ServiceHealth`] holds the cells of one service;
//! [`report`](ServiceHealth::report) and [`aggregate`] make the answers of
//! SPEC §5 from whatever the cells hold. No request for health ever causes
//! another request.

mod check;
mod report;
mod severity;
mod verdict;

pub use check::{CheckCell, CheckReading, CheckState};
pub use report::{
    Aggregate, Moment, Reason, Report, Scope, ServiceHealth, View, Watched, WatchedDatabase,
    WatchedDependency, aggregate, shows_details,
};
pub use severity::{Severity, severity};
pub use verdict::{Change, Traffic, Verdict};
