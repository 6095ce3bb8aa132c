use proptest::prelude::*;

use super::*;
use crate::control::fixture::{dependency, name, settings, spec};

fn ready(service: &str, port: u16) -> Wanted {
    Wanted::Ready(Arc::new(spec(service, port)))
}

fn set(list: &[(&str, u16)]) -> BTreeMap<ServiceName, Wanted> {
    let versions = list
        .iter()
        .map(|(service, port)| (name(service), ready(service, *port)));
    versions.collect()
}

fn refused(
    in_force: &[(&str, u16)],
    removed: &[&str],
    candidates: &[(&str, u16)],
) -> Vec<(String, String)> {
    let removed = removed.iter().map(|service| name(service)).collect();
    clashes(&set(in_force), &removed, &set(candidates), &settings())
        .into_iter()
        .map(|(name, clash)| (name.name().to_owned(), clash.message))
        .collect()
}

fn said(service: &str, message: &str) -> (String, String) {
    (service.to_owned(), message.to_owned())
}

#[test]
fn the_changed_one_is_refused() {
    assert_eq!(
        refused(&[("a", 1), ("b", 2)], &[], &[("a", 2)]),
        [said("a", "port 2 belongs to shop/b")]
    );
    // Another change of the holder itself takes nothing away.
    assert_eq!(
        refused(&[("b", 2)], &[], &[("a", 2), ("b", 2)]),
        [said("a", "port 2 belongs to shop/b")]
    );
    assert_eq!(
        refused(&[], &[], &[("a", 2), ("b", 2)]),
        [
            said("a", "port 2 is also claimed by shop/b"),
            said("b", "port 2 is also claimed by shop/a"),
        ]
    );
}

#[test]
fn ports_may_be_swapped_and_taken_over() {
    assert!(refused(&[("a", 1), ("b", 2)], &[], &[("a", 2), ("b", 1)]).is_empty());
    assert!(refused(&[("a", 1), ("b", 2)], &["b"], &[("a", 2)]).is_empty());
    // A refusal gives a port back to its holder: whoever counted on it is refused too.
    assert_eq!(
        refused(&[("a", 1), ("b", 2), ("c", 3)], &[], &[("a", 2), ("b", 3)]),
        [
            said("a", "port 2 belongs to shop/b"),
            said("b", "port 3 belongs to shop/c"),
        ]
    );
}

#[test]
fn addresses_of_one_port_overlap_unless_both_are_named() {
    let listen = |ip: Option<&str>| Listen {
        ip: ip.map(|ip| ip.parse().expect("address")),
        port: 80,
    };
    for (left, right, expected) in [
        (None, None, true),
        (None, Some("127.0.0.1"), true),
        (Some("0.0.0.0"), Some("10.0.0.1"), true),
        (Some("127.0.0.1"), Some("127.0.0.1"), true),
        (Some("127.0.0.1"), Some("127.0.0.2"), false),
    ] {
        assert_eq!(listen(left).overlaps(listen(right)), expected);
        assert_eq!(listen(right).overlaps(listen(left)), expected);
    }
    let any = Listen { ip: None, port: 0 };
    assert!(!any.overlaps(any));
}

/// A service with its public port and ports of dependencies.
fn calling(service: &str, port: u16, local_ports: &[u16]) -> (ServiceName, Wanted) {
    let mut spec = spec(service, port);
    spec.dependencies = local_ports.iter().copied().map(dependency).collect();
    (name(service), Wanted::Ready(Arc::new(spec)))
}

#[test]
fn ports_of_dependencies_are_claims_too() {
    let refused = |in_force: &[_], candidates: &[_]| {
        let [in_force, candidates] =
            [in_force, candidates].map(|set| set.iter().cloned().collect());
        let refused = clashes(&in_force, &BTreeSet::new(), &candidates, &settings());
        let told = refused.into_iter();
        told.map(|(name, clash)| (name.name().to_owned(), clash.key, clash.message))
            .collect::<Vec<_>>()
    };
    let (a, b) = (calling("a", 1, &[4]), calling("b", 2, &[5]));
    let in_force = [a, b];
    assert_eq!(
        refused(&in_force, &[calling("b", 2, &[4, 5])]),
        [(
            "b".to_owned(),
            "dependencies",
            "port 4 belongs to shop/a".to_owned()
        )]
    );
    assert_eq!(
        refused(&in_force, &[calling("b", 4, &[5])]),
        [(
            "b".to_owned(),
            "port",
            "port 4 belongs to shop/a".to_owned()
        )]
    );
    // Exchanged, and one becomes the public port.
    assert_eq!(
        refused(&in_force, &[calling("a", 1, &[5]), calling("b", 4, &[])]),
        []
    );
}

proptest! {
    /// Whatever is asked for, what comes into force holds every port once, and
    /// nothing that did not change is touched.
    #[test]
    fn no_port_is_ever_held_twice(
        ports in prop::collection::vec(1_u16..5, 4),
        changes in prop::collection::btree_map(0_usize..8, 1_u16..9, 0..8),
        removed in prop::collection::btree_set(0_usize..4, 0..3),
    ) {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let mut in_force: Vec<(&str, u16)> = Vec::new();
        for (index, port) in ports.into_iter().enumerate() {
            if in_force.iter().all(|(_, taken)| *taken != port) {
                in_force.push((names[index], port));
            }
        }
        let removed: BTreeSet<_> = removed
            .into_iter()
            .filter(|index| !changes.contains_key(index))
            .map(|index| name(names[index]))
            .collect();
        let candidates: Vec<_> = changes.iter().map(|(index, port)| (names[*index], *port)).collect();
        let (in_force, candidates) = (set(&in_force), set(&candidates));
        let refused = clashes(&in_force, &removed, &candidates, &settings());
        let mut after = in_force;
        after.retain(|name, _| !removed.contains(name));
        for (name, wanted) in candidates {
            if !refused.contains_key(&name) {
                after.insert(name, wanted);
            }
        }
        let held: Vec<_> = after.values().map(|wanted| wanted.listen(&settings()).port).collect();
        let once: BTreeSet<_> = held.iter().collect();
        prop_assert_eq!(held.len(), once.len());
    }
}
