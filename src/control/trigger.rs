//! What wakes the loop: file events, and nothing else from them.
//!
//! An event rings the bell and its content is not believed: events are lost,
//! doubled, late, and name paths that are something else by now. The poll
//! clock of the loop finds whatever rings no bell. Watches are on folders, one
//! for each inode, and are made anew when a path leads to another inode or
//! when an event gives reason to think the kernel or `notify` dropped one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::discover::FolderId;

/// Paths remembered between two looks; beyond it every watch is made anew.
const MAX_SUSPECTS: usize = 1024;

/// Makes a watcher that rings the given bell.
type MakeWatcher = Box<dyn Fn(Arc<Bell>) -> notify::Result<RecommendedWatcher> + Send>;

/// Rung by events; holds one ring while nobody waits.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    suspects: Mutex<Suspects>,
    /// Names of the referenced files, whose own writes ring too.
    names: ArcSwap<BTreeSet<OsString>>,
}

/// Paths that moved or went away.
#[derive(Debug, Default)]
struct Suspects {
    paths: BTreeSet<PathBuf>,
    overflow: bool,
}

impl Bell {
    /// Waits for the next ring.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Asks for a look.
    pub(super) fn ring(&self) {
        self.rung.notify_one();
    }

    fn event(&self, event: &notify::Result<Event>) {
        match event {
            Ok(event) => {
                if matters(event, &self.names.load()) {
                    self.suspect(event);
                    self.ring();
                }
            }
            // Lost events or watches: look.
            Err(_) => self.ring(),
        }
    }

    fn suspect(&self, event: &Event) {
        let moved = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) | EventKind::Other
        );
        if !moved {
            return;
        }
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.paths.len() + event.paths.len() > MAX_SUSPECTS || event.need_rescan() {
            suspects.overflow = true;
        } else {
            suspects.paths.extend(event.paths.iter().cloned());
        }
    }

    fn take_suspects(&self) -> Suspects {
        std::mem::take(&mut self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Suspects {
    /// Whether a watch on `path` may be dead: it or a folder above it moved.
    fn cover(&self, path: &Path) -> bool {
        self.overflow || path.ancestors().any(|above| self.paths.contains(above))
    }
}

/// Reading rings no bell, or a scan would cause the next one; nor does a write
/// to a file that cannot be configuration (an app's log beside its file).
fn matters(event: &Event, names: &BTreeSet<OsString>) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Data(_)) => event.paths.iter().any(|path| {
            let by_extension = path.extension().is_some_and(|extension| {
                ["json", "yaml", "yml"]
                    .iter()
                    .any(|known| extension == *known)
            });
            by_extension || path.file_name().is_some_and(|name| names.contains(name))
        }),
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Keeps the watches in step with the folders.
pub(super) struct Trigger {
    bell: Arc<Bell>,
    make: MakeWatcher,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<FolderId, PathBuf>,
    /// Said already that there are no events, or not from everywhere.
    said: bool,
}

impl Trigger {
    /// No watches yet; never fails: without events the poll does it all.
    pub(super) fn new() -> Self {
        Self::on(Arc::default())
    }

    /// The same on a bell that is waited for already.
    pub(super) fn on(bell: Arc<Bell>) -> Self {
        let make = |bell: Arc<Bell>| notify::recommended_watcher(move |event| bell.event(&event));
        Self::with_watcher(bell, Box::new(make))
    }

    fn with_watcher(bell: Arc<Bell>, make: MakeWatcher) -> Self {
        Self {
            bell,
            make,
            watcher: None,
            watched: BTreeMap::new(),
            said: false,
        }
    }

    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Watches these folders and no others. Blocks on the watcher's thread.
    ///
    /// Returns whether a watch was added: what happened in that folder before
    /// needs another look.
    pub(super) fn watch(
        &mut self,
        folders: &BTreeMap<PathBuf, FolderId>,
        names: BTreeSet<OsString>,
    ) -> bool {
        if **self.bell.names.load() != names {
            self.bell.names.store(Arc::new(names));
        }
        let suspects = self.bell.take_suspects();
        let Some(mut watcher) = self.watcher() else {
            return false;
        };
        let mut wanted: BTreeMap<FolderId, &Path> = BTreeMap::new();
        for (path, id) in folders {
            wanted.entry(*id).or_insert(path);
        }
        self.watched.retain(|id, path| {
            let keep = wanted.get(id) == Some(&path.as_path()) && !suspects.cover(path);
            if !keep {
                // An error means that it is gone already.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        let mut added = false;
        let mut missed = None;
        let mut missing: Vec<(FolderId, &Path)> = wanted
            .into_iter()
            .filter(|(id, _)| !self.watched.contains_key(id))
            .collect();
        // Where watches run out, the upper folders are worth most.
        missing.sort_by_key(|(_, path)| path.components().count());
        for (id, path) in missing {
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    added = true;
                    self.watched.insert(id, path.to_owned());
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => {
                    missed = Some(error);
                    break;
                }
            }
        }
        self.watcher = Some(watcher);
        self.say(missed.as_ref());
        added
    }

    fn watcher(&mut self) -> Option<RecommendedWatcher> {
        if let Some(watcher) = self.watcher.take() {
            return Some(watcher);
        }
        // A new watcher watches nothing yet.
        self.watched.clear();
        match (self.make)(self.bell()) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                self.say(Some(&error));
                None
            }
        }
    }

    /// Once when events fail, once when they are back.
    fn say(&mut self, error: Option<&notify::Error>) {
        match error {
            Some(error) if !self.said => tracing::warn!(
                %error,
                "no file events, or not from every folder; changes are found by polling"
            ),
            None if self.said => tracing::info!("file events from every folder again"),
            _ => {}
        }
        self.said = error.is_some();
    }

    #[cfg(test)]
    fn watches(&self) -> usize {
        self.watched.len()
    }
}

#[cfg(test)]
#[path = "trigger_tests.rs"]
mod tests;
