//! Who may call: rules, strategies, identity.
//!
//! An [`Authenticator`] is resolved from a service's policy when its snapshot is
//! built; [`Authenticator::check`] then decides about each request:
//! `rules` finds what is asked → `carrier` reads what is shown → `settle` runs
//! the truth tables over the strategies (`api_key`, …) → `who` asks the lists →
//! `grant` turns the identity into headers for the app. The api-key and `none`
//! paths neither allocate nor look anything up by name.

mod api_key;
mod call;
mod carrier;
mod explain;
mod grant;
mod named;
mod path;
mod request;
mod rules;
mod settle;
#[cfg(test)]
mod tests;
mod who;

use std::sync::Arc;

use http::header::HeaderName;

use crate::model::{AuthPolicy, AuthReason, Kind, Preflight, ServiceSpec, Strategy};

pub use api_key::digest_of;
pub use call::{Allowed, Call, Denied, RemoveHeaders, SetHeaders};
pub use explain::{Decision, Explanation};

use api_key::ApiKeys;
use grant::Grants;
use request::Request;
use rules::{Plan, Rules};
use settle::Settled;
use who::{Caller, ClaimNames, Refusal};

/// Everything that decides who may call one service.
#[derive(Debug)]
pub struct Authenticator {
    /// What this was built from.
    policy: AuthPolicy,
    workers: usize,
    rules: Rules,
    api_keys: Option<ApiKeys>,
    grants: Grants,
}

/// What an authenticator is built with, beside the policy.
#[derive(Debug, Clone, Copy)]
pub struct AuthContext<'a> {
    /// Data threads, which get their own copies of what is counted.
    pub workers: usize,
    /// The service's present authenticator, whose parts are kept where nothing
    /// changed.
    pub predecessor: Option<&'a Arc<Authenticator>>,
}

/// What one data thread keeps for authentication.
#[derive(Debug)]
pub struct AuthWorker {
    index: usize,
}

impl AuthWorker {
    /// `index` counts the data threads from 0.
    pub fn new(index: usize) -> Self {
        Self { index }
    }
}

/// Why a policy cannot be put to work. Never holds a secret value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("auth.apiKey.keys: there is no key")]
    NoKeys,
    #[error("auth.apiKey.keys: the id {0:?} cannot stand in a header")]
    KeyId(String),
    #[error("auth.rules: {0:?} is not a method")]
    Method(String),
    #[error("{0:?} is not a header name")]
    HeaderName(String),
    #[error("auth.appToken: the value cannot stand in a header")]
    AppToken,
}

impl Authenticator {
    /// Resolves the policy of a service.
    ///
    /// # Errors
    /// A [`BuildError`] names the first part that cannot be put to work.
    pub fn build(spec: &ServiceSpec, context: &AuthContext<'_>) -> Result<Arc<Self>, BuildError> {
        Self::from_policy(&spec.auth, context)
    }

    fn from_policy(
        policy: &AuthPolicy,
        context: &AuthContext<'_>,
    ) -> Result<Arc<Self>, BuildError> {
        if let Some(same) = context
            .predecessor
            .filter(|known| known.policy == *policy && known.workers == context.workers)
        {
            return Ok(Arc::clone(same));
        }
        let mut names = ClaimNames::default();
        let api_keys = match &policy.api_key {
            Some(keys) => Some(ApiKeys::build(keys, context.workers)?),
            None => None,
        };
        Ok(Arc::new(Self {
            rules: Rules::build(policy, &mut names)?,
            api_keys,
            grants: Grants::build(policy, context.workers)?,
            workers: context.workers,
            policy: policy.clone(),
        }))
    }

    /// Every header that an allowed request may get from here (ID-1): inbound
    /// strips them from all requests. Credential carriers are not among them
    /// even where they can be set: they are read first and replaced here.
    pub fn reserved_headers(&self) -> Vec<HeaderName> {
        self.grants.reserved().to_vec()
    }

    /// Decides about a request. The probes and `/health` never come here.
    ///
    /// # Errors
    /// [`Denied`] says what to answer and, for log and metrics, why.
    pub async fn check(&self, call: &Call<'_>, worker: &AuthWorker) -> Result<Allowed, Denied> {
        self.decide(&Request::new(call, worker.index))
    }

    /// The part of a decision that waits for nobody.
    fn decide(&self, request: &Request<'_>) -> Result<Allowed, Denied> {
        let call = request.call;
        let found = self
            .rules
            .find(call.method, call.path)
            .ok_or_else(|| Denied::new(Kind::BadRequest, None, AuthReason::Path))?;
        let preflight = self.policy.preflight == Preflight::Forward && request.is_preflight();
        let mut kept: Option<Allowed> = None;
        for plan in self.rules.plans(&found) {
            let allowed = self.meet(plan, request, preflight)?;
            kept = Some(match kept {
                Some(kept) => kept.and(allowed),
                None => allowed,
            });
        }
        let mut allowed = kept.expect("the decider's plan is always among the plans");
        allowed.rule = found.rule();
        Ok(allowed)
    }

    /// Whether the request meets one plan.
    fn meet(&self, plan: &Plan, request: &Request<'_>, preflight: bool) -> Result<Allowed, Denied> {
        if matches!(plan.deny, Refusal::Everyone) {
            return Err(Denied::new(Kind::NotAllowed, None, AuthReason::DenyRule));
        }
        if preflight {
            return Ok(self.grants.anonymous(request, AuthReason::Preflight));
        }
        match self.settle(&plan.requirement, request) {
            Settled::Open => Ok(self.grants.anonymous(request, AuthReason::Open)),
            Settled::Refused(denied) => Err(denied),
            Settled::Proved { by, proofs } => {
                let named = by.named(request.worker);
                let caller = Caller {
                    identity: &named.identity,
                    key: proofs.key.map(|entry| entry.id()),
                    claims: None,
                };
                refuse(plan, &caller, by.strategy())?;
                Ok(self.grants.authenticated(request, named, &proofs))
            }
        }
    }
}

/// Asks `deny`, then `allow`.
fn refuse(plan: &Plan, caller: &Caller<'_>, by: Strategy) -> Result<(), Denied> {
    let reason = if plan.deny.holds(caller) {
        AuthReason::DenyRule
    } else if plan.allow.as_ref().is_some_and(|list| !list.holds(caller)) {
        AuthReason::NotListed
    } else {
        return Ok(());
    };
    Err(Denied::new(Kind::NotAllowed, Some(by), reason))
}
