//! Whether a service's migration files changed while it is up.

use std::path::PathBuf;

use aws_lc_rs::digest::{Context, SHA256};

use super::migrate::read_folder;

/// Looks at one folder now and then.
#[derive(Debug)]
pub struct MigrationWatch {
    folder: PathBuf,
    /// As it was when its files were run or refused last.
    tried: Option<[u8; 32]>,
    last: Option<[u8; 32]>,
}

impl MigrationWatch {
    /// Of a folder whose files have not been tried.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            tried: None,
            last: None,
        }
    }

    /// To be called right before the files are tried.
    pub async fn trying(&mut self) {
        self.tried = self.look().await;
        self.last = self.tried;
    }

    /// Whether the files differ from those tried last and have been the same for
    /// two looks: nobody is writing them any more.
    pub async fn has_settled_change(&mut self) -> bool {
        let now = self.look().await;
        let settled = now == self.last;
        self.last = now;
        settled && now.is_some() && now != self.tried
    }

    async fn look(&self) -> Option<[u8; 32]> {
        let folder = self.folder.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let mut context = Context::new(&SHA256);
            match read_folder(&folder) {
                Ok(files) => {
                    for (name, checksum) in files {
                        context.update(name.as_bytes());
                        context.update(&checksum);
                    }
                }
                Err(message) => context.update(message.as_bytes()),
            }
            let mut digest = [0; 32];
            digest.copy_from_slice(context.finish().as_ref());
            digest
        });
        // The runtime ends.
        looked.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_counts_once_it_has_settled() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |text: &str| {
            std::fs::write(folder.path().join("1_a.sql"), text).expect("file");
        };
        let mut watch = MigrationWatch::new(folder.path().to_path_buf());
        watch.trying().await;
        assert!(!watch.has_settled_change().await);
        write("select 1");
        assert!(!watch.has_settled_change().await);
        write("select 2");
        assert!(!watch.has_settled_change().await, "still being written");
        assert!(watch.has_settled_change().await);
        watch.trying().await;
        assert!(!watch.has_settled_change().await);
        std::fs::write(folder.path().join("bad.sql"), "").expect("file");
        assert!(!watch.has_settled_change().await);
        assert!(watch.has_settled_change().await, "also what cannot be used");
    }
}
