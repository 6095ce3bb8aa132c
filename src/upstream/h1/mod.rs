//! The HTTP/1.1 client of the data path, driven by the request that needs it.
//!
//! Written here, on `httparse` and what [`net::http1`](crate::net::http1) has in
//! common with it: it saves a third of the instructions of a request, tells
//! exactly what was sent and received when something fails, and refuses what a
//! lenient client would let through.

mod decode;
mod encode;
mod exchange;
mod outgoing;
mod response;

pub use decode::DecodeError;
pub(super) use decode::is_hop_by_hop;
pub use encode::{Framing, RequestHead, Target};
pub use exchange::Exchange;
pub use response::{ResponseBody, Switched};
