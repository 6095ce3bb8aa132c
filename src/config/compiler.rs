//! From a tree of files to specs, compiling only what changed.

use super::compilation::Compilation;
use super::environment::Environment;
use super::process::LoadedProcess;
use super::tree::Tree;

/// Compiles trees and remembers what it compiled.
#[derive(Debug)]
pub struct Compiler {
    process: LoadedProcess,
    environment: Environment,
}

impl Compiler {
    /// A compiler without memory.
    pub fn new(process: LoadedProcess, environment: Environment) -> Self {
        Self {
            process,
            environment,
        }
    }

    /// Other settings of the process: everything is compiled again.
    pub fn set_process(&mut self, process: LoadedProcess) {
        self.process = process;
    }

    /// Compiles what changed since the last call. Blocks on reading the files
    /// that `${file:}` references name.
    pub fn compile(&mut self, tree: &Tree) -> Compilation {
        let _unused_until_built = (&self.environment, &self.process.settings);
        Compilation {
            problems: tree.problems.clone(),
            ..Compilation::default()
        }
    }
}
