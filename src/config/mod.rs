//! Files and environment to validated settings, with every problem at once.
//!
//! bytes → `source` (nodes that know their place, references resolved) →
//! `raw` (the shape of CONFIG.md) → `compile` (specs). [`load_process`] makes
//! the settings of the process, [`Compiler`] turns a [`Tree`] into specs.
//! Nothing here is on the data path.

mod address;
mod compilation;
mod compile;
mod compiler;
#[cfg(test)]
mod examples;
mod problem;
mod process;
mod raw;
#[cfg(test)]
mod reference;
mod report;
pub mod schema;
mod source;
mod suggest;
mod tree;

pub use compilation::{Compilation, Compiled, Invalid, LocalService};
pub use compiler::Compiler;
pub use problem::{Problem, Severity};
pub use process::{Environment, LoadedProcess, ProcessFile, ProcessFlags, load_process, variables};
pub use source::{FileFault, Patience, read_regular};
pub use tree::{FileContent, MAX_FILE_BYTES, Tree, TreeFile};
