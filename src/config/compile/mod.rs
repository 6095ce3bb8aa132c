//! From what is written to a spec: every semantic problem of a file at once.

mod api_key;
mod auth;
mod circle;
mod connection;
mod context;
mod database;
mod dependencies;
mod effective;
mod health;
mod hook;
mod jwt;
mod names;
mod outline;
mod peer;
mod postgres_url;
mod requirement;
mod rules;
mod service;
mod sharing;
mod tls;
mod upstream;

pub(super) use context::{Context, Resolution};
pub(super) use effective::effective;
pub(super) use names::is_identifier;
pub(super) use outline::{Neighbour, Outline};
pub(super) use peer::{PEER_KEYS, peer};
pub(super) use service::service;
