//! Files and environment to validated settings, with every problem at once.
//!
//! raw → validated: [`load_process`] makes the settings of the process,
//! [`Compiler`] turns a [`Tree`] into specs. Nothing here is on the data path.

mod compilation;
mod compiler;
mod environment;
mod problem;
mod process;
mod tree;

pub use compilation::{Compilation, Compiled, Invalid, LocalService};
pub use compiler::Compiler;
pub use environment::Environment;
pub use problem::{Problem, Severity};
pub use process::{LoadedProcess, ProcessFlags, load_process};
pub use tree::{FileContent, MAX_FILE_BYTES, Tree, TreeFile};
