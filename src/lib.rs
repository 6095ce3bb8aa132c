//! Outrigger: a small sidecar proxy.
//!
//! This page is the map for people who change it; the README is for people who
//! run it.
//!
//! # The idea
//!
//! 1. The [control loop](control) turns files into one immutable
//!    [`Snapshot`](snapshot::Snapshot) of ready-to-run services and publishes it
//!    with one pointer store.
//! 2. [Workers](worker) (a thread and a single-threaded runtime each, with
//!    SO_REUSEPORT listeners of their own) adopt it by command and acknowledge;
//!    once all have, the generation is in force. A request walks one straight
//!    corridor and touches nothing shared but padded counters.
//! 3. What can be resolved is resolved when a snapshot is built: authenticator,
//!    header names and values, metric cells, upstreams.
//! 4. Workers are the data path; one control runtime watches, probes, fetches
//!    keys and serves the admin doors. File reads, compiling and encoding of
//!    metrics go to its small blocking pool. A third runtime, begun with the
//!    first database, carries pools and the SQL door. None can starve another.
//! 5. What did not change keeps its `Arc` (or, in a worker, its `Rc`): pools,
//!    monitors, listeners and counters survive a reload. A request keeps the
//!    version of its service that it began with.
//! 6. Each service prepares, publishes and fails on its own. Preparing is local
//!    and fast; what is slow starts after publishing, in owned tasks.
//! 7. Every failure is a [`Kind`](model::Kind); one table in [`reply`] turns it
//!    into status, cause, text and log level.
//!
//! # Rooms
//!
//! In order of reading. A room imports only what its row allows;
//! `tests/layering.rs` holds the table and checks it.
//!
//! | row | room | what it is |
//! |---|---|---|
//! | 0 | [`model`] | the vocabulary: specs, policies, identities, failures, header lines |
//! | 0 | [`secret`], [`drain`] | values that are never printed; how an end is announced |
//! | 1 | [`telemetry`] | every metric, the log's one queue, the record of a request, spans on their way out, readiness |
//! | 1 | [`health`] | severity and the `/health` report, pure |
//! | 2 | [`reply`] | failure to answer: the one set of tables |
//! | 2 | [`config`] | files and environment to specs, with every problem at once |
//! | 2 | [`trace`] | trace context and request ids |
//! | 3 | [`net`] | binding, accepting, connections, HTTP/1 toward clients, TLS, deadlines, the cold client |
//! | 4 | [`upstream`] | the data path's client: pools, the HTTP/1.1 codec, HTTP/2, clusters, monitors |
//! | 4 | [`pg`] | PostgreSQL: the connection, the pool, what is prepared before it opens |
//! | 5 | [`auth`] | rules, strategies, identity |
//! | 5 | [`forward`] | header hygiene, sending with safe retries, tunnels |
//! | 6 | [`snapshot`] | what is published, status, admin commands |
//! | 7 | [`inbound`] | the public door |
//! | 7 | [`outbound`] | the doors apps call others through |
//! | 7 | [`sql`] | the SQL door, and the runtime that pools and door live on |
//! | 7 | [`admin`] | the observe and admin doors |
//! | 8 | [`worker`] | data threads, their ports and sites |
//! | 9 | [`control`] | discover, compile, prepare, publish |
//! | 10 | [`app`] | what is started in which order, and how it ends |
//! | 11 | [`cli`], [`demo`] | subcommands; the demo |
//!
//! # A request
//!
//! `net::accept_loop` → `worker::port` takes a permit, shakes hands where there
//! is TLS (`worker::secure`), tells HTTP/1 from HTTP/2 → `net::serve_http1`
//! (our codec, our deadlines, our drain) →
//! [`inbound::Door::handle`]: begin the record → limits, framing, host → strip
//! reserved headers → `/health`? → place in flight → `auth` → headers toward the
//! app → [`forward::send`] → [`upstream`] → response headers cleaned → the body
//! streams, and with its end the record closes. Any `Err` becomes an answer in
//! `inbound::answer`.
//!
//! # A call
//!
//! The other direction: `worker::exit` accepts on a dependency's `localPort` or
//! on the shared door → [`outbound::Door::handle`]: a declared dependency is
//! found or the call refused → cleaned, traced, given the caller's credential →
//! `upstream::cluster` asks the breaker and picks an address → attempts → the
//! body streams, and with its end the record closes. Names are followed on the
//! control runtime (`Cluster::follow`), each asked for in a thread of its own.
//!
//! # Health
//!
//! After publishing, `app::monitors` starts a monitor per target on the control
//! runtime ([`upstream::monitor`]): it asks its question, hears what real
//! traffic said since ([`upstream::Traffic`]), turns results into a state
//! ([`health::Verdict`]) and writes it into a cell ([`health::CheckCell`]).
//! `/health` and the probes only read cells; cells outlive reloads.
//!
//! # A query
//!
//! On the SQL runtime: `sql::door::server` accepts → `gate` (host, web pages,
//! token) → `route` finds [`pg::Database`] and action → `request` makes
//! statements of JSON → [`pg::pool::ServicePool::checkout`] lends a session in
//! turn → `run` sends everything in one flight, the reset behind it, and `rows`
//! writes JSON as messages come → the answer goes out, and the session back once
//! it is proved clean. While others wait, it is handed on instead, and the reset
//! goes before the next one's work. Before the first one `sql::follow` prepares the database
//! ([`pg::prepare()`]), opens the pool and from then on watches the server.
//!
//! # A change
//!
//! A file is saved → `control::trigger` rings, without a payload → the whole
//! tree is read until it is quiet → `config::Compiler` compiles what changed →
//! each changed service is prepared (bound, built) → publish, generation + 1 →
//! every worker adopts and acknowledges → what is slow starts
//! (`control::AfterPublish`) → status, metrics, one log line. Start-up is the
//! first turn of this loop.
//!
//! # Invariants
//!
//! - The data path never names `config`, `control`, the YAML reader or the watcher.
//! - Only `control` holds the [`Publisher`](snapshot::Publisher).
//! - Only `reply` picks a status of ours; relayed answers excepted.
//! - Only `telemetry::metrics` names a metric; only `config` reads the environment.
//! - Every task has an owner whose drop ends it, or ends by a bound of its own.
//! - Nothing is unbounded: queues, bodies, headers, times, retries.

pub mod drain;
pub mod model;
pub mod secret;

pub mod health;
pub mod telemetry;

pub mod config;
pub mod reply;
pub mod trace;

pub mod net;

pub mod pg;
pub mod upstream;

pub mod auth;
pub mod forward;

pub mod snapshot;

pub mod admin;
pub mod inbound;
pub mod outbound;
pub mod sql;

pub mod worker;

pub mod control;

pub mod app;

pub mod cli;
pub mod demo;
