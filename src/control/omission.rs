//! Nothing opens by omission (SPEC §1.3).

use crate::model::{AuthPolicy, Deny, Requirement};

/// Whether `next` asks nothing of its callers, without saying so itself, where
/// `before` asked something: a block that was dropped or lost, not a decision.
pub(super) fn opens(before: &AuthPolicy, next: &AuthPolicy) -> bool {
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
}
