//! Step one: a file to its raw form and outline.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Role, downgrade};
use crate::config::compile::{Outline, PEER_KEYS};
use crate::config::problem::Problem;
use crate::config::process::{Environment, LoadedProcess};
use crate::config::raw::RawService;
use crate::config::source::{
    Bounds, Entry, Files, Loaded, Mark, Missing, Node, Place, Places, Reader, Resolver, Value,
    deserialize, read,
};
use crate::config::tree::{FileContent, TreeFile};

/// A file as far as it can be understood alone.
#[derive(Debug)]
pub(super) struct Parsed {
    /// `None` when it does not have the shape of a service file.
    pub(super) raw: Option<RawService>,
    pub(super) places: Arc<Places>,
    pub(super) problems: Vec<Problem>,
    pub(super) read: BTreeMap<PathBuf, Loaded>,
    /// Variables named in the login of its database.
    pub(super) login_variables: BTreeSet<String>,
    pub(super) outline: Option<Arc<Outline>>,
    /// The port of a file with a wrong shape, as far as it can be seen.
    pub(super) visible_port: Option<u16>,
}

/// Parses a file.
pub(super) fn parse(
    file: &TreeFile,
    role: Role,
    process: &LoadedProcess,
    environment: &Environment,
    bounds: &Bounds,
    files: &mut Files,
) -> Parsed {
    let shown: Arc<Path> = Arc::from(file.shown.as_path());
    let whole = Place::File {
        file: Arc::clone(&shown),
        mark: Mark::default(),
    };
    let unreadable = |reason: &String| Problem::error(whole.origin(""), reason.clone());
    let node = match &file.content {
        FileContent::Bytes(bytes) => read(bytes, &shown),
        FileContent::Unreadable(reason) => Err(Box::new(unreadable(reason))),
    };
    let mut node = match node {
        Ok(node) => node,
        Err(problem) => {
            return Parsed::broken(file, role, &Node::map(whole), vec![*problem]);
        }
    };
    if !role.is_local {
        keep_only_peer_keys(&mut node);
    }
    let mut resolver = Resolver {
        environment,
        reader: Reader::Service,
        missing: if role.is_local && !process.defaults.no_secrets {
            Missing::Error
        } else {
            Missing::Tolerated
        },
        folder: &file.folder,
        bounds,
        files,
        read: BTreeMap::new(),
        variables: BTreeSet::new(),
        login_variables: BTreeSet::new(),
        problems: Vec::new(),
    };
    resolver.resolve(&mut node, "");
    let Resolver {
        read,
        login_variables,
        mut problems,
        ..
    } = resolver;
    let Some(raw) = raw_form(&node, role, &mut problems) else {
        return Parsed {
            read,
            login_variables,
            ..Parsed::broken(file, role, &node, problems)
        };
    };
    let outline = Outline::of(&file.name, &raw, &process.defaults, role.is_only_local);
    finish(file, role, &mut problems);
    Parsed {
        raw: Some(raw),
        places: Arc::new(Places::of(&node)),
        problems,
        read,
        login_variables,
        visible_port: outline.port,
        outline: Some(Arc::new(outline)),
    }
}

/// The shape of a service file; of a peer's, as far as it has one.
fn raw_form(node: &Node, role: Role, problems: &mut Vec<Problem>) -> Option<RawService> {
    match deserialize::<RawService>(node) {
        Ok(raw) => Some(raw),
        Err(faults) => {
            problems.extend(faults);
            (!role.is_local).then(|| lenient(node))
        }
    }
}

impl Parsed {
    fn broken(file: &TreeFile, role: Role, node: &Node, mut problems: Vec<Problem>) -> Self {
        finish(file, role, &mut problems);
        let port = node.get("port").and_then(Node::text);
        Self {
            raw: None,
            places: Arc::new(Places::of(node)),
            problems,
            read: BTreeMap::new(),
            login_variables: BTreeSet::new(),
            outline: None,
            visible_port: port
                .and_then(|port| port.trim().parse().ok())
                .filter(|port| *port > 0),
        }
    }
}

fn finish(file: &TreeFile, role: Role, problems: &mut [Problem]) {
    for problem in problems.iter_mut() {
        problem.service = Some(file.name.clone());
    }
    if !role.is_local {
        downgrade(problems);
    }
}

/// The database block is looked at for clashes of names only.
fn keep_only_peer_keys(node: &mut Node) {
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| PEER_KEYS.contains(&entry.key.as_str()) || entry.key == "database");
        for entry in entries {
            if entry.key == "upstream" {
                keep_only_protocol(entry);
            }
        }
    }
}

fn keep_only_protocol(upstream: &mut Entry) {
    if let Value::Map(entries) = &mut upstream.node.value {
        entries.retain(|entry| entry.key == "protocol");
    } else {
        upstream.node.value = Value::Map(Vec::new());
    }
}

/// The keys of a peer's file that fit, each on its own.
fn lenient(node: &Node) -> RawService {
    let Value::Map(entries) = &node.value else {
        return RawService::default();
    };
    let fits = |entries: &[Entry]| {
        deserialize::<RawService>(&Node {
            place: node.place.clone(),
            value: Value::Map(entries.to_vec()),
        })
    };
    let good: Vec<Entry> = entries
        .iter()
        .filter(|entry| fits(std::slice::from_ref(entry)).is_ok())
        .cloned()
        .collect();
    fits(&good).unwrap_or_default()
}
