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
mod jwks;
mod jwt;
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
use tokio::runtime::Handle;

use crate::model::{AuthPolicy, AuthReason, Kind, Preflight, ServiceSpec, Strategy};

pub use api_key::digest_of;
pub use call::{Allowed, Call, Denied, RemoveHeaders, SetHeaders};
pub use explain::{Decision, Explanation};
pub use jwt::{KeyError, Mint, MintError, mint};

use api_key::{ApiKeys, Entry};
use grant::Grants;
use jwks::{Refetch, RemoteKeySet};
use jwt::Jwt;
use request::Request;
use rules::{Found, Plan, Rules};
use settle::{Proof, Proofs, Settled};
use who::{Caller, ClaimNames, Refusal};

/// Everything that decides who may call one service.
#[derive(Debug)]
pub struct Authenticator {
    /// What this was built from.
    policy: AuthPolicy,
    workers: usize,
    rules: Rules,
    api_keys: Option<ApiKeys>,
    jwt: Option<Jwt>,
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
    #[error("auth.jwt: {0}")]
    Jwt(#[from] KeyError),
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
        let known = context.predecessor.and_then(|known| known.jwt.as_ref());
        Self::with_key_set(policy, context, known.and_then(Jwt::remote))
    }

    /// `known` is a key set that is kept if the policy names the same source.
    fn with_key_set(
        policy: &AuthPolicy,
        context: &AuthContext<'_>,
        known: Option<&Arc<RemoteKeySet>>,
    ) -> Result<Arc<Self>, BuildError> {
        let mut names = ClaimNames::default();
        let api_keys = match &policy.api_key {
            Some(keys) => Some(ApiKeys::build(keys, context.workers)?),
            None => None,
        };
        // The rules first: they collect the claims that tokens must keep.
        let rules = Rules::build(policy, &mut names)?;
        let jwt = match &policy.jwt {
            Some(jwt) => Some(Jwt::build(jwt, &names, context.workers, known)?),
            None => None,
        };
        Ok(Arc::new(Self {
            rules,
            api_keys,
            jwt,
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

    /// Begins what the data path must not do itself: fetching key sets, on the
    /// control runtime. To be called after publishing; does nothing where there
    /// is nothing to fetch or it was begun before. Dropping the last
    /// authenticator that uses a key set ends its task.
    pub fn start(&self, runtime: &Handle) {
        if let Some(remote) = self.jwt.as_ref().and_then(Jwt::remote) {
            remote.start(runtime);
        }
    }

    /// Whether every key that must be fetched is there.
    pub fn is_ready(&self) -> bool {
        self.jwt
            .as_ref()
            .and_then(Jwt::remote)
            .is_none_or(|remote| remote.is_ready())
    }

    /// Decides about a request. The probes and `/health` never come here.
    ///
    /// # Errors
    /// [`Denied`] says what to answer and, for log and metrics, why.
    pub async fn check(&self, call: &Call<'_>, worker: &AuthWorker) -> Result<Allowed, Denied> {
        let request = Request::new(call, Some(worker.index));
        let (found, preflight) = self.find(&request)?;
        let mut kept = None;
        for plan in self.rules.plans(&found) {
            let allowed = match self.meet(plan, &request, preflight) {
                Ok(allowed) => allowed,
                Err(Unmet::Denied(denied)) => return Err(denied),
                // Boxed: rare, and the usual future stays small.
                Err(Unmet::Wait(wait)) => Box::pin(self.resolve(plan, &request, wait)).await?,
            };
            kept = Some(Allowed::both(kept, allowed));
        }
        Ok(finish(kept, &found))
    }

    /// The same decision without waiting for anybody.
    fn decide(&self, request: &Request<'_>) -> Result<Allowed, Denied> {
        let (found, preflight) = self.find(request)?;
        let mut kept = None;
        request.refetched.set(Some(Refetch::TooSoon));
        for plan in self.rules.plans(&found) {
            let allowed = match self.meet(plan, request, preflight) {
                Ok(allowed) => allowed,
                Err(Unmet::Denied(denied)) => return Err(denied),
                Err(Unmet::Wait(Wait::Keys(_))) => return Err(no_keys()),
            };
            kept = Some(Allowed::both(kept, allowed));
        }
        Ok(finish(kept, &found))
    }

    /// The rule, and whether the request is a preflight to be let through.
    fn find(&self, request: &Request<'_>) -> Result<(Found, bool), Denied> {
        let call = request.call;
        let found = self
            .rules
            .find(call.method, call.path)
            .ok_or_else(|| Denied::new(Kind::BadRequest, None, AuthReason::Path))?;
        let preflight = self.policy.preflight == Preflight::Forward && request.is_preflight();
        Ok((found, preflight))
    }

    /// Whether the request meets one plan.
    fn meet(&self, plan: &Plan, request: &Request<'_>, preflight: bool) -> Result<Allowed, Unmet> {
        if matches!(plan.deny, Refusal::Everyone) {
            let denied = Denied::new(Kind::NotAllowed, None, AuthReason::DenyRule);
            return Err(Unmet::Denied(denied));
        }
        if preflight {
            return Ok(self.grants.anonymous(request, AuthReason::Preflight));
        }
        match self.settle(&plan.requirement, request) {
            Settled::Open => Ok(self.grants.anonymous(request, AuthReason::Open)),
            Settled::Refused(denied) => Err(Unmet::Denied(denied)),
            Settled::AwaitKeys(remote) => Err(Unmet::Wait(Wait::Keys(remote))),
            Settled::Proved { by, proofs } => self
                .grant(plan, request, &by, &proofs)
                .map_err(Unmet::Denied),
        }
    }

    /// Asks the lists about a caller, and writes down what the app is told.
    fn grant(
        &self,
        plan: &Plan,
        request: &Request<'_>,
        by: &Proof<'_>,
        proofs: &Proofs<'_>,
    ) -> Result<Allowed, Denied> {
        let named = by.named(request.copies());
        let caller = Caller {
            identity: &named.identity,
            key: proofs.key.map(Entry::id),
            claims: proofs.token.as_ref().map(|token| &token.values),
        };
        refuse(plan, &caller, by.strategy())?;
        Ok(self.grants.authenticated(request, named, proofs))
    }

    /// Waits for what a decision hangs on, then decides.
    async fn resolve(
        &self,
        plan: &Plan,
        request: &Request<'_>,
        wait: Wait,
    ) -> Result<Allowed, Denied> {
        let Wait::Keys(remote) = wait;
        request.refetched.set(Some(remote.refetch().await));
        match self.meet(plan, request, false) {
            Ok(allowed) => Ok(allowed),
            Err(Unmet::Denied(denied)) => Err(denied),
            Err(Unmet::Wait(Wait::Keys(_))) => Err(no_keys()),
        }
    }
}

/// Why a plan is not met, or not yet.
enum Unmet {
    Denied(Denied),
    Wait(Wait),
}

/// What a decision hangs on.
enum Wait {
    /// Newer keys.
    Keys(Arc<RemoteKeySet>),
}

fn finish(kept: Option<Allowed>, found: &Found) -> Allowed {
    let mut allowed = kept.expect("the decider's plan is always among the plans");
    allowed.rule = found.rule();
    allowed
}

fn no_keys() -> Denied {
    Denied::new(
        Kind::AuthUnavailable,
        Some(Strategy::Jwt),
        AuthReason::NoKeys,
    )
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
