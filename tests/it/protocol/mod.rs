//! Every protocol through the sidecar, within limits.

mod abuse;
mod bodies;
mod causes;
mod framing;
mod front;
mod grpc;
pub(crate) mod grpc_app;
mod h2c;
mod http1;
mod http2;
mod limits;
mod pools;
mod pseudo;
mod retry;
mod streams;
mod websocket;
