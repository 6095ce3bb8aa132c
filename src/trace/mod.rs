//! Trace context: read, decided, written.
//!
//! [`request_id()`] is independent of tracing: every request has one.

mod ids;
mod request_id;

pub use ids::IdGenerator;
pub use request_id::{REQUEST_ID, RequestId, is_safe_id, request_id};
