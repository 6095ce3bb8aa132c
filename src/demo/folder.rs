//! A folder of the demo's own, removed with everything in it when dropped.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::config::Environment;

/// Tries to find a name nobody uses.
const ATTEMPTS: usize = 16;

pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Below `TMPDIR` or `/tmp`, readable by this user only.
    ///
    /// # Errors
    /// Whatever `mkdir` says.
    pub(super) fn create(environment: &Environment) -> io::Result<Self> {
        let parent = Path::new(environment.value("TMPDIR").unwrap_or("/tmp"));
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("outrigger-demo-{:08x}", fastrand::u32(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file below the folder, making the folders between.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the parent.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_files() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let text = parent.path().to_str().expect("text");
        let environment = Environment::from_pairs([("TMPDIR", text)]);
        let folder = Folder::create(&environment).expect("made");
        folder.write("a/b.txt", "text").expect("written");
        let path = folder.path().to_owned();
        assert_eq!(
            fs::read_to_string(path.join("a/b.txt")).expect("there"),
            "text"
        );
        drop(folder);
        assert!(!path.exists() && parent.path().exists());
    }
}
