//! From the names that files use to services of the tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, Ports};
use crate::config::compile::{Neighbour, Outline, Resolution};
use crate::config::process::LoadedProcess;
use crate::config::suggest;
use crate::model::ServiceName;

/// A neighbour and what it was made from.
#[derive(Debug)]
pub(super) struct Made {
    outline: Arc<Outline>,
    port: Option<u16>,
    neighbour: Arc<Neighbour>,
}

/// Finds services by the names that files use for them.
pub(super) struct Lookup<'a> {
    entries: &'a BTreeMap<ServiceName, Entry>,
    by_bare_name: BTreeMap<&'a str, Vec<&'a ServiceName>>,
    ports: &'a Ports,
    process: &'a LoadedProcess,
    /// Made this time, with what each was made from.
    made: BTreeMap<ServiceName, Made>,
}

impl<'a> Lookup<'a> {
    /// Over all services of the tree.
    pub(super) fn new(
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
            made: BTreeMap::new(),
        }
    }

    /// `domain/name`; or a bare name, of the own domain first, else unique.
    pub(super) fn resolve(&mut self, from: &ServiceName, wanted: &str) -> Resolution {
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

    /// The service as a neighbour of others.
    pub(super) fn neighbour(&mut self, name: &ServiceName) -> Option<Arc<Neighbour>> {
        let entry = self.entries.get(name)?;
        let port = self.ports.public(name);
        let Some(outline) = &entry.outline else {
            return Some(Arc::new(Neighbour::unknown(name)));
        };
        let known = self.made.get(name).or(entry.neighbour.as_ref());
        if let Some(made) = known
            && Arc::ptr_eq(&made.outline, outline)
            && made.port == port
        {
            return Some(Arc::clone(&made.neighbour));
        }
        let settings = &self.process.settings;
        let is_local = entry.role.is_local;
        let neighbour = Arc::new(outline.neighbour(name, port, is_local, settings));
        let made = Made {
            outline: Arc::clone(outline),
            port,
            neighbour: Arc::clone(&neighbour),
        };
        self.made.insert(name.clone(), made);
        Some(neighbour)
    }

    /// What was made, to be remembered.
    pub(super) fn into_made(self) -> BTreeMap<ServiceName, Made> {
        self.made
    }
}
