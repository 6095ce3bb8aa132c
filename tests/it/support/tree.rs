//! A services tree in a folder of its own, changed the ways people and tools
//! change files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A working directory with `services/` in it; removed when dropped.
pub(crate) struct Tree {
    folder: TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("outrigger-")
            .tempdir()
            .expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("services")).expect("the folder is ours");
        Self { folder }
    }

    /// With these services, given as `domain/name` and YAML.
    pub(crate) fn with(services: &[(&str, &str)]) -> Self {
        let tree = Self::new();
        for (name, text) in services {
            tree.write(name, text);
        }
        tree
    }

    /// Where the daemon is started.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn services(&self) -> PathBuf {
        self.root().join("services")
    }

    /// The folder of a service.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.services().join(name)
    }

    /// The YAML file of a service.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder(name).join("service.config.yaml")
    }

    /// Writes a service's YAML file in place, making its folder.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.folder(name)).expect("the folder is ours");
        fs::write(self.file(name), text).expect("the file is ours");
    }

    /// Replaces a service's YAML file by renaming a new one over it.
    pub(crate) fn replace(&self, name: &str, text: impl AsRef<[u8]>) {
        replace(&self.file(name), text);
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_dir_all(self.folder(name)).expect("the service is there");
    }

    /// Writes any file below the root, making its folders.
    pub(crate) fn put(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        let parent = path.parent().expect("a file below the root has a parent");
        fs::create_dir_all(parent).expect("the folder is ours");
        fs::write(&path, text).expect("the file is ours");
        path
    }

    /// Copies `examples/<name>` of the project to `services/<name>`.
    pub(crate) fn copy_example(&self, name: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        copy(&from, &self.services().join(name));
    }
}

/// Renames a freshly written file over `path`.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>) {
    let beside = path.with_extension("new~");
    fs::write(&beside, text).expect("the file is ours");
    fs::rename(&beside, path).expect("both are in one folder");
}

/// Swaps a symbolic link atomically, as the kubelet does with `..data`.
pub(crate) fn swap_link(link: &Path, target: &str) {
    let beside = link.with_file_name("..data_tmp");
    symlink(target, &beside).expect("the folder is ours");
    fs::rename(&beside, link).expect("both are in one folder");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("the example is there") {
        let entry = entry.expect("the example is readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the file is readable");
        }
    }
}
