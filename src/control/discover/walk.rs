//! One walk over the tree: two levels deep, whatever lies below.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::{CONFIG_NAMES, FlatFile, is_hidden};
use super::{Blind, FolderId, MAX_ENTRIES, MAX_SERVICES, MAX_TREE_BYTES, Scan};
use crate::config::{FileContent, MAX_FILE_BYTES, Problem, Tree, TreeFile};
use crate::control::read::{ReadError, regular_file};
use crate::model::{InvalidName, Origin, ServiceName};

/// Holds what services share, in the root or in a domain; never a service.
const SHARED: &str = "shared";

/// The state of one walk.
pub(super) struct Walk<'a> {
    root: &'a Path,
    working_dir: &'a Path,
    previous: Option<&'a Scan>,
    found: BTreeMap<ServiceName, Vec<Found>>,
    problems: Vec<Problem>,
    blind: Blind,
    folders: BTreeMap<PathBuf, FolderId>,
    /// Reused for every file.
    buffer: Vec<u8>,
    entries: usize,
    bytes: usize,
}

/// One file that claims to be a service's.
struct Found {
    path: PathBuf,
    folder: PathBuf,
    content: FileContent,
}

/// One name of a folder.
struct Entry {
    name: OsString,
    kind: FileType,
}

/// What a name leads to.
enum Target {
    Folder(FolderId),
    Other,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Path, working_dir: &'a Path, previous: Option<&'a Scan>) -> Self {
        Self {
            root,
            working_dir,
            previous,
            found: BTreeMap::new(),
            problems: Vec::new(),
            blind: Blind::default(),
            folders: BTreeMap::new(),
            buffer: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    pub(super) fn run(mut self) -> Scan {
        if let Err(error) = self.walk_root() {
            self.blind.everything = true;
            let message = match error.kind() {
                io::ErrorKind::NotFound => "the services folder does not exist".to_owned(),
                io::ErrorKind::NotADirectory => "the services folder is not a folder".to_owned(),
                _ => format!("the services folder cannot be read: {error}"),
            };
            let problem = Problem::error(Origin::file(self.root), message);
            self.problems
                .push(problem.hint("set `servicesDir` or pass --services"));
        }
        let mut files = Vec::with_capacity(self.found.len());
        for (name, found) in std::mem::take(&mut self.found) {
            files.extend(self.settle(name, found));
        }
        Scan {
            tree: Tree {
                root: self.root.to_owned(),
                files,
                problems: self.problems,
            },
            blind: self.blind,
            folders: self.folders,
        }
    }

    fn walk_root(&mut self) -> io::Result<()> {
        let metadata = fs::metadata(self.root)?;
        let entries = self.list(self.root)?;
        self.folders
            .insert(self.root.to_owned(), FolderId::of(&metadata));
        for entry in entries {
            let path = self.root.join(&entry.name);
            let text = entry.name.to_string_lossy();
            match FlatFile::of(&text) {
                FlatFile::Service(name) => self.take(name, path, self.root.to_owned()),
                FlatFile::Misplaced => self.warn(
                    &path,
                    "lies directly in the services folder and is not read",
                    "move it to <domain>/<service>/, or name it <domain>.<service>.yaml",
                ),
                FlatFile::Misnamed if !entry.kind.is_dir() => self.warn(
                    &path,
                    "is not named <domain>.<service> and is not read",
                    "names are 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit",
                ),
                FlatFile::Other | FlatFile::Misnamed if text != SHARED => {
                    self.walk_first_level(&path, &text, entry.kind);
                }
                FlatFile::Other | FlatFile::Misnamed => {}
            }
        }
        Ok(())
    }

    /// A folder that is a domain, a service of the default domain, or both.
    fn walk_first_level(&mut self, path: &Path, name: &str, kind: FileType) {
        let id = match self.resolve(path, kind, self.root) {
            Ok(Target::Folder(id)) => id,
            Ok(Target::Other) => return,
            Err(message) => {
                self.blind.folders.insert(name.to_owned());
                let problem = message.map(|message| self.error(path, message));
                self.problems.extend(problem);
                return;
            }
        };
        let entries = match self.list(path) {
            Ok(entries) => entries,
            Err(error) => {
                self.blind.folders.insert(name.to_owned());
                if error.kind() != io::ErrorKind::NotFound {
                    let message = format!("the folder cannot be read: {error}");
                    self.problems.push(self.error(path, message));
                }
                return;
            }
        };
        self.folders.insert(path.to_owned(), id);
        let mut is_service = false;
        for entry in &entries {
            if CONFIG_NAMES.iter().any(|config| entry.name == *config) {
                is_service = true;
                let service = ServiceName::new(ServiceName::DEFAULT_DOMAIN, name);
                self.take_checked(service, path.join(&entry.name), path);
            }
        }
        for entry in entries {
            if entry.name != SHARED && !CONFIG_NAMES.iter().any(|config| entry.name == *config) {
                let child = path.join(&entry.name);
                self.walk_second_level(&child, (name, &entry), is_service);
            }
        }
    }

    fn walk_second_level(
        &mut self,
        path: &Path,
        (domain, entry): (&str, &Entry),
        parent_is_service: bool,
    ) {
        let service = ServiceName::new(domain, &entry.name.to_string_lossy());
        let parent = path.parent().unwrap_or(self.root);
        let id = match self.resolve(path, entry.kind, parent) {
            Ok(Target::Folder(id)) => id,
            Ok(Target::Other) => return,
            Err(message) => {
                // Inside a service's own folder a broken link is the service's affair.
                if let (Ok(service), false) = (service, parent_is_service) {
                    let problem = message.map(|message| self.error(path, message).of(&service));
                    self.problems.extend(problem);
                    self.blind.services.insert(service);
                }
                return;
            }
        };
        let mut any = false;
        for config in CONFIG_NAMES {
            let file = path.join(config);
            match self.read(&file, service.as_ref().ok()) {
                Ok(None) => {}
                Ok(Some(content)) => {
                    any = true;
                    match &service {
                        Ok(service) => self.add(service.clone(), file, path.to_owned(), content),
                        Err(invalid) => self.misnamed(&file, invalid),
                    }
                }
                Err(error) => {
                    if let (Ok(service), false) = (&service, parent_is_service) {
                        self.blind.services.insert(service.clone());
                        let message = format!("the folder cannot be read: {error}");
                        self.problems.push(self.error(path, message).of(service));
                    }
                    break;
                }
            }
        }
        // A service's own sources are not worth a watch; the poll would find a
        // service begun there.
        if any || (service.is_ok() && !parent_is_service) {
            self.folders.insert(path.to_owned(), id);
        }
    }

    /// The names of a folder in order, hidden ones left out.
    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                if !self.blind.everything {
                    self.blind.everything = true;
                    let message = format!("the tree holds more than {MAX_ENTRIES} names");
                    self.problems.push(self.error(folder, message));
                }
                break;
            }
            let name = entry.file_name();
            if !is_hidden(&name) {
                let kind = entry.file_type()?;
                entries.push(Entry { name, kind });
            }
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    /// Follows links. An error means that nothing is known of what is there;
    /// the text says why, unless it just went away.
    fn resolve(
        &self,
        path: &Path,
        kind: FileType,
        parent: &Path,
    ) -> Result<Target, Option<String>> {
        if !kind.is_dir() && !kind.is_symlink() {
            return Ok(Target::Other);
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind.is_symlink() => {
                return Err(Some("is a symbolic link to nowhere".to_owned()));
            }
            // Gone since it was listed: the next scan knows.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(Some("is a symbolic link that loops".to_owned()));
            }
            Err(error) => return Err(Some(format!("cannot be read: {error}"))),
        };
        if !metadata.is_dir() {
            return Ok(Target::Other);
        }
        if kind.is_symlink() && self.leads_upward(path, parent) {
            let message = "is a symbolic link to a folder above it: the tree would hold itself";
            return Err(Some(message.to_owned()));
        }
        Ok(Target::Folder(FolderId::of(&metadata)))
    }

    fn leads_upward(&self, path: &Path, parent: &Path) -> bool {
        let Ok(target) = path.canonicalize() else {
            return true;
        };
        [self.root, parent].iter().any(|above| {
            above
                .canonicalize()
                .is_ok_and(|above| above.starts_with(&target))
        })
    }

    fn take_checked(
        &mut self,
        service: Result<ServiceName, InvalidName>,
        path: PathBuf,
        folder: &Path,
    ) {
        match service {
            Ok(service) => self.take(service, path, folder.to_owned()),
            Err(invalid) => self.misnamed(&path, &invalid),
        }
    }

    /// Reads a file that was seen in a listing.
    fn take(&mut self, service: ServiceName, path: PathBuf, folder: PathBuf) {
        match self.read(&path, Some(&service)) {
            Ok(Some(content)) => self.add(service, path, folder, content),
            // Gone since it was listed: the next scan knows.
            Ok(None) => {
                self.blind.services.insert(service);
            }
            Err(error) => {
                let content = FileContent::Unreadable(format!("cannot be read: {error}"));
                self.add(service, path, folder, content);
            }
        }
    }

    /// `None` = cleanly absent; an error = the folder does not let us look.
    fn read(
        &mut self,
        path: &Path,
        service: Option<&ServiceName>,
    ) -> io::Result<Option<FileContent>> {
        match regular_file(path, MAX_FILE_BYTES, &mut self.buffer) {
            Ok(()) => {}
            Err(ReadError::Absent) => return Ok(None),
            Err(ReadError::Hidden(error)) => return Err(error),
            Err(ReadError::Refused(text)) => return Ok(Some(FileContent::Unreadable(text))),
        }
        self.bytes += self.buffer.len();
        if self.bytes > MAX_TREE_BYTES {
            let limit = MAX_TREE_BYTES >> 20;
            let text = format!("is not read: the files before it fill {limit} MiB");
            return Ok(Some(FileContent::Unreadable(text)));
        }
        let known = service.and_then(|service| self.previous?.file(service));
        let bytes = match known.map(|file| (&file.path, &file.content)) {
            Some((known, FileContent::Bytes(bytes)))
                if known == path && **bytes == *self.buffer =>
            {
                Arc::clone(bytes)
            }
            _ => Arc::from(self.buffer.as_slice()),
        };
        Ok(Some(FileContent::Bytes(bytes)))
    }

    fn add(&mut self, name: ServiceName, path: PathBuf, folder: PathBuf, content: FileContent) {
        if self.found.len() >= MAX_SERVICES && !self.found.contains_key(&name) {
            if !self.blind.everything {
                self.blind.everything = true;
                let message = format!("more than {MAX_SERVICES} services; this one is not read");
                self.problems.push(self.error(&path, message).of(&name));
            }
            return;
        }
        self.found.entry(name).or_default().push(Found {
            path,
            folder,
            content,
        });
    }

    /// One file a service; several are an error for all of them.
    fn settle(&mut self, name: ServiceName, mut found: Vec<Found>) -> Option<TreeFile> {
        let shown: Vec<String> = found
            .iter()
            .map(|file| format!("`{}`", self.shown(&file.path).display()))
            .collect();
        let others = found.split_off(1.min(found.len()));
        let mut first = found.pop()?;
        if !others.is_empty() {
            let message = format!("{name} is described more than once: {}", shown.join(", "));
            for other in &others {
                let problem = self.error(&other.path, message.clone()).of(&name);
                self.problems.push(problem.hint("keep one of the files"));
            }
            first.content = FileContent::Unreadable(message);
        }
        Some(TreeFile {
            shown: self.shown(&first.path),
            name,
            path: first.path,
            folder: first.folder,
            content: first.content,
        })
    }

    fn misnamed(&mut self, path: &Path, invalid: &InvalidName) {
        self.problems.push(self.error(path, invalid.to_string()));
    }

    fn warn(&mut self, path: &Path, message: &str, hint: &str) {
        let origin = Origin::file(self.shown(path));
        self.problems
            .push(Problem::warning(origin, message).hint(hint));
    }

    fn error(&self, path: &Path, message: impl Into<String>) -> Problem {
        Problem::error(Origin::file(self.shown(path)), message)
    }

    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.working_dir)
            .unwrap_or(path)
            .to_owned()
    }
}
