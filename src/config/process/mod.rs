//! Settings of the process: flags over environment over file over defaults.

mod cpu;
mod doors;
mod environment;
mod framework;
mod known;
pub(super) mod overlay;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::Problem;
use super::raw::{RawProcess, RawProcessDatabase, RawProcessTracing};
use super::report::Report;
use super::source::{
    Bounds, FileFault, Files, Mark, Missing, Node, Place, Places, Reader, Resolver, deserialize,
    read, read_regular,
};
use crate::model::ProcessSettings;

pub use environment::Environment;
pub(crate) use framework::{Framework, FrameworkDatabase};
pub use known::variables;

/// Read when it exists and no other file is named.
const DEFAULT_FILE: &str = "config/outrigger.yaml";

/// What the command line says; it wins over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessFlags {
    /// `--config`: the process file; `None` = `config/outrigger.yaml` if it exists.
    pub config: Option<PathBuf>,
    /// `--services`: the tree.
    pub services: Option<PathBuf>,
    /// `--service`: the local services; empty = not given.
    pub service: Vec<String>,
    /// `--port-offset`: added to every public port.
    pub port_offset: u16,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `check --no-secrets`: references count as present.
    pub no_secrets: bool,
}

/// The settings of the process and what its file says about services.
#[derive(Clone)]
pub struct LoadedProcess {
    pub settings: Arc<ProcessSettings>,
    /// Nothing here stops the process.
    pub warnings: Vec<Problem>,
    /// Worth one INFO line each.
    pub notes: Vec<String>,
    /// The process file and every file it names: a change of one of them is a
    /// reason to load again.
    pub referenced: BTreeSet<PathBuf>,
    /// Variables the process file names: credentials of the process, as far as
    /// they are any.
    pub variables: BTreeSet<String>,
    /// What the settings were made of.
    pub file: ProcessFile,
    pub(crate) defaults: Arc<Defaults>,
}

/// The process file as it was read.
#[derive(Clone)]
pub struct ProcessFile {
    /// As a person would type it.
    pub path: Arc<Path>,
    /// `None` where there is none, and none was named.
    pub bytes: Option<Arc<[u8]>>,
    /// Whether `auth.required` is written, there or in the environment.
    pub says_auth_required: bool,
}

impl ProcessFile {
    /// Where it lies, absolute; `None` without a file.
    fn folder(&self) -> Option<PathBuf> {
        self.bytes.as_ref()?;
        let absolute = std::path::absolute(&self.path).ok()?;
        absolute.parent().map(Path::to_path_buf)
    }
}

impl LoadedProcess {
    /// Whether both say the same about databases of services.
    pub fn same_databases(&self, other: &Self) -> bool {
        self.defaults.database == other.defaults.database
    }
}

impl fmt::Debug for LoadedProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LoadedProcess")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What the process says about its services.
#[derive(Debug)]
pub(crate) struct Defaults {
    pub(crate) port_offset: u16,
    /// Whether the local services were named by `--service`.
    pub(crate) local_from_flag: bool,
    /// Missing references count as present.
    pub(crate) no_secrets: bool,
    pub(crate) framework: Framework,
    pub(crate) database: RawProcessDatabase,
    pub(crate) tracing: RawProcessTracing,
    /// Of the process's settings.
    pub(crate) places: Arc<Places>,
}

/// Loads the settings: flags over environment over file over defaults.
///
/// # Errors
/// Every problem that keeps the process from starting, and the warnings.
pub fn load_process(
    flags: &ProcessFlags,
    environment: &Environment,
) -> Result<LoadedProcess, Vec<Problem>> {
    let mut referenced = BTreeSet::new();
    let (mut node, mut file) = process_file(flags, environment, &mut referenced)?;
    let config_dir = file.folder();
    let mut notes = Vec::new();
    let mut warnings = overlay::apply(&mut node, environment, &mut notes);
    flag_overlay(&mut node, flags);

    let folder = config_dir
        .clone()
        .unwrap_or_else(|| std::path::absolute(".").unwrap_or_default());
    let mut variables = BTreeSet::new();
    let mut problems = resolve(
        &mut node,
        &folder,
        (flags, environment),
        (&mut referenced, &mut variables),
    );
    let raw: RawProcess = match deserialize(&node) {
        Ok(raw) => raw,
        Err(faults) => {
            problems.extend(faults);
            problems.extend(warnings);
            return Err(problems);
        }
    };
    let required = raw.auth.as_ref().and_then(|auth| auth.required);
    file.says_auth_required = required.is_some();
    let places = Arc::new(Places::of(&node));
    let mut report = Report::new(None, Arc::clone(&places));
    let framework = Framework::read(environment, &mut report, &mut notes);
    let settings = settings::compile(
        &raw,
        &settings::Around {
            flags,
            framework: &framework,
            config_dir,
            folder: &folder,
        },
        &mut report,
    );
    for problem in report.into_problems() {
        if problem.is_error() {
            problems.push(problem);
        } else {
            warnings.push(problem);
        }
    }
    if !problems.is_empty() {
        problems.extend(warnings);
        return Err(problems);
    }
    Ok(LoadedProcess {
        settings: Arc::new(settings),
        warnings,
        notes,
        referenced,
        variables,
        file,
        defaults: Arc::new(Defaults {
            port_offset: flags.port_offset,
            local_from_flag: !flags.service.is_empty(),
            no_secrets: flags.no_secrets,
            framework,
            database: raw.database.unwrap_or_default(),
            tracing: raw.tracing.unwrap_or_default(),
            places,
        }),
    })
}

/// Resolves the references of the process's file, which sees everything.
fn resolve(
    node: &mut Node,
    folder: &Path,
    (flags, environment): (&ProcessFlags, &Environment),
    (referenced, variables): (&mut BTreeSet<PathBuf>, &mut BTreeSet<String>),
) -> Vec<Problem> {
    let mut files = Files::default();
    let mut resolver = Resolver {
        environment,
        reader: Reader::Process,
        missing: if flags.no_secrets {
            Missing::Tolerated
        } else {
            Missing::Error
        },
        folder,
        bounds: &Bounds::Anywhere,
        files: &mut files,
        read: BTreeMap::new(),
        variables: BTreeSet::new(),
        login_variables: BTreeSet::new(),
        problems: Vec::new(),
    };
    resolver.resolve(node, "");
    referenced.extend(resolver.read.into_keys());
    variables.append(&mut resolver.variables);
    resolver.problems
}

/// Reads the process file: its tree, empty without a file.
fn process_file(
    flags: &ProcessFlags,
    environment: &Environment,
    referenced: &mut BTreeSet<PathBuf>,
) -> Result<(Node, ProcessFile), Vec<Problem>> {
    let named = flags
        .config
        .clone()
        .or_else(|| environment.value("OUTRIGGER_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let shown: Arc<Path> = Arc::from(path.as_path());
    let whole = Place::File {
        file: Arc::clone(&shown),
        mark: Mark::default(),
    };
    let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    referenced.insert(absolute.clone());
    let file = |bytes: Option<Vec<u8>>| ProcessFile {
        path: Arc::clone(&shown),
        bytes: bytes.map(Arc::from),
        says_auth_required: false,
    };
    match read_regular(&absolute) {
        // A process file without settings sets nothing and opens nothing.
        Ok(bytes) if says_nothing(&bytes) => Ok((Node::map(whole), file(Some(bytes)))),
        Ok(bytes) => match read(&bytes, &shown) {
            Ok(node) => Ok((node, file(Some(bytes)))),
            Err(problem) => Err(vec![*problem]),
        },
        Err(FileFault::Missing) if named.is_none() => {
            Ok((Node::map(Place::Flag("default")), file(None)))
        }
        Err(fault) => Err(vec![Problem::error(whole.origin(""), fault.to_string())]),
    }
}

/// Whether there are but comments.
fn says_nothing(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.all(|line| line.is_empty() || line.starts_with(b"#"))
}

/// Flags as if they stood in the file.
fn flag_overlay(node: &mut Node, flags: &ProcessFlags) {
    let mut set = |path: &[&str], name: &'static str, text: &str| {
        let place = Place::Flag(name);
        let mut value = Node::scalar(place, text);
        if let super::source::Value::Scalar(scalar) = &mut value.value {
            // A literal: what a shell was given has been expanded already.
            scalar.text = scalar.text.replace("${", "$${");
        }
        node.set(path, value);
    };
    if let Some(services) = &flags.services {
        set(&["servicesDir"], "--services", &services.to_string_lossy());
    }
    if let Some(level) = &flags.log_level {
        set(&["log", "level"], "--log-level", level);
    }
}
