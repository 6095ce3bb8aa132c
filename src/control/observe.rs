//! Looking until the files hold still: what the loop believes it saw.
//!
//! A file counts only when its bytes are the same at both ends of the quiet
//! window (SPEC §1.3). Looks run on the blocking pool, one at a time; a file
//! system that does not answer costs one thread and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::discover::{FolderId, Scan, same_content, scan};
use super::fingerprint::{Fingerprint, fingerprint};
use crate::config::Patience;
use crate::model::{ReloadSettings, ServiceName};

/// A look that takes longer is given up for this turn; 10 000 services on a
/// slow disk stay well below.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// What the kernel has not seen changed for this long is not being written: far
/// more than a quiet window, for clocks of file servers that go after ours.
const RESTED: Duration = Duration::from_secs(2);
/// A file system that takes longer to say so gets the quiet window.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The tree and the referenced files at one time.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) scan: Scan,
    /// Services whose file was still changing when the window closed.
    pub(super) unsettled: BTreeSet<ServiceName>,
    referenced: BTreeMap<PathBuf, Fingerprint>,
    /// Folders of the root and of the referenced files.
    around: BTreeMap<PathBuf, FolderId>,
}

impl Observation {
    /// Whether anything differs.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.referenced == other.referenced
            && self.unsettled == other.unsettled
            && self.scan.same_as(&other.scan)
    }

    /// Whether any of these files differs.
    pub(super) fn differs_in(&self, other: &Self, paths: &BTreeSet<PathBuf>) -> bool {
        paths
            .iter()
            .any(|path| self.referenced.get(path) != other.referenced.get(path))
    }

    /// Every folder worth watching.
    pub(super) fn folders(&self) -> BTreeMap<PathBuf, FolderId> {
        let mut folders = self.around.clone();
        folders.extend(
            self.scan
                .folders
                .iter()
                .map(|(path, id)| (path.clone(), *id)),
        );
        folders
    }
}

/// The file system did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hung;

/// Looks at one tree.
#[derive(Debug)]
pub(super) struct Observer {
    root: Arc<Path>,
    working_dir: Arc<Path>,
    /// The last look, whose bytes are shared with the next.
    last: Option<Arc<Observation>>,
    /// For referenced files, which may lie on another file system than the tree.
    patience: Patience,
    /// A look that was given up and still runs.
    running: Option<JoinHandle<Arc<Observation>>>,
}

impl Observer {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: Arc::from(root),
            // Without a working directory paths are shown absolute.
            working_dir: Arc::from(std::env::current_dir().unwrap_or_default()),
            last: None,
            patience: Patience::default(),
            running: None,
        }
    }

    /// Looks once.
    pub(super) async fn look(
        &mut self,
        referenced: &Arc<BTreeSet<PathBuf>>,
    ) -> Result<Arc<Observation>, Hung> {
        let mut running = self.running.take().unwrap_or_else(|| {
            let (root, working_dir) = (Arc::clone(&self.root), Arc::clone(&self.working_dir));
            let (last, referenced) = (self.last.clone(), Arc::clone(referenced));
            let patience = self.patience.clone();
            tokio::task::spawn_blocking(move || {
                let scan = scan(&root, &working_dir, last.as_deref().map(|last| &last.scan));
                Arc::new(look(&root, scan, &referenced, &patience))
            })
        });
        match timeout(LOOK_TIMEOUT, &mut running).await {
            Ok(Ok(seen)) => {
                self.last = Some(Arc::clone(&seen));
                Ok(seen)
            }
            // The look panicked: as little is known as when it hangs.
            Ok(Err(_)) => Err(Hung),
            Err(_) => {
                self.running = Some(running);
                Err(Hung)
            }
        }
    }

    /// Whether nothing in the tree was changed for [`RESTED`]: then its bytes
    /// were the same at both ends of a window that has passed already. By the
    /// change time, which no program can set. Blocks on a thread of its own.
    pub(super) async fn has_rested(&self, seen: &Arc<Observation>) -> bool {
        let seen = Arc::clone(seen);
        let rested = tokio::task::spawn_blocking(move || {
            let files = seen.scan.tree.files.iter().map(|file| file.path.as_path());
            let folders = seen.scan.folders.keys().map(PathBuf::as_path);
            files.chain(folders).all(rested)
        });
        // What hangs is not waited for.
        matches!(timeout(AT_ONCE, rested).await, Ok(Ok(true)))
    }

    /// Looks until two looks, a quiet window apart, agree, or the window is at
    /// its maximum; then only the files that agree count.
    pub(super) async fn settle(
        &mut self,
        first: Arc<Observation>,
        referenced: &Arc<BTreeSet<PathBuf>>,
        settings: &ReloadSettings,
    ) -> Result<Arc<Observation>, Hung> {
        let begun = Instant::now();
        let mut before = first;
        loop {
            tokio::time::sleep(settings.quiet).await;
            let after = self.look(referenced).await?;
            if before.same_as(&after) {
                return Ok(after);
            }
            if begun.elapsed() >= settings.max {
                let settled = settled_part(&before, &after);
                return Ok(Arc::new(settled));
            }
            before = after;
        }
    }
}

fn rested(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else {
        return false;
    };
    let changed = u64::try_from(metadata.ctime())
        .ok()
        .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    // A time to come is no age.
    changed.is_some_and(|changed| {
        let age = SystemTime::now().duration_since(changed);
        age.is_ok_and(|age| age > RESTED)
    })
}

fn settled_part(before: &Observation, after: &Observation) -> Observation {
    let moved = |name: &ServiceName| {
        before
            .scan
            .file(name)
            .zip(after.scan.file(name))
            .is_none_or(|(before, after)| !same_content(before, after))
    };
    let names = after.scan.tree.files.iter().map(|file| file.name.clone());
    Observation {
        scan: after.scan.clone(),
        unsettled: names.filter(moved).collect(),
        referenced: after.referenced.clone(),
        around: after.around.clone(),
    }
}

fn look(
    root: &Path,
    scan: Scan,
    referenced: &BTreeSet<PathBuf>,
    patience: &Patience,
) -> Observation {
    // Folders first: one that hangs is then known for every file in it.
    let parents = referenced.iter().map(PathBuf::as_path).chain([root]);
    let mut around = BTreeMap::new();
    for folder in parents.filter_map(Path::parent) {
        if !around.contains_key(folder) {
            let asked = folder.to_owned();
            let answer = patience.ask(folder, move || fs::metadata(asked));
            if let Some(Ok(metadata)) = answer {
                around.insert(folder.to_owned(), FolderId::of(&metadata));
            }
        }
    }
    let referenced = referenced
        .iter()
        .map(|path| {
            let asked = path.clone();
            let answer = patience.ask(path, move || fingerprint(&asked));
            (path.clone(), answer.unwrap_or(Fingerprint::Silent))
        })
        .collect();
    Observation {
        scan,
        unsettled: BTreeSet::new(),
        referenced,
        around,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::MAX_FILE_BYTES;

    const SETTINGS: ReloadSettings = ReloadSettings {
        poll: Duration::from_secs(5),
        quiet: Duration::from_millis(50),
        max: Duration::from_millis(200),
    };

    fn write(folder: &Path, name: &str, text: &str) {
        fs::create_dir_all(folder).expect("folder");
        fs::write(folder.join(name), text).expect("write");
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_does_not_count() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "shop.cart.yaml", "port: 1\n");
        write(folder.path(), "shop.pay.yaml", "port: 2\n");
        let none = Arc::default();
        let mut observer = Observer::new(folder.path());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (stop, path) = (Arc::clone(&stop), folder.path().join("shop.cart.yaml"));
            tokio::task::spawn_blocking(move || {
                let mut file = fs::File::options().append(true).open(path).expect("open");
                let mut lines = 0;
                while !stop.load(Ordering::Relaxed) && lines < 50_000 {
                    file.write_all(b"# more\n").expect("append");
                    lines += 1;
                    std::thread::yield_now();
                }
            })
        };
        let first = observer.look(&none).await.expect("answers");
        let settled = observer.settle(first, &none, &SETTINGS).await;
        stop.store(true, Ordering::Relaxed);
        writer.await.expect("writer");
        let settled = settled.expect("answers");
        let unsettled: Vec<_> = settled.unsettled.iter().map(ServiceName::key).collect();
        // Where the writer is done before the window closes, all have settled.
        assert!(
            unsettled == ["shop/cart"] || unsettled.is_empty(),
            "{unsettled:?}"
        );
        let first = observer.look(&none).await.expect("answers");
        let settled = observer.settle(first, &none, &SETTINGS).await;
        assert!(settled.expect("answers").unsettled.is_empty());
    }

    #[test]
    fn what_moved_between_two_looks_is_unsettled() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "shop.cart.yaml", "port: 1\n");
        write(folder.path(), "shop.pay.yaml", "port: 2\n");
        let none = BTreeSet::new();
        let take = || {
            let scan = scan(folder.path(), folder.path(), None);
            look(folder.path(), scan, &none, &Patience::default())
        };
        let before = take();
        write(folder.path(), "shop.cart.yaml", "port: 11\n");
        write(folder.path(), "shop.new.yaml", "port: 3\n");
        let after = take();
        let unsettled = settled_part(&before, &after).unsettled;
        let unsettled: Vec<_> = unsettled.iter().map(ServiceName::key).collect();
        assert_eq!(unsettled, ["shop/cart", "shop/new"]);
    }

    #[test]
    fn referenced_files_and_folders_are_told_apart() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("services");
        let paths: BTreeSet<_> = ["key", "gone", "migrations", "large"]
            .map(|name| folder.path().join(name))
            .into();
        write(folder.path(), "key", "1");
        write(&folder.path().join("migrations"), "1.sql", "select 1");
        let large = "x".repeat(usize::try_from(MAX_FILE_BYTES).expect("small") + 1);
        write(folder.path(), "large", &large);
        let take = || {
            let scan = scan(&root, folder.path(), None);
            look(&root, scan, &paths, &Patience::default())
        };
        let before = take();
        assert!(before.same_as(&take()));
        assert!(before.folders().contains_key(folder.path()));
        write(folder.path(), "key", "2");
        let after = take();
        assert!(!before.same_as(&after));
        assert!(before.differs_in(&after, &[folder.path().join("key")].into()));
        assert!(!before.differs_in(&after, &[folder.path().join("large")].into()));
        write(&folder.path().join("migrations"), "2.sql", "select 2");
        assert!(!after.same_as(&take()));
        let after = take();
        write(folder.path(), "gone", "");
        assert!(!after.same_as(&take()));
    }
}
