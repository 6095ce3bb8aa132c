//! Who holds what only one service can hold: ports, and places in databases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{ProcessSettings, ServiceName, ServiceSpec};

/// Where a service is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listen {
    /// `None` = every address of the machine.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
}

impl Listen {
    /// Whether one connection could belong to both. Port 0 is any free one.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        self.port == other.port
            && self.port != 0
            && (any(self.ip) || any(other.ip) || self.ip == other.ip)
    }
}

/// One version of a local service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Ready(Arc<ServiceSpec>),
    /// No good version, but a port that can say so.
    Invalid(Listen),
}

impl Wanted {
    /// Where it listens under these settings.
    pub(super) fn listen(&self, settings: &ProcessSettings) -> Listen {
        match self {
            Self::Ready(spec) => Listen {
                ip: spec.listen.or(settings.listen),
                port: spec.port,
            },
            Self::Invalid(listen) => *listen,
        }
    }

    /// The good version.
    pub(super) fn spec(&self) -> Option<&Arc<ServiceSpec>> {
        match self {
            Self::Ready(spec) => Some(spec),
            Self::Invalid(_) => None,
        }
    }

    fn place(&self) -> Option<Place> {
        let database = self.spec()?.database.as_ref()?;
        Some(Place {
            host: Arc::clone(&database.host),
            port: database.port,
            database: Arc::clone(&database.database),
            schema: Arc::clone(&database.schema),
        })
    }
}

/// A service's own place in a database server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    host: Arc<str>,
    port: u16,
    database: Arc<str>,
    schema: Arc<str>,
}

/// Why a version cannot come into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clash {
    /// Key of the service file it is about.
    pub(super) key: &'static str,
    pub(super) message: String,
}

/// The versions of `candidates` that would hold what another service holds
/// once all the others are in force. What is in force wins over what is new;
/// of two new claims neither wins.
pub(super) fn clashes(
    in_force: &BTreeMap<ServiceName, Wanted>,
    removed: &BTreeSet<ServiceName>,
    candidates: &BTreeMap<ServiceName, Wanted>,
    settings: &ProcessSettings,
) -> BTreeMap<ServiceName, Clash> {
    let mut refused: BTreeMap<ServiceName, Clash> = BTreeMap::new();
    // A refused version leaves its predecessor in force, which may stand in the
    // way of another: again until nothing is refused. Each round refuses one.
    loop {
        let mut after: BTreeMap<&ServiceName, &Wanted> = in_force
            .iter()
            .filter(|(name, _)| !removed.contains(*name))
            .collect();
        after.extend(
            candidates
                .iter()
                .filter(|(name, _)| !refused.contains_key(*name)),
        );
        let round = Round {
            in_force,
            candidates,
            refused: &refused,
            settings,
        };
        let found = round.clashes(&after);
        if found.is_empty() {
            return refused;
        }
        refused.extend(found);
    }
}

struct Round<'a> {
    in_force: &'a BTreeMap<ServiceName, Wanted>,
    candidates: &'a BTreeMap<ServiceName, Wanted>,
    refused: &'a BTreeMap<ServiceName, Clash>,
    settings: &'a ProcessSettings,
}

impl Round<'_> {
    fn clashes(&self, after: &BTreeMap<&ServiceName, &Wanted>) -> BTreeMap<ServiceName, Clash> {
        let mut found = BTreeMap::new();
        let mut ports: BTreeMap<u16, Vec<(&ServiceName, &Wanted)>> = BTreeMap::new();
        let mut places: BTreeMap<Place, Vec<&ServiceName>> = BTreeMap::new();
        for (name, wanted) in after {
            let listen = wanted.listen(self.settings);
            ports.entry(listen.port).or_default().push((name, wanted));
            if let Some(place) = wanted.place() {
                places.entry(place).or_default().push(name);
            }
        }
        for (port, claimants) in ports {
            for (index, (left, left_wanted)) in claimants.iter().enumerate() {
                let listen = left_wanted.listen(self.settings);
                for (right, right_wanted) in claimants.iter().skip(index + 1) {
                    if !listen.overlaps(right_wanted.listen(self.settings)) {
                        continue;
                    }
                    let holds = |name: &ServiceName, wanted: &Wanted| {
                        self.in_force.get(name).is_some_and(|held| {
                            held.listen(self.settings) == wanted.listen(self.settings)
                        })
                    };
                    let held = (holds(left, left_wanted), holds(right, right_wanted));
                    self.decide(
                        &mut found,
                        (left, right),
                        held,
                        "port",
                        &format!("port {port}"),
                    );
                }
            }
        }
        for (place, claimants) in places {
            for (index, left) in claimants.iter().enumerate() {
                for right in claimants.iter().skip(index + 1) {
                    let holds = |name: &ServiceName| {
                        let held = self.in_force.get(name).and_then(Wanted::place);
                        held.as_ref() == Some(&place)
                    };
                    let held = (holds(left), holds(right));
                    let what = format!("schema {} of database {}", place.schema, place.database);
                    self.decide(&mut found, (left, right), held, "database", &what);
                }
            }
        }
        found
    }

    fn decide(
        &self,
        found: &mut BTreeMap<ServiceName, Clash>,
        (left, right): (&ServiceName, &ServiceName),
        (left_holds, right_holds): (bool, bool),
        key: &'static str,
        what: &str,
    ) {
        let mut refuse = |name: &ServiceName, other: &ServiceName, verb: &str| {
            if self.candidates.contains_key(name) && !self.refused.contains_key(name) {
                let message = format!("{what} {verb} {other}");
                found.entry(name.clone()).or_insert(Clash { key, message });
            }
        };
        if !left_holds {
            let verb = if right_holds {
                "belongs to"
            } else {
                "is also claimed by"
            };
            refuse(left, right, verb);
        }
        if !right_holds {
            let verb = if left_holds {
                "belongs to"
            } else {
                "is also claimed by"
            };
            refuse(right, left, verb);
        }
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
