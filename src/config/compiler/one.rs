//! Step two: one service among its neighbours.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, Output, Parsed, Produced, Turn, has_errors};
use crate::config::compile::{self, Context, Neighbour, Resolution};
use crate::config::process::LoadedProcess;
use crate::config::report::Report;
use crate::config::source::Bounds;
use crate::config::tree::TreeFile;
use crate::model::PeerSpec;

/// Step two for one service.
pub(super) fn compile(
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

fn local(parsed: &Parsed, context: &mut Context<'_>) -> Produced {
    let spec = parsed.raw.as_ref().and_then(|raw| {
        let spec = compile::service(raw, context);
        // Errors of the references are errors of the service.
        spec.filter(|_| !has_errors(&parsed.problems))
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
