//! Every protocol through the sidecar, within limits.

mod causes;
mod framing;
mod front;
mod limits;
