//! Everything that is shown through the real door: the built binary, real
//! sockets, real files. One binary, so that it links once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on says so; measured figures are printed"
)]

mod support;

mod auth_hooks;
mod auth_key_sets;
mod auth_tokens;
mod bad_files;
mod deploy;
mod doors;
mod error_pages;
mod explain;
mod first_mistakes;
mod footprint;
mod harness;
mod health_cycles;
mod health_monitors;
mod health_probes;
mod health_report;
mod identity;
mod lifecycle_drain;
mod lifecycle_exec;
mod lifecycle_limits;
mod lifecycle_ports;
mod lifecycle_process;
mod many_reloads;
#[path = "../integration/microservices.rs"]
mod microservices;
mod nemesis_soak;
mod nemesis_tree;
mod nemesis_upstream;
mod never_weaker;
mod outbound_balance;
mod outbound_breaker;
mod outbound_clients;
mod outbound_drain;
mod outbound_handover;
mod outbound_names;
mod outbound_refusals;
mod outbound_verdicts;
mod parking;
mod pg_boundary;
mod pg_daemon;
mod pg_demo;
mod pg_exec;
mod pg_fleet;
mod pg_migrate;
mod pg_passwords;
mod pg_provision;
mod problems_clear;
mod process_file;
mod protocol;
mod readme;
mod reference_files;
mod reload_under_load;
mod responses;
mod scale;
mod secrets;
mod sql_attacks;
mod sql_boundary;
mod sql_clients;
mod sql_door;
mod sql_guard;
mod sql_handed_on;
mod sql_leavings;
mod sql_nemesis;
mod sql_pool;
mod sql_types;
mod tls_calls;
mod tls_check;
mod tls_clients;
mod tls_http2;
mod tls_rotation;
mod tracing_b3;
mod tracing_collector;
mod tracing_headers;
mod tracing_hostile;
mod tracing_loops;
mod tracing_sampling;
mod tracing_spans;
mod watching;
