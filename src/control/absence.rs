//! Nothing closes by accident: when a service that is not seen is gone.
//!
//! The keeper hands on the tree as it is to be believed: what could not be
//! read, was still being written, or is not certainly gone stays as it last was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::discover::Scan;
use crate::config::{FileContent, Problem, Tree, TreeFile};
use crate::model::{Origin, ServiceName};

/// Between the two clean scans that make a removal.
const CERTAIN_AFTER: Duration = Duration::from_secs(2);
/// Before a removal of more than half of all services.
const CERTAIN_AFTER_MANY: Duration = Duration::from_secs(30);

/// What was known of the tree, and since when something is missing.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    known: BTreeMap<ServiceName, TreeFile>,
    /// File system of each folder that held a service when last seen.
    devices: BTreeMap<PathBuf, u64>,
    absent_since: BTreeMap<ServiceName, Instant>,
}

/// The tree to believe.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) tree: Tree,
    /// In the tree only because their removal is not certain.
    pub(super) leaving: BTreeSet<ServiceName>,
    /// When a removal may become certain.
    pub(super) look_again: Option<Instant>,
}

/// Why a service is not in a scan.
enum Absence {
    /// Could not look.
    Unseen,
    /// A folder is on another file system than it was: a mount may be missing.
    OtherDevice(PathBuf),
    Clean,
}

impl Keeper {
    /// Takes in a scan. `unsettled` are the services whose files were still
    /// changing; `confirmed` says that the operator wants removals now.
    pub(super) fn review(
        &mut self,
        scan: &Scan,
        unsettled: &BTreeSet<ServiceName>,
        now: Instant,
        confirmed: bool,
    ) -> Kept {
        let mut tree = Tree {
            root: scan.tree.root.clone(),
            files: Vec::with_capacity(scan.tree.files.len()),
            problems: scan.tree.problems.clone(),
        };
        let mut believed: BTreeMap<ServiceName, TreeFile> = BTreeMap::new();
        for file in &scan.tree.files {
            self.remember_devices(scan, file);
            self.absent_since.remove(&file.name);
            if let Some(file) = self.believe(file, unsettled, &mut tree.problems) {
                believed.insert(file.name.clone(), file);
            }
        }
        let absent = self.absent(scan, &mut tree.problems, confirmed);
        let total = self.known.len();
        let many = absent.len() >= 2 && absent.len() * 2 > total;
        let wait = if many {
            CERTAIN_AFTER_MANY
        } else {
            CERTAIN_AFTER
        };
        self.absent_since.retain(|name, _| absent.contains(name));
        let mut look_again = None;
        let mut certain = BTreeSet::new();
        for name in &absent {
            let since = *self.absent_since.entry(name.clone()).or_insert(now);
            if confirmed || now >= since + wait {
                certain.insert(name.clone());
            } else {
                let at = since + wait;
                look_again = Some(look_again.map_or(at, |other: Instant| other.min(at)));
            }
        }
        if many && certain.len() < absent.len() {
            tree.problems
                .push(many_gone(&tree.root, absent.len(), total));
        }
        let mut leaving = BTreeSet::new();
        for (name, file) in std::mem::take(&mut self.known) {
            if !believed.contains_key(&name) && !certain.contains(&name) {
                leaving.insert(name.clone());
                believed.insert(name, file);
            }
        }
        self.absent_since.retain(|name, _| !certain.contains(name));
        self.known.clone_from(&believed);
        tree.files = believed.into_values().collect();
        Kept {
            tree,
            leaving,
            look_again,
        }
    }

    /// The file as it is, or as it last was.
    fn believe(
        &self,
        file: &TreeFile,
        unsettled: &BTreeSet<ServiceName>,
        problems: &mut Vec<Problem>,
    ) -> Option<TreeFile> {
        let known = self.known.get(&file.name);
        if unsettled.contains(&file.name) {
            return known.cloned();
        }
        if let (FileContent::Unreadable(message), Some(known)) = (&file.content, known)
            && matches!(known.content, FileContent::Bytes(_))
        {
            let origin = Origin::file(&file.shown);
            problems.push(Problem::error(origin, message.clone()).of(&file.name));
            return Some(known.clone());
        }
        Some(file.clone())
    }

    /// The services that are cleanly gone.
    fn absent(
        &self,
        scan: &Scan,
        problems: &mut Vec<Problem>,
        confirmed: bool,
    ) -> BTreeSet<ServiceName> {
        let mut absent = BTreeSet::new();
        let mut moved = BTreeSet::new();
        let gone = self
            .known
            .values()
            .filter(|file| scan.file(&file.name).is_none());
        for file in gone {
            match self.absence(scan, file) {
                Absence::Unseen => {}
                Absence::OtherDevice(folder) if !confirmed => {
                    moved.insert(folder);
                }
                Absence::OtherDevice(_) | Absence::Clean => {
                    absent.insert(file.name.clone());
                }
            }
        }
        for folder in moved {
            let message = "services are gone and the folder is on another file system than before";
            problems.push(Problem::error(Origin::file(folder), message).hint(
                "mount it again, or confirm the removals with POST /reload?confirm=removals",
            ));
        }
        absent
    }

    fn absence(&self, scan: &Scan, file: &TreeFile) -> Absence {
        if scan.blind.covers(&file.name) {
            return Absence::Unseen;
        }
        let above = file.path.ancestors().skip(1);
        for folder in above.take_while(|folder| folder.starts_with(&scan.tree.root)) {
            let before = self.devices.get(folder);
            let now = scan.folders.get(folder).map(|id| &id.device);
            if now.is_some() && before.is_some() && before != now {
                return Absence::OtherDevice(folder.to_owned());
            }
        }
        Absence::Clean
    }

    fn remember_devices(&mut self, scan: &Scan, file: &TreeFile) {
        let above = file.path.ancestors().skip(1);
        for folder in above.take_while(|folder| folder.starts_with(&scan.tree.root)) {
            if let Some(id) = scan.folders.get(folder)
                && self.devices.get(folder) != Some(&id.device)
            {
                self.devices.insert(folder.to_owned(), id.device);
            }
        }
    }
}

fn many_gone(root: &std::path::Path, absent: usize, total: usize) -> Problem {
    let message = format!("{absent} of {total} services are gone from the tree; still served");
    let wait = CERTAIN_AFTER_MANY.as_secs();
    Problem::warning(Origin::file(root), message).hint(format!(
        "they are removed after {wait} s; POST /reload?confirm=removals does it now"
    ))
}

#[cfg(test)]
#[path = "absence_tests.rs"]
mod tests;
