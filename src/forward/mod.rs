//! What is shared by both directions: headers, bodies, sending.

mod body;
mod client;
mod hop;
mod reserved;
mod send;
mod tunnel;

pub use body::AnswerBody;
pub use client::{Client, write_forwarding};
pub use hop::{HopRequest, strip_request, strip_response, strip_trailers};
pub use reserved::Reserved;
pub use send::{Sent, send};
pub use tunnel::{TunnelEnd, tunnel};
