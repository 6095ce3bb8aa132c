//! What no file can know alone: ports and names that two services want.
//!
//! Who had it before keeps it; the one that changed is refused. With nobody
//! there before, all are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Entry, Ports};
use crate::config::compilation::Compiled;
use crate::config::problem::Problem;
use crate::model::{DoorListen, ProcessSettings, ServiceName};

/// Something only one service can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Port(u16),
    Role(String),
    Schema(String),
    Database(String),
}

/// Who had what when it last compiled without a clash.
#[derive(Debug, Default)]
pub(super) struct Holders {
    held: BTreeMap<Thing, BTreeSet<ServiceName>>,
    /// The same by service.
    had: BTreeMap<ServiceName, Vec<Thing>>,
    /// What each service wants now.
    wanted: BTreeMap<ServiceName, Vec<Thing>>,
}

/// One wish of one service.
#[derive(Debug)]
struct Wish<'a> {
    name: &'a ServiceName,
    is_local: bool,
    /// Of a port: on which address; `None` = all.
    listen: Option<IpAddr>,
    /// Of a database: shared with others who share it too.
    is_shared: bool,
    key: &'static str,
}

impl Holders {
    /// The problems of every local service that wants what another has.
    pub(super) fn check(
        &mut self,
        entries: &BTreeMap<ServiceName, Entry>,
        ports: &Ports,
        settings: &ProcessSettings,
    ) -> BTreeMap<ServiceName, Vec<Problem>> {
        let mut wishes: BTreeMap<Thing, Vec<Wish<'_>>> = BTreeMap::new();
        self.wanted.clear();
        for (name, entry) in entries {
            for (thing, wish) in wishes_of(name, entry, ports, settings) {
                if entry.role.is_local {
                    let wanted = self.wanted.entry(name.clone()).or_default();
                    wanted.push(thing.clone());
                }
                wishes.entry(thing).or_default().push(wish);
            }
        }
        let gone: Vec<ServiceName> = self
            .had
            .keys()
            .filter(|name| !entries.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.hold(&name, Vec::new());
        }
        let mut problems: BTreeMap<ServiceName, Vec<Problem>> = BTreeMap::new();
        for (thing, wishes) in &wishes {
            for wish in wishes.iter().filter(|wish| wish.is_local) {
                let rival = self.rival(thing, wish, wishes);
                if let Some(rival) = rival {
                    let entry = &entries[wish.name];
                    let problem = clash(thing, wish, rival, entry);
                    problems.entry(wish.name.clone()).or_default().push(problem);
                }
            }
        }
        for (name, entry) in entries.iter().filter(|(_, entry)| entry.role.is_local) {
            let own = doors(name, entry, ports, settings, &wishes);
            if !own.is_empty() {
                problems.entry(name.clone()).or_default().extend(own);
            }
        }
        problems
    }

    /// Who stands in the way of a wish: a holder, or any other while nobody
    /// holds it.
    fn rival<'a>(
        &'a self,
        thing: &Thing,
        wish: &Wish<'_>,
        wishes: &'a [Wish<'a>],
    ) -> Option<&'a ServiceName> {
        let holders = self.held.get(thing);
        if holders.is_some_and(|holders| holders.contains(wish.name)) {
            return None;
        }
        wishes
            .iter()
            .filter(|other| other.name != wish.name)
            .find(|other| overlap(thing, wish, other))
            .map(|other| other.name)
    }

    /// Remembers who has what: a service that compiled has what it wants and
    /// nothing else; one that did not keeps what it had.
    pub(super) fn remember(&mut self, services: &BTreeMap<ServiceName, Compiled>) {
        for (name, compiled) in services {
            if !matches!(compiled, Compiled::Local(local) if local.spec.is_ok()) {
                continue;
            }
            let wanted = self.wanted.remove(name).unwrap_or_default();
            if self.had.get(name) != Some(&wanted) {
                self.hold(name, wanted);
            }
        }
    }

    /// From now on the service has these things and no others.
    fn hold(&mut self, name: &ServiceName, things: Vec<Thing>) {
        for thing in self.had.remove(name).unwrap_or_default() {
            if let Some(holders) = self.held.get_mut(&thing) {
                holders.remove(name);
                if holders.is_empty() {
                    self.held.remove(&thing);
                }
            }
        }
        for thing in &things {
            let holders = self.held.entry(thing.clone()).or_default();
            holders.insert(name.clone());
        }
        if !things.is_empty() {
            self.had.insert(name.clone(), things);
        }
    }
}

fn wishes_of<'a>(
    name: &'a ServiceName,
    entry: &Entry,
    ports: &Ports,
    settings: &ProcessSettings,
) -> Vec<(Thing, Wish<'a>)> {
    let wish = |key: &'static str, is_shared: bool| Wish {
        name,
        is_local: entry.role.is_local,
        listen: None,
        is_shared,
        key,
    };
    let mut wishes = Vec::new();
    let Some(outline) = &entry.outline else {
        return wishes;
    };
    if let Some(port) = ports.public(name).filter(|_| entry.role.is_local) {
        let listen = outline.listen.or(settings.listen);
        let listen = listen.filter(|address| !address.is_unspecified());
        wishes.push((
            Thing::Port(port),
            Wish {
                listen,
                ..wish("port", false)
            },
        ));
    }
    if let Some(claim) = &outline.database {
        let at = |name: &str| format!("{} {name}", claim.cluster);
        wishes.push((Thing::Role(at(&claim.role)), wish("database.role", false)));
        wishes.push((
            Thing::Database(at(&claim.database)),
            wish("database.database", claim.schema.is_some()),
        ));
        if let Some(schema) = &claim.schema {
            let full = format!("{}.{schema}", claim.database);
            wishes.push((Thing::Schema(at(&full)), wish("database.schema", false)));
        }
    }
    wishes
}

fn overlap(thing: &Thing, one: &Wish<'_>, other: &Wish<'_>) -> bool {
    match thing {
        Thing::Port(_) => match (one.listen, other.listen) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        },
        Thing::Database(_) => !(one.is_shared && other.is_shared),
        Thing::Role(_) | Thing::Schema(_) => true,
    }
}

fn clash(thing: &Thing, wish: &Wish<'_>, rival: &ServiceName, entry: &Entry) -> Problem {
    let places = &entry.parsed.places;
    let origin = places.nearest(wish.key).origin(wish.key);
    let bare = |text: &str| {
        let name = text.split_once(' ').map_or("", |(_, name)| name);
        if places.is_resolved(wish.key) {
            String::new()
        } else {
            format!(" `{name}`")
        }
    };
    let (what, hint) = match thing {
        Thing::Port(port) => (
            format!("port {port} belongs to `{rival}` too"),
            "give one of them another `port`".to_owned(),
        ),
        Thing::Role(name) => (
            format!("the role{} belongs to `{rival}` too", bare(name)),
            "set `database.role` for one of them".to_owned(),
        ),
        Thing::Schema(name) => (
            format!("the schema{} belongs to `{rival}` too", bare(name)),
            "set `database.schema` for one of them".to_owned(),
        ),
        Thing::Database(name) => (
            format!("the database{} belongs to `{rival}` too", bare(name)),
            "set `database.database` for one of them".to_owned(),
        ),
    };
    Problem::error(origin, what).hint(hint).of(wish.name)
}

/// Ports of the process's own doors, and ports on loopback for dependencies.
fn doors(
    name: &ServiceName,
    entry: &Entry,
    ports: &Ports,
    settings: &ProcessSettings,
    wishes: &BTreeMap<Thing, Vec<Wish<'_>>>,
) -> Vec<Problem> {
    let Some(outline) = &entry.outline else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let mut refuse = |key: &str, message: String| {
        let origin = entry.parsed.places.nearest(key).origin(key);
        problems.push(Problem::error(origin, message).of(name));
    };
    let has_dependencies = !outline.names.is_empty();
    let has_database = outline.database.is_some();
    let own: [(&str, DoorListen, bool); 4] = [
        ("observe.listen", settings.observe, true),
        ("admin.listen", settings.admin.listen, true),
        (
            "outbound.listen",
            settings.outbound.listen,
            has_dependencies,
        ),
        ("sql.listen", settings.sql.listen, has_database),
    ];
    let door_at = |port: u16, listen: Option<IpAddr>| {
        own.iter().find_map(|(key, door, is_open)| match door {
            DoorListen::At(address) if *is_open && meets(*address, port, listen) => Some(*key),
            _ => None,
        })
    };
    let public = ports.public(name);
    let listen = outline.listen.or(settings.listen);
    if let Some(port) = public
        && let Some(door) = door_at(port, listen)
    {
        refuse(
            "port",
            format!("port {port} is the process's own: `{door}`"),
        );
    }
    for (index, port) in &outline.local_ports {
        let key = format!("dependencies[{index}].localPort");
        let loopback = Some(IpAddr::from([127, 0, 0, 1]));
        if let Some(door) = door_at(*port, loopback) {
            refuse(&key, format!("port {port} is the process's own: `{door}`"));
        } else if let Some(other) = wishes
            .get(&Thing::Port(*port))
            .and_then(|wishes| wishes.first())
        {
            refuse(
                &key,
                format!("port {port} is the public port of `{}`", other.name),
            );
        }
        let is_double = outline
            .local_ports
            .iter()
            .any(|(other, same)| same == port && other < index);
        if is_double {
            refuse(&key, format!("port {port} is there twice"));
        }
    }
    problems
}

/// Whether a door's address is where a listener on `listen` would be.
fn meets(door: SocketAddr, port: u16, listen: Option<IpAddr>) -> bool {
    let listen = listen.filter(|address| !address.is_unspecified());
    door.port() == port
        && (door.ip().is_unspecified() || listen.is_none_or(|address| address == door.ip()))
}
