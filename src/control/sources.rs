//! What the versions in force were compiled from, to tell a cut file from a
//! changed one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Compilation, Compiled, FileContent, Tree, TreeFile};
use crate::model::{ServiceName, ServiceSpec};

/// The bytes of each file whose version is in force.
#[derive(Debug, Default)]
pub(super) struct Sources {
    bytes: BTreeMap<ServiceName, Arc<[u8]>>,
}

impl Sources {
    /// Services whose file is a beginning of the one in force, and shorter.
    pub(super) fn cut(&self, tree: &Tree) -> BTreeSet<ServiceName> {
        let is_cut = |file: &&TreeFile| match (&file.content, self.bytes.get(&file.name)) {
            (FileContent::Bytes(now), Some(before)) => {
                now.len() < before.len() && before.starts_with(now)
            }
            _ => false,
        };
        let cut = tree.files.iter().filter(is_cut);
        cut.map(|file| file.name.clone()).collect()
    }

    /// Takes in the files of `tree` whose version, as compiled, is `in_force`.
    pub(super) fn remember<'a>(
        &mut self,
        tree: &Tree,
        compilation: &Compilation,
        in_force: impl Fn(&ServiceName) -> Option<&'a Arc<ServiceSpec>>,
    ) {
        self.bytes.retain(|name, _| in_force(name).is_some());
        for file in &tree.files {
            let Some(Compiled::Local(local)) = compilation.services.get(&file.name) else {
                continue;
            };
            let (Ok(spec), FileContent::Bytes(bytes)) = (&local.spec, &file.content) else {
                continue;
            };
            if in_force(&file.name) == Some(spec) {
                self.bytes.insert(file.name.clone(), Arc::clone(bytes));
            }
        }
    }
}
