//! The harness: scripted apps and clients at byte level, the daemon as a child
//! process, load, faults. Every wait is on a condition and has a deadline.
#![allow(dead_code, reason = "not every helper has a test yet that needs it")]

pub(crate) mod app;
pub(crate) mod breakouts;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod container;
pub(crate) mod crowd;
pub(crate) mod daemon;
pub(crate) mod document;
pub(crate) mod figures;
pub(crate) mod files;
pub(crate) mod frames;
pub(crate) mod isolation;
pub(crate) mod load;
pub(crate) mod manifests;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod moody;
pub(crate) mod pki;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod runtimes;
pub(crate) mod scripts;
pub(crate) mod seed;
pub(crate) mod shim;
pub(crate) mod site;
pub(crate) mod sql;
pub(crate) mod tools;
pub(crate) mod traced;
pub(crate) mod tree;
pub(crate) mod wait;
