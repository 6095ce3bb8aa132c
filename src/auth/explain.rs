//! Why a request would be allowed or refused, for `POST /explain`.

use serde::Serialize;

use crate::model::{AuthReason, Requirement, Rule, Strategy};
use crate::telemetry::metrics::AuthResult;

use super::call::Call;
use super::request::Request;
use super::waiting::Wait;
use super::{Authenticator, Denied, Unmet};

/// The decision about a described request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Index of the rule that fits; absent = the service's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Where that rule stands: `file:line:column: key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// `none`, `anyOf(…)`, `allOf(…)` or a strategy.
    pub requirement: String,
    pub decision: Decision,
    /// Which strategy decided.
    pub strategy: &'static str,
    /// Of [`crate::model::AuthReason`].
    pub reason: &'static str,
    /// Who it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Where the rule sends it; absent = the service's upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

/// How an [`Explanation`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    Allowed,
    Denied,
    /// Cannot be judged now.
    Error,
    /// Everything else is settled; the hook, which is not asked here, has the
    /// last word.
    AskHook,
}

impl Explanation {
    /// For a request that is answered before anybody is asked who they are.
    pub fn not_asked() -> Self {
        Self {
            rule: None,
            origin: None,
            requirement: describe(&Requirement::None),
            decision: Decision::Allowed,
            strategy: "none",
            reason: AuthReason::Open.as_str(),
            subject: None,
            service: None,
            upstream: None,
        }
    }
}

impl Authenticator {
    /// Decides about a described request as [`Authenticator::check`] would,
    /// through the same code, without asking anybody else.
    pub fn explain(&self, call: &Call<'_>) -> Explanation {
        let rule = self
            .rules
            .find(call.method, call.path)
            .and_then(|found| found.rule());
        let written = rule.and_then(|index| self.policy.rules.get(index));
        let requirement = written
            .and_then(|rule| rule.requirement.as_ref())
            .unwrap_or(&self.policy.requirement);
        let outline = Explanation {
            rule,
            origin: written.map(|rule| rule.origin.to_string()),
            requirement: describe(requirement),
            decision: Decision::Denied,
            strategy: "none",
            reason: "",
            subject: None,
            service: None,
            upstream: written.and_then(upstream_of),
        };
        match self.decide(&Request::new(call, None)) {
            Ok(allowed) => Explanation {
                decision: Decision::Allowed,
                strategy: allowed.strategy,
                reason: allowed.reason,
                subject: name(
                    allowed
                        .identity
                        .as_ref()
                        .and_then(|who| who.subject.as_deref()),
                ),
                service: name(
                    allowed
                        .identity
                        .as_ref()
                        .and_then(|who| who.service.as_deref()),
                ),
                ..outline
            },
            Err(Unmet::Wait(Wait::Hook(_))) => Explanation {
                decision: Decision::AskHook,
                strategy: Strategy::Custom.as_str(),
                ..outline
            },
            Err(Unmet::Wait(Wait::Keys(_))) => Explanation {
                decision: Decision::Error,
                strategy: Strategy::Jwt.as_str(),
                reason: AuthReason::NoKeys.as_str(),
                ..outline
            },
            Err(Unmet::Denied(denied)) => Explanation {
                decision: decision_of(&denied),
                strategy: denied.strategy,
                reason: denied.reason,
                ..outline
            },
        }
    }
}

fn decision_of(denied: &Denied) -> Decision {
    match denied.result() {
        AuthResult::Unavailable => Decision::Error,
        AuthResult::Allowed | AuthResult::Denied => Decision::Denied,
    }
}

fn name(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn upstream_of(rule: &Rule) -> Option<String> {
    rule.upstream
        .as_ref()
        .map(|upstream| upstream.target.to_string())
}

fn describe(requirement: &Requirement) -> String {
    let join = |name: &str| {
        let list: Vec<_> = requirement
            .strategies()
            .iter()
            .map(|strategy| strategy.as_str())
            .collect();
        match list.as_slice() {
            [one] => (*one).to_owned(),
            _ => format!("{name}({})", list.join(", ")),
        }
    };
    match requirement {
        Requirement::None => "none".to_owned(),
        Requirement::AnyOf(_) => join("anyOf"),
        Requirement::AllOf(_) => join("allOf"),
    }
}
