//! Listeners, connections, deadlines: sockets and time.

mod bind;
pub mod client;
mod client_body;
mod client_io;
mod command;
mod connection;
mod date;
pub mod deadline;
pub mod files;
mod flood;
pub mod host;
pub mod http1;
mod http2;
mod listener;
mod permits;
pub mod stream;
pub mod tls;
mod watch;

pub use bind::{BindError, BoundGroup, bind_alone, bind_group, join_group};
pub use client_body::{ClientBody, ClientBodyError, ClientRequest};
pub use client_io::{ClientIo, Spoken};
pub use command::{ListenerId, ListenerSocket, OpenListener, Purpose, WorkerCommand};
pub use connection::{End, answer_and_close, close, linger};
pub use http1::{ParserLimits, serve_http1};
pub use http2::{H2Limits, LocalExecutor, serve_http2};
pub use listener::accept_loop;
pub use permits::{Permit, Permits};
pub use watch::{ClientTimeouts, Stalled, Underway, Watch};
