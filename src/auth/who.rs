//! `allow` and `deny`: who, once authenticated.

use std::sync::Arc;

use crate::model::{Deny, Identity, Who};

/// Values of the claims that rules ask about, in the order of [`ClaimNames`].
pub(super) type ClaimValues = Box<[Box<[Box<str>]>]>;

/// Every claim that some `allow` or `deny` of a policy asks about.
#[derive(Debug, Default)]
pub(super) struct ClaimNames(Vec<Arc<str>>);

impl ClaimNames {
    fn index_of(&mut self, name: &Arc<str>) -> usize {
        match self.0.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                self.0.push(Arc::clone(name));
                self.0.len() - 1
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }
}

/// An authenticated caller, as far as lists can ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) identity: &'a Identity,
    /// Id of the API key that was shown.
    pub(super) key: Option<&'a str>,
    /// Of the token that was shown.
    pub(super) claims: Option<&'a ClaimValues>,
}

/// A [`Who`] ready to be asked.
#[derive(Debug)]
pub(super) struct Listed {
    who: Who,
    /// Index into [`ClaimNames`], accepted values.
    claims: Vec<(usize, Vec<Arc<str>>)>,
}

impl Listed {
    pub(super) fn new(who: &Who, names: &mut ClaimNames) -> Self {
        Self {
            claims: who
                .claims
                .iter()
                .map(|(name, values)| (names.index_of(name), values.clone()))
                .collect(),
            who: who.clone(),
        }
    }

    /// Every list that is present must hold the caller; within a list one match
    /// is enough.
    pub(super) fn holds(&self, caller: &Caller<'_>) -> bool {
        let Self {
            who:
                Who {
                    services,
                    keys,
                    subjects,
                    claims: _,
                },
            claims,
        } = self;
        let service = caller.identity.service.as_deref();
        let subject = caller.identity.subject.as_deref();
        (services.is_empty()
            || service.is_some_and(|name| services.iter().any(|listed| is_service(listed, name))))
            && (keys.is_empty() || caller.key.is_some_and(|id| is_listed(keys, id)))
            && (subjects.is_empty() || subject.is_some_and(|name| is_listed(subjects, name)))
            && claims.iter().all(|(index, accepted)| {
                caller
                    .claims
                    .and_then(|values| values.get(*index))
                    .is_some_and(|values| values.iter().any(|value| is_listed(accepted, value)))
            })
    }
}

fn is_listed(list: &[Arc<str>], name: &str) -> bool {
    list.iter().any(|listed| &**listed == name)
}

/// A bare name lists that service whatever its domain; a full name only itself.
fn is_service(listed: &str, name: &str) -> bool {
    if listed == name {
        return true;
    }
    match name.split_once('/') {
        Some((_, bare)) => !listed.contains('/') && listed == bare,
        None => false,
    }
}

/// `deny` ready to be asked.
#[derive(Debug)]
pub(super) enum Refusal {
    Nobody,
    Everyone,
    Listed(Listed),
}

impl Refusal {
    pub(super) fn new(deny: &Deny, names: &mut ClaimNames) -> Self {
        match deny {
            Deny::Nobody => Self::Nobody,
            Deny::Everyone => Self::Everyone,
            Deny::Who(who) => Self::Listed(Listed::new(who, names)),
        }
    }

    pub(super) fn holds(&self, caller: &Caller<'_>) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everyone => true,
            Self::Listed(listed) => listed.holds(caller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Strategy;

    fn list(items: &[&str]) -> Vec<Arc<str>> {
        items.iter().map(|item| Arc::from(*item)).collect()
    }

    fn identity(subject: &str, service: Option<&str>) -> Identity {
        Identity {
            strategy: Strategy::Jwt,
            subject: Some(subject.into()),
            service: service.map(Into::into),
        }
    }

    #[test]
    fn services_by_bare_and_full_name() {
        for (listed, name, expected) in [
            ("orders", "orders", true),
            ("orders", "shop/orders", true),
            ("shop/orders", "shop/orders", true),
            ("shop/orders", "orders", false),
            ("shop/orders", "evil/orders", false),
            ("orders", "evil/x/orders", false),
            ("orders", "Orders", false),
            ("orders", "spiffe://td/orders", false),
        ] {
            let mut names = ClaimNames::default();
            let who = Who {
                services: list(&[listed]),
                ..Who::default()
            };
            let identity = identity("x", Some(name));
            let caller = Caller {
                identity: &identity,
                key: None,
                claims: None,
            };
            assert_eq!(
                Listed::new(&who, &mut names).holds(&caller),
                expected,
                "{listed} {name}"
            );
        }
    }

    #[test]
    fn every_present_list_must_hold_the_caller() {
        let mut names = ClaimNames::default();
        let who = Who {
            services: Vec::new(),
            keys: list(&["web", "jobs"]),
            subjects: list(&["ann"]),
            claims: [
                (Arc::from("scope"), list(&["read", "write"])),
                (Arc::from("org"), list(&["7"])),
            ]
            .into(),
        };
        let listed = Listed::new(&who, &mut names);
        let scope = names.iter().position(|name| &**name == "scope").unwrap();
        let claims = |scopes: &[&str], org: &str| -> ClaimValues {
            let scopes: Box<[Box<str>]> = scopes.iter().map(|text| Box::from(*text)).collect();
            let org: Box<[Box<str>]> = Box::new([Box::from(org)]);
            if scope == 0 {
                Box::new([scopes, org])
            } else {
                Box::new([org, scopes])
            }
        };
        let holds = |subject: &str, key: Option<&str>, claims: Option<ClaimValues>| {
            listed.holds(&Caller {
                identity: &identity(subject, None),
                key,
                claims: claims.as_ref(),
            })
        };
        assert!(holds(
            "ann",
            Some("web"),
            Some(claims(&["x", "write"], "7"))
        ));
        assert!(!holds("bob", Some("web"), Some(claims(&["write"], "7"))));
        assert!(!holds("ann", Some("cli"), Some(claims(&["write"], "7"))));
        assert!(!holds("ann", None, Some(claims(&["write"], "7"))));
        assert!(!holds("ann", Some("web"), Some(claims(&["x"], "7"))));
        assert!(!holds("ann", Some("web"), Some(claims(&["write"], "8"))));
        assert!(!holds("ann", Some("web"), None));
    }
}
