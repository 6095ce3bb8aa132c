//! From a [`Kind`] to what a client sees: the one set of tables.
//!
//! [`facts()`] is the table. [`problem`] makes the answer for a request that
//! reached us, [`raw`] the bytes for a connection that did not.
//! Texts are fixed: nothing from inside the process reaches a client.

mod body;
mod facts;
mod respond;

pub use body::{proxy_status, raw};
pub use facts::{Bearer, Facts, facts, recorded};
pub use respond::{ReplyContext, is_grpc, problem};

#[doc(no_inline)]
pub use crate::model::Kind;
