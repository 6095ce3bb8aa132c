//! The only HTTP client of the data path: a pool per worker and upstream.

mod body;
mod error;
pub mod h1;
mod pool;
mod resolve;

pub use body::{BodyError, REPLAY_BYTES, RequestBody, TrailerFilter};
pub use error::UpstreamError;
pub use pool::{Connection, Pool, Upstream};
