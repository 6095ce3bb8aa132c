//! Reading files that configuration names, within bounds.

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::patience::Patience;
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
    #[error("does not answer")]
    Silent,
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
    /// After resolving symbolic links, below one of the folders, and none of
    /// the files that the process's own settings are made of.
    Below {
        folders: Vec<PathBuf>,
        except: Arc<BTreeSet<PathBuf>>,
    },
}

/// What reading gave: the same for every service that names the file.
pub(crate) type Loaded = Result<Arc<[u8]>, FileFault>;

/// Reads each file once per turn.
#[derive(Debug, Default)]
pub(crate) struct Files {
    contents: HashMap<PathBuf, Loaded>,
    /// Canonical forms of bounds and of named files.
    canonical: HashMap<PathBuf, Result<PathBuf, FileFault>>,
    patience: Patience,
}

impl Files {
    /// With what is known of folders that do not answer.
    pub(crate) fn asking(patience: &Patience) -> Self {
        Self {
            patience: patience.clone(),
            ..Self::default()
        }
    }

    /// The content of an absolute path, if it lies within the bounds.
    pub(crate) fn load(&mut self, path: &Path, bounds: &Bounds) -> Loaded {
        // Folders first: one that hangs is then known for every file in it.
        let folders = match bounds {
            Bounds::Anywhere => None,
            Bounds::Below { folders, .. } => Some(self.all_canonical(folders)),
        };
        let real = self.canonical(path)?;
        if let Some(folders) = folders {
            let is_inside = |folder: &PathBuf| real.starts_with(folder) && real != *folder;
            if !folders.iter().any(is_inside) {
                return Err(FileFault::OutOfBounds);
            }
        }
        if let Bounds::Below { except, .. } = bounds {
            let is_it = |file: &PathBuf| self.canonical(file).is_ok_and(|file| file == real);
            if except.iter().any(is_it) {
                return Err(FileFault::OutOfBounds);
            }
        }
        if let Some(known) = self.contents.get(&real) {
            return known.clone();
        }
        let file = real.clone();
        let answer = self.patience.ask(&real, move || read_regular(&file));
        let loaded = answer.unwrap_or(Err(FileFault::Silent)).map(Arc::from);
        self.contents.insert(real, loaded.clone());
        loaded
    }

    fn all_canonical(&mut self, folders: &[PathBuf]) -> Vec<PathBuf> {
        let canonical = folders.iter().map(|folder| self.canonical(folder));
        canonical.filter_map(Result::ok).collect()
    }

    fn canonical(&mut self, path: &Path) -> Result<PathBuf, FileFault> {
        if let Some(known) = self.canonical.get(path) {
            return known.clone();
        }
        let named = path.to_owned();
        let answer = self
            .patience
            .ask(path, move || std::fs::canonicalize(named));
        let real = match answer {
            Some(real) => real.map_err(FileFault::from),
            None => Err(FileFault::Silent),
        };
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
        let bounds = Bounds::Below {
            folders: vec![inside.clone()],
            except: Arc::default(),
        };
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
