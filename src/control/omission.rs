//! Nothing opens by omission (SPEC §1.3).

use crate::model::{AuthPolicy, Deny, Requirement, Rule, ServiceSpec};

/// Why a good version is kept out of force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It asks nothing of its callers, without saying so.
    Silent,
    /// Its file is the beginning of the one in force, and what is missing kept
    /// somebody out.
    Cut,
}

impl Opening {
    /// How `next` would open what `before` closes by leaving something out.
    /// `cut`: the file of `next` is a beginning of the file of `before`.
    pub(super) fn between(before: &ServiceSpec, next: &ServiceSpec, cut: bool) -> Option<Self> {
        if opens(&before.auth, &next.auth) {
            Some(Self::Silent)
        } else if cut && !closes_only(before, next) {
            Some(Self::Cut)
        } else {
            None
        }
    }
}

/// Whether everybody whom `next` lets in, `before` let in as well, as far as
/// that is plain: the same but for fewer keys and fewer exemptions at the end.
fn closes_only(before: &ServiceSpec, next: &ServiceSpec) -> bool {
    let keys = |policy: &AuthPolicy| {
        let policy = policy.api_key.as_ref();
        policy.map_or_else(Vec::new, |policy| policy.keys.clone())
    };
    let known = keys(&before.auth);
    let fewer_keys = keys(&next.auth).iter().all(|key| known.contains(key));
    let comparable = |policy: &AuthPolicy| AuthPolicy {
        api_key: None,
        rules: Vec::new(),
        ..policy.clone()
    };
    let exempts =
        |rule: &Rule| rule.requirement == Some(Requirement::None) && rule.deny == Deny::Nobody;
    let (rules, left) = (&before.auth.rules, &next.auth.rules);
    let fewer_exemptions = rules.starts_with(left) && rules.iter().skip(left.len()).all(exempts);
    fewer_keys
        && fewer_exemptions
        && comparable(&before.auth) == comparable(&next.auth)
        && (before.listen, &before.tls) == (next.listen, &next.tls)
}

/// Whether `next` asks nothing of its callers, without saying so itself, where
/// `before` asked something: a block that was dropped or lost, not a decision.
fn opens(before: &AuthPolicy, next: &AuthPolicy) -> bool {
    let silent = next.requirement == Requirement::None && !next.explicit;
    silent
        && (before.requirement != Requirement::None
            || (has_guarding_rule(before) && !has_guarding_rule(next)))
}

/// Whether any rule keeps somebody out.
fn has_guarding_rule(policy: &AuthPolicy) -> bool {
    policy.rules.iter().any(|rule| {
        let asks = rule
            .requirement
            .as_ref()
            .is_some_and(|requirement| *requirement != Requirement::None);
        asks || rule.deny != Deny::Nobody
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, Rule, Strategy};

    fn asking() -> Requirement {
        Requirement::AnyOf(vec![Strategy::ApiKey])
    }

    fn rule(requirement: Option<Requirement>) -> Rule {
        Rule {
            paths: Vec::new(),
            methods: Vec::new(),
            requirement,
            allow: None,
            deny: Deny::Nobody,
            upstream: None,
            origin: Origin::default(),
        }
    }

    #[test]
    fn only_a_silent_opening_is_refused() {
        let open = AuthPolicy::open();
        let said_none = AuthPolicy {
            explicit: true,
            ..AuthPolicy::open()
        };
        let closed = AuthPolicy {
            requirement: asking(),
            explicit: true,
            ..AuthPolicy::open()
        };
        let by_rule = AuthPolicy {
            rules: vec![rule(Some(asking()))],
            ..AuthPolicy::open()
        };
        let denied = AuthPolicy {
            rules: vec![Rule {
                deny: Deny::Everyone,
                ..rule(None)
            }],
            ..AuthPolicy::open()
        };
        let exempting = AuthPolicy {
            rules: vec![rule(Some(Requirement::None))],
            ..AuthPolicy::open()
        };
        for (before, next, expected) in [
            (&closed, &open, true),
            (&closed, &by_rule, true),
            (&closed, &exempting, true),
            (&by_rule, &open, true),
            (&by_rule, &exempting, true),
            (&denied, &open, true),
            (&closed, &said_none, false),
            (&by_rule, &said_none, false),
            (&by_rule, &denied, false),
            (&open, &open, false),
            (&said_none, &open, false),
            (&exempting, &open, false),
            (&open, &closed, false),
        ] {
            assert_eq!(opens(before, next), expected, "{before:?} → {next:?}");
        }
    }

    #[test]
    fn a_cut_file_may_only_close() {
        use std::sync::Arc;

        use crate::control::fixture::spec;
        use crate::model::{ApiKey, ApiKeyDigest, ApiKeyPolicy, Who};

        let key = |id: &str| ApiKey {
            id: Arc::from(id),
            sha256: ApiKeyDigest([id.len() as u8; 32]),
            not_before: None,
            expires: None,
        };
        let whole = |ids: &[&str], rules: Vec<Rule>| {
            let mut spec = spec("cart", 1);
            spec.auth = AuthPolicy {
                requirement: asking(),
                explicit: true,
                rules,
                api_key: Some(ApiKeyPolicy {
                    keys: ids.iter().map(|id| key(id)).collect(),
                }),
                ..AuthPolicy::open()
            };
            spec
        };
        let exemption = || rule(Some(Requirement::None));
        let guard = || Rule {
            allow: Some(Who::default()),
            ..rule(None)
        };
        let before = whole(&["web", "operators"], vec![guard(), exemption()]);
        let mut elsewhere = before.clone();
        elsewhere.listen = Some([127, 0, 0, 1].into());
        for (next, cut, expected) in [
            (&before, true, None),
            (&whole(&["web"], vec![guard(), exemption()]), true, None),
            (&whole(&["web"], vec![guard()]), true, None),
            (&whole(&["web"], vec![]), true, Some(Opening::Cut)),
            (&whole(&["web"], vec![]), false, None),
            (&whole(&["we"], vec![guard()]), true, Some(Opening::Cut)),
            (
                &whole(&["web"], vec![exemption()]),
                true,
                Some(Opening::Cut),
            ),
            (&elsewhere, true, Some(Opening::Cut)),
        ] {
            assert_eq!(Opening::between(&before, next, cut), expected, "{next:?}");
        }
    }
}
