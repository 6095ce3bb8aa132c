//! From bytes to a tree of nodes that know where they stand.

mod deserialize;
mod fault;
mod files;
mod node;
mod patience;
mod read;
mod reference;

pub(super) use deserialize::{BY_SHAPE, deserialize};
pub(super) use files::{Bounds, Files, Loaded};
pub use files::{FileFault, read_regular};
pub(super) use node::{Entry, Mark, Node, Place, Places, Value};
pub use patience::Patience;
pub(super) use read::read;
pub(super) use reference::{Missing, Reader, Resolver};
