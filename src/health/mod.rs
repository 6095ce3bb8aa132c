//! Severity and the `/health` report: pure, no I/O.
//!
//! Monitors write their last result into a [`CheckCell`]; [`ServiceHealth`]
//! holds the cells of one service; [`report`](ServiceHealth::report) and
//! [`aggregate`] make the answers of SPEC §5 from whatever the cells hold. No
//! request for health ever causes another request.

mod check;
mod report;
mod severity;

pub use check::{CheckCell, CheckReading, CheckState};
pub use report::{
    Aggregate, Moment, Report, Scope, ServiceHealth, View, WatchedDatabase, WatchedDependency,
    aggregate, shows_details,
};
pub use severity::{Severity, severity};
