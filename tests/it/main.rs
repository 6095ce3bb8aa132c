//! Everything that is shown through the real door: the built binary, real
//! sockets, real files. One binary, so that it links once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on says so; measured figures are printed"
)]

mod support;

mod harness;
