//! What leads from one set of services to another, as a value.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ServiceName;

/// The difference between two sets of services, each name with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diff<V> {
    /// New names.
    pub(super) added: BTreeMap<ServiceName, V>,
    /// Names with another version.
    pub(super) changed: BTreeMap<ServiceName, V>,
    pub(super) removed: BTreeSet<ServiceName>,
}

/// What to do to `from` to get `to`.
pub(super) fn diff<V: Clone + PartialEq>(
    from: &BTreeMap<ServiceName, V>,
    to: &BTreeMap<ServiceName, V>,
) -> Diff<V> {
    let mut diff = Diff {
        added: BTreeMap::new(),
        changed: BTreeMap::new(),
        removed: from
            .keys()
            .filter(|name| !to.contains_key(*name))
            .cloned()
            .collect(),
    };
    for (name, wanted) in to {
        let side = match from.get(name) {
            Some(present) if present == wanted => continue,
            Some(_) => &mut diff.changed,
            None => &mut diff.added,
        };
        side.insert(name.clone(), wanted.clone());
    }
    diff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl<V> Diff<V> {
        /// Nothing to do.
        fn is_empty(&self) -> bool {
            self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
        }

        /// Does it.
        fn apply(self, to: &mut BTreeMap<ServiceName, V>) {
            to.retain(|name, _| !self.removed.contains(name));
            to.extend(self.added);
            to.extend(self.changed);
        }
    }

    fn services() -> impl Strategy<Value = BTreeMap<ServiceName, u8>> {
        let name = (0_u8..4, 0_u8..4).prop_map(|(domain, service)| {
            ServiceName::new(&format!("d{domain}"), &format!("s{service}")).expect("valid")
        });
        prop::collection::btree_map(name, 0_u8..3, 0..12)
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_other(from in services(), to in services()) {
            let difference = diff(&from, &to);
            let mut result = from.clone();
            difference.clone().apply(&mut result);
            prop_assert_eq!(&result, &to);
            prop_assert_eq!(difference.is_empty(), from == to);
            prop_assert!(diff(&to, &to).is_empty());
            for name in &difference.removed {
                prop_assert!(!difference.added.contains_key(name));
                prop_assert!(!difference.changed.contains_key(name));
            }
            for name in difference.changed.keys() {
                prop_assert!(from.contains_key(name) && !difference.added.contains_key(name));
            }
        }
    }
}
