//! Outrigger: a sidecar proxy.
//!
//! The map of the house. Rooms in the order of reading; a room imports only
//! rooms of earlier rows (`tests/layering.rs` holds the table).

pub mod drain;
pub mod model;
pub mod secret;

pub mod health;
pub mod telemetry;

pub mod config;
pub mod reply;
pub mod trace;

pub mod net;

pub mod upstream;

pub mod auth;
pub mod forward;

pub mod snapshot;

pub mod admin;
pub mod inbound;

pub mod worker;

pub mod control;

pub mod app;

pub mod cli;
pub mod demo;
