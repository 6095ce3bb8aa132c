//! Trace context: read, decided, written.
//!
//! [`Context::read`] takes what a request carries (W3C, B3, house headers) and
//! always ends with a trace id and a span id of our own; [`Context::decide`]
//! settles sampling once the caller is known; [`Context::write`] puts the
//! chosen formats on the request that goes on. All parsers take any bytes.
//!
//! [`request_id()`] is independent of tracing: every request has one.

mod b3;
mod context;
mod house;
mod ids;
mod request_id;
mod sampling;
mod state;
mod w3c;
mod write;

pub use crate::model::RequestId;
pub use context::{Caller, Context, MAX_DEPTH, TooDeep};
pub use ids::IdGenerator;
pub use request_id::{REQUEST_ID, REQUEST_ID_START, new_request_id, request_id};
pub use write::CARRIERS;
