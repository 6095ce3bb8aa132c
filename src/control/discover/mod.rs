//! Finding the services of a tree (SPEC §1.1).
//!
//! Three layouts are read: `<domain>/<service>/service.config.*`,
//! `<service>/service.config.*` and flat `<domain>.<service>.*`. A scan looks
//! at names and bytes only. It keeps apart what is cleanly absent from what it
//! could not see ([`Blind`]): only the first may ever lead to a removal.

mod place;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{FileContent, Tree, TreeFile};
use crate::model::ServiceName;

/// Services of one tree (SPEC §1.1).
pub(super) const MAX_SERVICES: usize = 10_000;
/// Names looked at in one scan: ten for each service, so that a stray folder
/// of a million files cannot hold the control loop.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all files of one tree together; a thousand times what 1 000
/// services of an ordinary size need.
const MAX_TREE_BYTES: usize = 256 * 1024 * 1024;

/// A folder as a thing, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FolderId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FolderId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// What a scan could not see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Blind {
    /// The root itself, or the scan was cut short.
    pub(super) everything: bool,
    /// First-level folders.
    pub(super) folders: BTreeSet<String>,
    /// Second-level folders.
    pub(super) services: BTreeSet<ServiceName>,
}

impl Blind {
    /// Whether the absence of `name` means nothing.
    pub(super) fn covers(&self, name: &ServiceName) -> bool {
        self.everything
            || self.folders.contains(name.domain())
            || (name.domain() == ServiceName::DEFAULT_DOMAIN && self.folders.contains(name.name()))
            || self.services.contains(name)
    }
}

/// One look at the tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Scan {
    pub(super) tree: Tree,
    pub(super) blind: Blind,
    /// Every folder worth watching, by the path it was reached under.
    pub(super) folders: BTreeMap<PathBuf, FolderId>,
}

impl Scan {
    /// Whether both looks saw the same: names, bytes, problems, blind spots.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.blind == other.blind
            && self.tree.problems == other.tree.problems
            && same_files(&self.tree.files, &other.tree.files)
    }

    /// The file of a service.
    pub(super) fn file(&self, name: &ServiceName) -> Option<&TreeFile> {
        find(&self.tree.files, name)
    }
}

/// The file of a service in a list in order of name.
pub(super) fn find<'a>(files: &'a [TreeFile], name: &ServiceName) -> Option<&'a TreeFile> {
    files
        .binary_search_by(|file| file.name.cmp(name))
        .ok()
        .and_then(|index| files.get(index))
}

/// Whether two lists in order of name are the same.
pub(super) fn same_files(left: &[TreeFile], right: &[TreeFile]) -> bool {
    let same_file = |(left, right): (&TreeFile, &TreeFile)| {
        left.name == right.name && left.path == right.path && same_content(left, right)
    };
    left.len() == right.len() && left.iter().zip(right).all(same_file)
}

/// Compares pointers before bytes: scans share the bytes that did not change.
pub(super) fn same_content(left: &TreeFile, right: &TreeFile) -> bool {
    match (&left.content, &right.content) {
        (FileContent::Bytes(left), FileContent::Bytes(right)) => {
            Arc::ptr_eq(left, right) || left == right
        }
        (left, right) => left == right,
    }
}

/// Looks at the whole tree once. Blocks on the file system.
///
/// `previous` only saves memory: bytes that are the same are shared with it.
pub(super) fn scan(root: &Path, working_dir: &Path, previous: Option<&Scan>) -> Scan {
    walk::Walk::new(root, working_dir, previous).run()
}
