//! Which port each service has (SPEC §1.2).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Entry;
use crate::config::problem::Problem;
use crate::model::{Origin, ServiceName};

/// The first port given to services that name none.
const FIRST: u16 = 3001;

/// The ports of all services of a tree.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Before the offset.
    base: BTreeMap<ServiceName, u16>,
    /// After it: only local services are moved.
    public: BTreeMap<ServiceName, u16>,
    given: usize,
}

impl Ports {
    /// Takes the named ports, and while every service is local gives one to
    /// each of those that name none: upward, in order of name, never by probing.
    /// One whose port is there but no good gets none, so that it moves nobody;
    /// while an earlier version counts, it stays where that one was.
    pub(super) fn give(entries: &BTreeMap<ServiceName, Entry>, offset: u16) -> Self {
        let named = |entry: &Entry| {
            let outline = entry.outline.as_ref().and_then(|outline| outline.port);
            match &entry.parsed.raw {
                Some(_) => outline,
                None => outline.or(entry.parsed.visible_port),
            }
        };
        let taken: BTreeSet<u16> = entries.values().filter_map(named).collect();
        let all_local = entries.values().all(|entry| entry.role.is_local);
        let mut free = (FIRST..=u16::MAX).filter(|port| !taken.contains(port));
        let mut ports = Self::default();
        for (name, entry) in entries {
            let is_bad = entry.parsed.places.has("port") && entry.accepted.is_none();
            let port = named(entry).or_else(|| {
                let given = (all_local && !is_bad).then(|| free.next()).flatten();
                // A file that cannot be read takes its turn, but is no reason
                // to speak of its port.
                let is_unset = entry.parsed.raw.is_some() && !entry.parsed.places.has("port");
                if given.is_some() && is_unset {
                    ports.given += 1;
                }
                given
            });
            let Some(port) = port else {
                continue;
            };
            ports.base.insert(name.clone(), port);
            let moved = if entry.role.is_local {
                port.checked_add(offset)
            } else {
                Some(port)
            };
            if let Some(moved) = moved {
                ports.public.insert(name.clone(), moved);
            }
        }
        ports
    }

    /// Before the offset.
    pub(super) fn base(&self, name: &ServiceName) -> Option<u16> {
        self.base.get(name).copied()
    }

    /// As others reach it.
    pub(super) fn public(&self, name: &ServiceName) -> Option<u16> {
        self.public.get(name).copied()
    }

    /// Said once for the tree.
    pub(super) fn warning(&self, root: &Path) -> Option<Problem> {
        let count = self.given;
        let (services, have, get) = match count {
            0 => return None,
            1 => ("service", "has", "gets"),
            _ => ("services", "have", "get"),
        };
        Some(
            Problem::warning(
                Origin::file(root),
                format!(
                    "{count} {services} {have} no `port` and {get} one in order of name from \
                     {FIRST}: another service in the tree may move it"
                ),
            )
            .hint("write `port` into each file"),
        )
    }
}
