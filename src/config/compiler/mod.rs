//! From a tree of files to specs, compiling only what changed.
//!
//! A turn has three steps. Every file is parsed to an outline, unless its bytes
//! and the files it names are what they were. Then each service is compiled
//! among its neighbours, unless neither it nor they changed. Last, what no file
//! can know alone is checked: two services on one port, one name in a database.
//! A file that cannot be read keeps its last outline, so that one bad file
//! never moves another service.

mod clashes;
mod locality;
mod parse;
mod ports;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::compilation::{Compilation, Compiled, Invalid, LocalService};
use super::compile::{self, Context, Neighbour, Outline, Resolution};
use super::problem::{Problem, Severity};
use super::process::{Environment, LoadedProcess};
use super::report::Report;
use super::source::{Bounds, Files, Loaded, Patience};
use super::suggest;
use super::tree::{FileContent, Tree, TreeFile};
use crate::model::{EffectiveValue, PeerSpec, ServiceName, ServiceSpec};
use clashes::Holders;
use locality::Locality;
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

/// What is remembered of a service.
#[derive(Debug)]
struct Entry {
    content: FileContent,
    path: PathBuf,
    role: Role,
    parsed: Arc<Parsed>,
    /// Of the last version that could be read.
    outline: Option<Arc<Outline>>,
    output: Option<Output>,
}

impl Entry {
    /// Whether its file gives no spec.
    fn is_bad(&self) -> bool {
        matches!(
            self.output.as_ref().map(|output| &output.produced),
            Some(Produced::Local { spec: None, .. })
        )
    }
}

/// What a service is to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Role {
    is_local: bool,
    /// Variables such as `SERVICE_PORT` mean it.
    is_only_local: bool,
}

/// A compiled service and what it was compiled from.
#[derive(Debug)]
struct Output {
    parsed: Arc<Parsed>,
    /// Before the offset.
    port: Option<u16>,
    resolutions: Vec<Resolution>,
    read: BTreeMap<PathBuf, Loaded>,
    produced: Produced,
    problems: Vec<Problem>,
}

#[derive(Debug)]
enum Produced {
    Local {
        spec: Option<Arc<ServiceSpec>>,
        effective: Arc<[EffectiveValue]>,
    },
    Peer(Arc<PeerSpec>),
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
        let ports = Ports::give(&self.entries, self.process.defaults.port_offset);
        problems.extend(ports.warning(&tree.root));
        self.compile_each(tree, &ports, &mut turn);
        let clashes = self
            .holders
            .check(&self.entries, &ports, &self.process.settings);
        self.collect(problems, &ports, clashes, turn)
    }

    /// Step one: outlines.
    fn parse(&mut self, tree: &Tree, locality: &Locality, turn: &mut Turn) {
        let names: BTreeSet<&ServiceName> = tree.files.iter().map(|file| &file.name).collect();
        self.entries.retain(|name, _| names.contains(name));
        for file in &tree.files {
            let role = locality.role(&file.name);
            let bounds = self.bounds(file);
            if let Some(entry) = self.entries.get(&file.name)
                && entry.content == file.content
                && entry.path == file.path
                && entry.role == role
                && is_unchanged(&entry.parsed.read, &bounds, &mut turn.files)
            {
                continue;
            }
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
            let outline = parsed
                .outline
                .clone()
                .or_else(|| before.and_then(|entry| entry.outline));
            self.entries.insert(
                file.name.clone(),
                Entry {
                    content: file.content.clone(),
                    path: file.path.clone(),
                    role,
                    parsed,
                    outline,
                    output: None,
                },
            );
        }
    }

    /// The folders that a service's file may read from.
    fn bounds(&self, file: &TreeFile) -> Bounds {
        let settings = &self.process.settings;
        let mut folders = vec![file.folder.clone()];
        folders.extend(settings.secrets_dirs.iter().cloned());
        folders.extend(settings.config_dir.clone());
        Bounds::Below(folders)
    }

    /// Step two: specs.
    fn compile_each(&mut self, tree: &Tree, ports: &Ports, turn: &mut Turn) {
        let mut lookup = Lookup::new(&self.entries, ports, &self.process);
        let mut outputs = Vec::new();
        for file in &tree.files {
            let Some(entry) = self.entries.get(&file.name) else {
                continue;
            };
            let port = ports.base(&file.name);
            let resolutions: Vec<Resolution> = entry
                .parsed
                .outline
                .iter()
                .flat_map(|outline| &outline.names)
                .map(|wanted| lookup.resolve(&file.name, wanted))
                .collect();
            let bounds = self.bounds(file);
            if let Some(output) = &entry.output
                && Arc::ptr_eq(&output.parsed, &entry.parsed)
                && output.port == port
                && output.resolutions == resolutions
                && is_unchanged(&output.read, &bounds, &mut turn.files)
            {
                continue;
            }
            turn.compiled.insert(file.name.clone());
            let neighbour = lookup.neighbour(&file.name);
            let output = Self::compile_one(
                file,
                entry,
                (port, resolutions),
                neighbour.as_deref(),
                (&self.process, &bounds),
                turn,
            );
            outputs.push((file.name.clone(), output));
        }
        for (name, output) in outputs {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.output = Some(output);
            }
        }
    }

    fn compile_one(
        file: &TreeFile,
        entry: &Entry,
        (port, resolutions): (Option<u16>, Vec<Resolution>),
        neighbour: Option<&Neighbour>,
        (process, bounds): (&LoadedProcess, &Bounds),
        turn: &mut Turn,
    ) -> Output {
        let parsed = &entry.parsed;
        let mut context = Context {
            name: &file.name,
            folder: &file.folder,
            bounds,
            settings: &process.settings,
            defaults: &process.defaults,
            port,
            only_local: entry.role.is_only_local,
            resolutions: &resolutions,
            tolerant: process.defaults.no_secrets || !entry.role.is_local,
            report: Report::new(Some(&file.name), Arc::clone(&parsed.places)),
            files: &mut turn.files,
            read: BTreeMap::new(),
            notes: Vec::new(),
        };
        let produced = if entry.role.is_local {
            local(parsed, &mut context)
        } else {
            peer(entry, neighbour, &mut context)
        };
        let Context {
            report,
            read,
            notes,
            ..
        } = context;
        turn.notes
            .extend(notes.into_iter().map(|note| (file.name.clone(), note)));
        let mut problems = report.into_problems();
        if !entry.role.is_local {
            // What is wrong with a peer's own policy is said where it is local.
            problems.clear();
        }
        Output {
            parsed: Arc::clone(parsed),
            port,
            resolutions,
            read,
            produced,
            problems,
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
        for (name, entry) in &self.entries {
            let Some(output) = &entry.output else {
                continue;
            };
            let own = clashes.remove(name).unwrap_or_default();
            referenced.extend(entry.parsed.read.keys().cloned());
            referenced.extend(output.read.keys().cloned());
            let compiled = match &output.produced {
                Produced::Peer(peer) => Compiled::Peer(Arc::clone(peer)),
                Produced::Local { spec, effective } => {
                    let is_clashing = own.iter().any(Problem::is_error);
                    let spec = spec.as_ref().filter(|_| !is_clashing).cloned();
                    Compiled::Local(LocalService {
                        spec: spec.ok_or_else(|| invalid(entry, ports.public(name))),
                        effective: Arc::clone(effective),
                    })
                }
            };
            services.insert(name.clone(), compiled);
            problems.extend(entry.parsed.problems.iter().cloned());
            problems.extend(output.problems.iter().cloned());
            problems.extend(own);
        }
        self.holders.remember(&services);
        Compilation {
            services,
            problems,
            referenced,
            compiled: turn.compiled.len(),
            unanswered: self.patience.was_tried(),
            notes: turn.notes,
        }
    }
}

/// What one call of `compile` gathers.
struct Turn {
    files: Files,
    compiled: BTreeSet<ServiceName>,
    notes: Vec<(ServiceName, String)>,
}

fn local(parsed: &Parsed, context: &mut Context<'_>) -> Produced {
    let spec = parsed.raw.as_ref().and_then(|raw| {
        let spec = compile::service(raw, context);
        // Errors of the references are errors of the service.
        spec.filter(|_| !parsed.problems.iter().any(Problem::is_error))
    });
    let effective = spec
        .as_ref()
        .map(|spec| compile::effective(spec, &parsed.places, context.defaults))
        .unwrap_or_default();
    Produced::Local {
        spec: spec.map(Arc::new),
        effective: effective.into(),
    }
}

fn peer(entry: &Entry, neighbour: Option<&Neighbour>, context: &mut Context<'_>) -> Produced {
    let spec = match (&entry.parsed.raw, &entry.outline, neighbour) {
        (Some(raw), Some(outline), Some(neighbour)) => {
            compile::peer(raw, outline, neighbour, context)
        }
        (_, outline, neighbour) => PeerSpec {
            name: context.name.clone(),
            version: None,
            port: outline.as_ref().and_then(|outline| outline.port),
            addresses: neighbour.map_or_else(Vec::new, |one| one.addresses.clone()),
            tls: outline.as_ref().is_some_and(|outline| outline.tls),
            protocol: crate::model::UpstreamProtocol::Http1,
            health_path: None,
            auth: None,
        },
    };
    Produced::Peer(Arc::new(spec))
}

fn invalid(entry: &Entry, port: Option<u16>) -> Invalid {
    Invalid {
        port,
        listen: entry.outline.as_ref().and_then(|outline| outline.listen),
    }
}

/// Whether every file read before still reads the same.
fn is_unchanged(read: &BTreeMap<PathBuf, Loaded>, bounds: &Bounds, files: &mut Files) -> bool {
    read.iter()
        .all(|(path, before)| files.load(path, bounds) == *before)
}

/// Finds services by the names that files use for them.
struct Lookup<'a> {
    entries: &'a BTreeMap<ServiceName, Entry>,
    by_bare_name: BTreeMap<&'a str, Vec<&'a ServiceName>>,
    ports: &'a Ports,
    process: &'a LoadedProcess,
    neighbours: BTreeMap<ServiceName, Arc<Neighbour>>,
}

impl<'a> Lookup<'a> {
    fn new(
        entries: &'a BTreeMap<ServiceName, Entry>,
        ports: &'a Ports,
        process: &'a LoadedProcess,
    ) -> Self {
        let mut by_bare_name: BTreeMap<&str, Vec<&ServiceName>> = BTreeMap::new();
        for name in entries.keys() {
            by_bare_name.entry(name.name()).or_default().push(name);
        }
        Self {
            entries,
            by_bare_name,
            ports,
            process,
            neighbours: BTreeMap::new(),
        }
    }

    /// `domain/name`; or a bare name, of the own domain first, else unique.
    fn resolve(&mut self, from: &ServiceName, wanted: &str) -> Resolution {
        let full = match wanted.split_once('/') {
            Some((domain, name)) => ServiceName::new(domain, name).ok(),
            None => ServiceName::new(from.domain(), wanted).ok(),
        };
        if let Some(neighbour) = full.and_then(|full| self.neighbour(&full)) {
            return Resolution::Known(neighbour);
        }
        let namesakes = self.by_bare_name.get(wanted).cloned().unwrap_or_default();
        match namesakes.as_slice() {
            [] => Resolution::Unknown(self.likely(wanted)),
            [only] => match self.neighbour(only) {
                Some(neighbour) => Resolution::Known(neighbour),
                None => Resolution::Unknown(None),
            },
            several => Resolution::Ambiguous(several.iter().map(|name| (*name).clone()).collect()),
        }
    }

    fn likely(&self, wanted: &str) -> Option<ServiceName> {
        let bare = wanted.rsplit('/').next().unwrap_or(wanted);
        let found = suggest::closest(bare, self.by_bare_name.keys().copied())?;
        let names = self.by_bare_name.get(found)?;
        names.first().map(|name| (*name).clone())
    }

    fn neighbour(&mut self, name: &ServiceName) -> Option<Arc<Neighbour>> {
        if let Some(known) = self.neighbours.get(name) {
            return Some(Arc::clone(known));
        }
        let entry = self.entries.get(name)?;
        let port = self.ports.public(name);
        let settings = &self.process.settings;
        let is_local = entry.role.is_local;
        let neighbour = match &entry.outline {
            Some(outline) => outline.neighbour(name, port, is_local, settings),
            None => Neighbour::unknown(name),
        };
        let neighbour = Arc::new(neighbour);
        self.neighbours.insert(name.clone(), Arc::clone(&neighbour));
        Some(neighbour)
    }
}

/// A peer's mistakes are warnings here: it is somebody else's service.
fn downgrade(problems: &mut [Problem]) {
    for problem in problems {
        problem.severity = Severity::Warning;
    }
}
