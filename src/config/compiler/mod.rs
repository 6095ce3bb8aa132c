//! From a tree of files to specs, compiling only what changed.
//!
//! A turn has three steps. Every file is parsed to an outline, unless its bytes
//! and the files it names are what they were. Then each service is compiled
//! among its neighbours, unless neither it nor they changed. Last, what no file
//! can know alone is checked: two services on one port, one name in a database.
//! A file that cannot be read keeps its last outline, so that one bad file
//! never moves another service.

mod clashes;
mod entry;
mod locality;
mod lookup;
mod one;
mod parse;
mod ports;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::compilation::{Compilation, Compiled, Invalid, LocalService};
use super::compile::Resolution;
use super::problem::{Problem, Severity};
use super::process::{Environment, LoadedProcess};
use super::source::{Bounds, Files, Loaded, Patience};
use super::tree::{FileContent, Tree, TreeFile};
use crate::model::ServiceName;
use clashes::Holders;
use entry::{Entry, Output, Produced, Role};
use locality::Locality;
use lookup::Lookup;
use parse::Parsed;
use ports::Ports;

/// Compiles trees and remembers what it compiled.
#[derive(Debug)]
pub struct Compiler {
    process: LoadedProcess,
    environment: Environment,
    entries: BTreeMap<ServiceName, Entry>,
    holders: Holders,
    patience: Patience,
}

impl Compiler {
    /// A compiler without memory.
    pub fn new(process: LoadedProcess, environment: Environment) -> Self {
        Self {
            process,
            environment,
            entries: BTreeMap::new(),
            holders: Holders::default(),
            patience: Patience::default(),
        }
    }

    /// Other settings of the process: everything is compiled again.
    pub fn set_process(&mut self, process: LoadedProcess) {
        self.process = process;
        for entry in self.entries.values_mut() {
            entry.output = None;
            entry.content = FileContent::Unreadable(String::new());
        }
    }

    /// Compiles what changed since the last call. Blocks on reading the files
    /// that references name.
    pub fn compile(&mut self, tree: &Tree) -> Compilation {
        let mut turn = Turn {
            files: Files::asking(&self.patience),
            compiled: BTreeSet::new(),
            notes: Vec::new(),
        };
        let locality = Locality::new(tree, &self.process);
        let mut problems = tree.problems.clone();
        problems.extend(locality.problems(&self.process));
        self.parse(tree, &locality, &mut turn);
        self.show_new_versions();
        let mut clashes = BTreeMap::new();
        let mut ports = self.share_out(&mut clashes);
        self.compile_each(tree, &ports, &mut turn);
        if self.fall_back_where_bad() {
            // What a bad version would have moved or taken stays where it was.
            ports = self.share_out(&mut clashes);
            self.compile_each(tree, &ports, &mut turn);
        }
        problems.extend(ports.warning(&tree.root));
        self.collect(problems, &ports, clashes, turn)
    }

    /// Step one: outlines.
    fn parse(&mut self, tree: &Tree, locality: &Locality, turn: &mut Turn) {
        let names: BTreeSet<&ServiceName> = tree.files.iter().map(|file| &file.name).collect();
        self.entries.retain(|name, _| names.contains(name));
        for file in &tree.files {
            let role = locality.role(&file.name);
            if let Some(entry) = self.entries.get(&file.name)
                && entry.content == file.content
                && entry.path == file.path
                && entry.role == role
                && self.is_unchanged(&entry.parsed.read, file, &mut turn.files)
            {
                continue;
            }
            let bounds = self.bounds(file);
            turn.compiled.insert(file.name.clone());
            let parsed = Arc::new(parse::parse(
                file,
                role,
                &self.process,
                &self.environment,
                &bounds,
                &mut turn.files,
            ));
            let before = self.entries.remove(&file.name);
            self.entries.insert(
                file.name.clone(),
                Entry {
                    content: file.content.clone(),
                    path: file.path.clone(),
                    role,
                    outline: parsed.outline.clone(),
                    parsed,
                    accepted: before.and_then(|entry| entry.accepted),
                    neighbour: None,
                    output: None,
                },
            );
        }
    }

    /// Others see the version on disk, unless it is known to be bad.
    fn show_new_versions(&mut self) {
        for entry in self.entries.values_mut() {
            let own = entry.parsed.outline.clone().filter(|_| !entry.is_bad());
            entry.outline = own
                .or_else(|| entry.accepted.clone())
                .or_else(|| entry.parsed.outline.clone());
        }
    }

    /// Gives ports and says who clashes; a clashing version is not what others
    /// see of the service.
    fn share_out(&mut self, clashes: &mut BTreeMap<ServiceName, Vec<Problem>>) -> Ports {
        let ports = self.ports();
        let settings = Arc::clone(&self.process.settings);
        let found = self.holders.check(&self.entries, &ports, &settings);
        let mut fell_back = false;
        for (name, problems) in found {
            if let Some(entry) = self.entries.get_mut(&name)
                && has_errors(&problems)
            {
                fell_back |= entry.fall_back();
            }
            clashes.entry(name).or_insert(problems);
        }
        if fell_back { self.ports() } else { ports }
    }

    fn ports(&self) -> Ports {
        Ports::give(&self.entries, self.process.defaults.port_offset)
    }

    /// Gives whether that changed what others see of anyone.
    fn fall_back_where_bad(&mut self) -> bool {
        let mut changed = false;
        for entry in self.entries.values_mut().filter(|entry| entry.is_bad()) {
            changed |= entry.fall_back();
        }
        changed
    }

    /// The folders that a service's file may read from.
    fn bounds(&self, file: &TreeFile) -> Bounds {
        let settings = &self.process.settings;
        let mut folders = vec![file.folder.clone()];
        folders.extend(settings.secrets_dirs.iter().cloned());
        folders.extend(settings.config_dir.clone());
        let except = Arc::new(self.process.referenced.clone());
        Bounds::Below { folders, except }
    }

    /// Whether every file read before still reads the same.
    fn is_unchanged(
        &self,
        read: &BTreeMap<PathBuf, Loaded>,
        file: &TreeFile,
        files: &mut Files,
    ) -> bool {
        // Most services name no file: nothing to allocate for them.
        if read.is_empty() {
            return true;
        }
        let bounds = self.bounds(file);
        read.iter()
            .all(|(path, before)| files.load(path, &bounds) == *before)
    }

    /// Step two: specs.
    fn compile_each(&mut self, tree: &Tree, ports: &Ports, turn: &mut Turn) {
        let mut lookup = Lookup::new(&self.entries, ports, &self.process);
        let mut outputs = Vec::new();
        for file in &tree.files {
            let Some(entry) = self.entries.get(&file.name) else {
                continue;
            };
            // Its own port, though others may still see the accepted one.
            let own = entry.parsed.outline.as_ref();
            let port = own
                .and_then(|outline| outline.port)
                .or_else(|| ports.base(&file.name));
            let resolutions: Vec<Resolution> = entry
                .parsed
                .outline
                .iter()
                .flat_map(|outline| &outline.names)
                .map(|wanted| lookup.resolve(&file.name, wanted))
                .collect();
            if let Some(output) = &entry.output
                && Arc::ptr_eq(&output.parsed, &entry.parsed)
                && output.port == port
                && output.resolutions == resolutions
                && self.is_unchanged(&output.read, file, &mut turn.files)
            {
                continue;
            }
            let bounds = self.bounds(file);
            turn.compiled.insert(file.name.clone());
            let neighbour = lookup.neighbour(&file.name);
            let output = one::compile(
                file,
                entry,
                (port, resolutions),
                neighbour.as_deref(),
                (&self.process, &bounds),
                turn,
            );
            outputs.push((file.name.clone(), output));
        }
        for (name, neighbour) in lookup.into_made() {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.neighbour = Some(neighbour);
            }
        }
        for (name, output) in outputs {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.output = Some(output);
            }
        }
    }

    /// Step three: everything together.
    fn collect(
        &mut self,
        mut problems: Vec<Problem>,
        ports: &Ports,
        mut clashes: BTreeMap<ServiceName, Vec<Problem>>,
        turn: Turn,
    ) -> Compilation {
        let mut services = BTreeMap::new();
        let mut referenced = BTreeSet::new();
        let mut login_variables = BTreeSet::new();
        for (name, entry) in &self.entries {
            let Some(output) = &entry.output else {
                continue;
            };
            let own = clashes.remove(name).unwrap_or_default();
            referenced.extend(entry.parsed.read.keys().cloned());
            referenced.extend(output.read.keys().cloned());
            login_variables.extend(entry.parsed.login_variables.iter().cloned());
            let compiled = match &output.produced {
                Produced::Peer(peer) => Compiled::Peer(Arc::clone(peer)),
                Produced::Local { spec, effective } => {
                    let is_clashing = has_errors(&own);
                    let spec = spec.as_ref().filter(|_| !is_clashing).cloned();
                    Compiled::Local(LocalService {
                        spec: spec.ok_or_else(|| invalid(entry, ports.public(name))),
                        effective: Arc::clone(effective),
                    })
                }
            };
            services.insert(name.clone(), compiled);
            let mut of_service = entry.parsed.problems.clone();
            of_service.extend(output.problems.iter().cloned());
            of_service.extend(own);
            // In the order of the file; what belongs to no line comes first.
            of_service.sort_by_key(|problem| (problem.origin.line, problem.origin.column));
            problems.extend(of_service);
        }
        self.remember(&services);
        Compilation {
            services,
            problems,
            referenced,
            login_variables,
            compiled: turn.compiled.len(),
            unanswered: self.patience.was_tried(),
            notes: turn.notes,
        }
    }
}

impl Compiler {
    /// What compiled is what the next bad version falls back to.
    fn remember(&mut self, services: &BTreeMap<ServiceName, Compiled>) {
        self.holders.remember(services);
        for (name, compiled) in services {
            let is_good = match compiled {
                Compiled::Local(local) => local.spec.is_ok(),
                Compiled::Peer(_) => true,
            };
            if let Some(entry) = self.entries.get_mut(name)
                && is_good
                && entry.parsed.outline.is_some()
            {
                entry.accepted.clone_from(&entry.parsed.outline);
            }
        }
    }
}

/// What one call of `compile` gathers.
struct Turn {
    files: Files,
    compiled: BTreeSet<ServiceName>,
    notes: Vec<(ServiceName, String)>,
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(Problem::is_error)
}

fn invalid(entry: &Entry, port: Option<u16>) -> Invalid {
    Invalid {
        port,
        listen: entry.outline.as_ref().and_then(|outline| outline.listen),
    }
}

/// A peer's mistakes are warnings here: it is somebody else's service.
fn downgrade(problems: &mut [Problem]) {
    for problem in problems {
        problem.severity = Severity::Warning;
    }
}
