//! The loop as a whole: real folders, real sockets, the real compiler. Only
//! the workers are scripted: they adopt and acknowledge, and serve nothing.

mod accidents;
mod changes;
mod stage;
mod trouble;
