//! What is shared by both directions: headers, bodies, sending.

mod answer;
mod body;
mod client;
mod framing;
mod hop;
mod reserved;
mod seen;
mod send;
mod tunnel;

pub use answer::{relay, relay_switch, set_fields, sign};
pub use body::AnswerBody;
pub use client::{Client, address_value, client_host, client_scheme, write_forwarding};
pub use framing::{allowed_upgrade, check_framing, onward_framing, onward_target};
pub use hop::{HopRequest, Names, TrailerRule, strip_request, strip_response, trailer_filter};
pub use reserved::{Reserved, remove_folded};
pub use seen::Seen;
pub use send::{Sent, send};
pub use tunnel::{TunnelEnd, tunnel};
