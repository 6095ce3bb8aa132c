//! Listeners, connections, deadlines: sockets and time.

mod bind;
mod command;
pub mod deadline;
mod permits;
pub mod stream;

pub use bind::{BindError, BoundGroup, bind_group};
pub use command::{ListenerId, OpenListener, WorkerCommand};
pub use permits::{Permit, Permits};
