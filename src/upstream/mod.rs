//! The only HTTP client of the data path: a pool per worker and upstream.

mod body;
pub mod cluster;
mod connection;
mod error;
pub mod h1;
mod h2;
mod lookup;
pub mod monitor;
mod pool;
mod resolve;
mod response;
mod spares;
mod traffic;

pub use body::{BodyError, Delivery, REPLAY_BYTES, RequestBody, TrailerFilter};
pub use connection::Connection;
pub use error::UpstreamError;
pub use h2::Room;
pub use pool::{Pool, Upstream};
pub use response::{
    Attempt, UpstreamBody, UpstreamFields, UpstreamResponse, request, request_http2,
};
pub use traffic::Traffic;

/// Whether a field is for one hop whatever `Connection` says (RFC 9110 §7.6.1).
pub fn is_hop_by_hop(name: &http::HeaderName) -> bool {
    h1::is_hop_by_hop(name.as_str().as_bytes())
}
