//! Who holds what only one service can hold: ports, and places in databases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
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
    /// Where an app calls a dependency: calls come from this machine only.
    pub(super) const fn exit(port: u16) -> Self {
        Self {
            ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port,
        }
    }

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

    /// Every port it holds under these settings: its own, and on loopback those
    /// of its dependencies.
    fn ports(&self, settings: &ProcessSettings) -> Vec<Claim> {
        let own = Claim {
            key: "port",
            listen: self.listen(settings),
        };
        let exits = self.local_ports().into_iter().map(|port| Claim {
            key: "dependencies",
            listen: Listen::exit(port),
        });
        std::iter::once(own).chain(exits).collect()
    }

    /// The `localPort`s of its dependencies.
    pub(super) fn local_ports(&self) -> BTreeSet<u16> {
        let dependencies = self.spec().into_iter().flat_map(|spec| &spec.dependencies);
        dependencies.filter_map(|one| one.local_port).collect()
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

/// One port of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// Key of the service file that names it.
    key: &'static str,
    listen: Listen,
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
        let mut ports: BTreeMap<u16, Vec<(&ServiceName, Claim)>> = BTreeMap::new();
        let mut places: BTreeMap<Place, Vec<&ServiceName>> = BTreeMap::new();
        for (name, wanted) in after {
            for claim in wanted.ports(self.settings) {
                let claimants = ports.entry(claim.listen.port).or_default();
                claimants.push((name, claim));
            }
            if let Some(place) = wanted.place() {
                places.entry(place).or_default().push(name);
            }
        }
        for (port, claimants) in ports {
            for (index, (left, claim)) in claimants.iter().enumerate() {
                for (right, other) in claimants.iter().skip(index + 1) {
                    // What a file says against itself is said by the compiler.
                    if left == right || !claim.listen.overlaps(other.listen) {
                        continue;
                    }
                    let sides = [(*left, *claim), (*right, *other)];
                    let sides = sides.map(|(name, claim)| Side {
                        name,
                        key: claim.key,
                        holds: self.holds(name, claim.listen),
                    });
                    self.decide(&mut found, sides, &format!("port {port}"));
                }
            }
        }
        for (place, claimants) in places {
            for (index, left) in claimants.iter().enumerate() {
                for right in claimants.iter().skip(index + 1) {
                    let what = format!("schema {} of database {}", place.schema, place.database);
                    let sides = [*left, *right].map(|name| Side {
                        name,
                        key: "database",
                        holds: self.in_force.get(name).and_then(Wanted::place).as_ref()
                            == Some(&place),
                    });
                    self.decide(&mut found, sides, &what);
                }
            }
        }
        found
    }

    /// Whether the version in force has this very port, for whatever.
    fn holds(&self, name: &ServiceName, listen: Listen) -> bool {
        let held = self.in_force.get(name);
        let held = held.map(|held| held.ports(self.settings));
        held.is_some_and(|held| held.iter().any(|claim| claim.listen == listen))
    }

    fn decide(&self, found: &mut BTreeMap<ServiceName, Clash>, sides: [Side<'_>; 2], what: &str) {
        let [left, right] = sides;
        for (one, other) in [(left, right), (right, left)] {
            let may_be_refused =
                self.candidates.contains_key(one.name) && !self.refused.contains_key(one.name);
            if one.holds || !may_be_refused {
                continue;
            }
            let verb = if other.holds {
                "belongs to"
            } else {
                "is also claimed by"
            };
            let message = format!("{what} {verb} {}", other.name);
            let key = one.key;
            found
                .entry(one.name.clone())
                .or_insert(Clash { key, message });
        }
    }
}

/// One of two that claim the same.
#[derive(Clone, Copy)]
struct Side<'a> {
    name: &'a ServiceName,
    key: &'static str,
    /// In force, it has it already.
    holds: bool,
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
