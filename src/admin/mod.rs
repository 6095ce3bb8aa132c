//! The observe and admin doors (SPEC §8).
//!
//! Both run on the control runtime and only read what others publish; changes
//! are asked for with an [`AdminCommand`]. A request passes `gate` (Host,
//! Origin, token), then `route` picks the page. Pages that take milliseconds
//! are made on the blocking pool, so a scrape delays nobody.

mod change;
mod explain;
mod gate;
mod pages;
mod probes;
mod route;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::drain::DrainWatcher;
use crate::pg::Databases;
use crate::snapshot::{AdminCommand, Current, StatusBoard};
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Liveness, Readiness};

pub use server::serve;

/// Everything the doors show and may ask for. Shared by both.
pub struct House {
    pub current: Current,
    pub databases: Databases,
    pub board: StatusBoard,
    pub metrics: Metrics,
    pub log: LogHandle,
    /// What start-up waits for.
    pub startup: Readiness,
    pub liveness: Liveness,
    /// Of the whole process.
    pub drain: DrainWatcher,
    /// Bounded; a full channel is answered 503.
    pub commands: mpsc::Sender<AdminCommand>,
}

/// One door and who may use it.
#[derive(Clone)]
pub struct Door {
    pub kind: DoorKind,
    pub house: Arc<House>,
}

/// Which door.
#[derive(Debug, Clone)]
pub enum DoorKind {
    /// Read-only: `/metrics /livez /readyz /startupz`. Open to the network and
    /// asked by names that scrapers choose, so its Host is not checked.
    Observe,
    /// The token is the one of the settings in force (`admin.token`): asked of
    /// everybody when set; without one only loopback peers may see more than
    /// the observe door shows.
    Admin {
        /// Host names served besides IP literals and `localhost`, lower-case.
        hosts: Vec<Arc<str>>,
    },
}
