//! Reading files that configuration names, within bounds.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::tree::MAX_FILE_BYTES;

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    #[error("does not exist")]
    Missing,
    #[error("is no regular file")]
    Irregular,
    #[error("is larger than 1 MiB")]
    TooLarge,
    #[error("lies outside the folders a service may read")]
    OutOfBounds,
    /// The operating system's text.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl From<std::io::Error> for FileFault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// Reads a regular file of at most 1 MiB, following symbolic links. A FIFO or
/// device is refused without waiting for it.
///
/// # Errors
/// See [`FileFault`].
pub fn read_regular(path: &Path) -> Result<Vec<u8>, FileFault> {
    // Without O_NONBLOCK, opening a FIFO waits for a writer.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileFault::Irregular);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(FileFault::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileFault::TooLarge);
    }
    Ok(bytes)
}

/// The folders below which files may be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// The process's own file is trusted.
    Anywhere,
    /// After resolving symbolic links, below one of these.
    Below(Vec<PathBuf>),
}

/// What reading gave: the same for every service that names the file.
pub(crate) type Loaded = Result<Arc<[u8]>, FileFault>;

/// Reads each file once per turn.
#[derive(Debug, Default)]
pub(crate) struct Files {
    contents: HashMap<PathBuf, Loaded>,
    /// Canonical forms of bounds and of named files.
    canonical: HashMap<PathBuf, Option<PathBuf>>,
}

impl Files {
    /// The content of an absolute path, if it lies within the bounds.
    pub(crate) fn load(&mut self, path: &Path, bounds: &Bounds) -> Loaded {
        let Some(real) = self.canonical(path) else {
            return match std::fs::canonicalize(path) {
                Err(error) => Err(error.into()),
                Ok(_) => Err(FileFault::Missing),
            };
        };
        if let Bounds::Below(folders) = bounds {
            let inside = folders.iter().any(|folder| {
                self.canonical(folder)
                    .is_some_and(|folder| real.starts_with(&folder) && real != folder)
            });
            if !inside {
                return Err(FileFault::OutOfBounds);
            }
        }
        if let Some(known) = self.contents.get(&real) {
            return known.clone();
        }
        let loaded = read_regular(&real).map(Arc::from);
        self.contents.insert(real, loaded.clone());
        loaded
    }

    fn canonical(&mut self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.canonical.get(path) {
            return known.clone();
        }
        let real = std::fs::canonicalize(path).ok();
        self.canonical.insert(path.to_path_buf(), real.clone());
        real
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_bounds_and_a_fifo_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let inside = folder.path().join("service");
        std::fs::create_dir(&inside).expect("folder");
        std::fs::write(folder.path().join("secret"), "x").expect("file");
        std::fs::write(inside.join("own"), "y").expect("file");
        std::os::unix::fs::symlink("../secret", inside.join("link")).expect("link");
        std::os::unix::fs::symlink("loop", inside.join("loop")).expect("link");
        let made = std::process::Command::new("mkfifo")
            .arg(inside.join("fifo"))
            .status()
            .expect("mkfifo");
        assert!(made.success());
        let bounds = Bounds::Below(vec![inside.clone()]);
        let mut files = Files::default();
        let mut load = |name: &str| files.load(&inside.join(name), &bounds);
        assert_eq!(load("own").as_deref(), Ok(b"y".as_slice()));
        assert_eq!(load("link"), Err(FileFault::OutOfBounds));
        assert_eq!(load("../secret"), Err(FileFault::OutOfBounds));
        assert_eq!(load("fifo"), Err(FileFault::Irregular));
        assert_eq!(load("none"), Err(FileFault::Missing));
        assert_eq!(load("../service"), Err(FileFault::OutOfBounds));
        assert!(matches!(load("loop"), Err(FileFault::Unreadable(_))));
    }
}
