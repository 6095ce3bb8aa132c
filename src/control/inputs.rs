//! The process's own settings, and compiling under them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::lost_settings::lost;
use super::restart::keep_fixed;
use crate::config::{
    Compilation, Compiler, Environment, FileContent, LoadedProcess, Problem, ProcessFlags, Tree,
    load_process,
};
use crate::model::Origin;

/// Hexadecimal digits of the digest that is shown: enough to tell versions
/// apart, too few to guess what is in the files.
const HASH_DIGITS: usize = 12;

/// The process's own configuration and what compiles with it.
pub(super) struct Inputs {
    flags: ProcessFlags,
    environment: Environment,
    pub(super) process: LoadedProcess,
    /// Of the last load; the settings in force are from the last good one.
    pub(super) problems: Vec<Problem>,
    pub(super) restart_needed: Vec<&'static str>,
    /// The last load was in vain, perhaps for want of a file that is not watched.
    pub(super) in_vain: bool,
    /// `None` while it compiles, and after it panicked.
    compiler: Option<Compiler>,
}

impl Inputs {
    pub(super) fn new(
        flags: ProcessFlags,
        environment: Environment,
        process: LoadedProcess,
    ) -> Self {
        Self {
            compiler: Some(Compiler::new(process.clone(), environment.clone())),
            problems: process.warnings.clone(),
            restart_needed: Vec::new(),
            in_vain: false,
            flags,
            environment,
            process,
        }
    }

    /// Loads the process file again. Returns whether the settings changed.
    pub(super) async fn load_again(&mut self) -> bool {
        let mut loaded = match self.load().await {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.in_vain = true;
                self.problems = problems;
                return false;
            }
        };
        self.in_vain = false;
        let (settings, differs) = keep_fixed(&self.process.settings, &loaded.settings);
        self.restart_needed = differs;
        self.problems = loaded.warnings.clone();
        let changed = *self.process.settings != settings;
        loaded.settings = if changed {
            Arc::new(settings)
        } else {
            Arc::clone(&self.process.settings)
        };
        self.process = loaded;
        // Its defaults for services may differ where the settings do not.
        if let Some(compiler) = &mut self.compiler {
            compiler.set_process(self.process.clone());
        }
        changed
    }

    /// A good version that leaves out nothing that is in force, or every problem.
    async fn load(&self) -> Result<LoadedProcess, Vec<Problem>> {
        let (flags, environment) = (self.flags.clone(), self.environment.clone());
        let loaded = spawn_blocking(move || load_process(&flags, &environment)).await;
        let loaded = loaded.unwrap_or_else(|_| {
            let message = "loading the process settings failed inside the sidecar";
            Err(vec![Problem::error(Origin::default(), message)])
        });
        match loaded {
            Ok(loaded) => match lost(&self.process, &loaded) {
                Some(problem) => Err(vec![problem]),
                None => Ok(loaded),
            },
            Err(mut problems) => {
                let bare = |problem: &&mut Problem| {
                    let file = &problem.origin.file;
                    problem.hint.is_none() && **file == *self.process.file.path
                };
                for problem in problems.iter_mut().filter(bare) {
                    let hint = "the settings read from it before stay in force";
                    problem.hint = Some(hint.to_owned());
                }
                Err(problems)
            }
        }
    }

    /// Compiles on the blocking pool; `None` when the compiler panicked.
    pub(super) async fn compile(&mut self, tree: Arc<Tree>) -> Option<(Compilation, Arc<str>)> {
        let mut compiler = self
            .compiler
            .take()
            .unwrap_or_else(|| Compiler::new(self.process.clone(), self.environment.clone()));
        let work = spawn_blocking(move || {
            let compilation = compiler.compile(&tree);
            (compiler, compilation, digest(&tree))
        });
        let (compiler, compilation, hash) = work.await.ok()?;
        self.compiler = Some(compiler);
        Some((compilation, hash))
    }

    /// Every file outside the tree that matters.
    pub(super) fn referenced(&self, compilation: &Compilation) -> BTreeSet<PathBuf> {
        compilation
            .referenced
            .union(&self.process.referenced)
            .cloned()
            .collect()
    }
}

/// Of names and bytes.
fn digest(tree: &Tree) -> Arc<str> {
    let mut context = Sha256::new();
    for file in &tree.files {
        context.update(file.name.key().as_bytes());
        if let FileContent::Bytes(bytes) = &file.content {
            context.update((bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        }
    }
    let digest = context.finalize();
    let bytes = digest.iter().take(HASH_DIGITS / 2);
    let digits: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    digits.into()
}
