//! Who may call: rules, strategies, identity.
//!
//! An [`Authenticator`] is resolved from a service's policy when its snapshot is
//! built (`build`); [`Authenticator::check`] then decides about each request:
//! `rules` finds what is asked → `carrier` reads what is shown → `settle` runs
//! the truth tables over the strategies (`api_key`, `jwt`, `mtls`) → `waiting` asks for
//! newer keys (`jwks`) or the operator's server (`hook`) where the decision
//! hangs on them → `who` asks the lists → `grant` turns the identity into headers
//! for the app. The api-key and `none` paths neither allocate nor look anything
//! up by name.

mod api_key;
mod build;
mod call;
mod carrier;
mod explain;
mod grant;
mod hook;
mod jwks;
mod jwt;
mod mtls;
mod named;
mod path;
mod request;
mod rules;
mod settle;
#[cfg(test)]
mod tests;
mod waiting;
mod who;
mod worker;

use std::sync::Arc;
use std::time::SystemTime;

use http::header::HeaderName;
use tokio::runtime::Handle;

use crate::model::{AuthPolicy, AuthReason, Kind, Preflight, Strategy};
use crate::telemetry::metrics::ServiceMetrics;
use crate::telemetry::supervise::Supervisor;

pub use api_key::digest_of;
pub use build::{AuthContext, BuildError};
pub use call::{Allowed, Call, CallTrace, Denied, RemoveHeaders};
pub use explain::{Decision, Explanation};
pub use jwt::{KeyError, Mint, MintError, mint};
pub use worker::AuthWorker;

use api_key::{ApiKeys, Entry};
use grant::Grants;
use hook::Hook;
use jwks::Refetch;
use jwt::Jwt;
use mtls::Certificates;
use request::Request;
use rules::{Found, Plan, Rules};
use settle::{Proof, Proofs, Settled};
use waiting::Wait;
use who::{Caller, Refusal};

/// Everything that decides who may call one service.
#[derive(Debug)]
pub struct Authenticator {
    /// What this was built from.
    policy: AuthPolicy,
    workers: usize,
    rules: Rules,
    api_keys: Option<ApiKeys>,
    jwt: Option<Jwt>,
    hook: Option<Arc<Hook>>,
    certificates: Option<Certificates>,
    grants: Grants,
}

const HAS_PLAN: &str = "the decider's plan is always among the plans";

/// Why a plan is not met, or not yet.
enum Unmet<'a> {
    Denied(Denied),
    Wait(Wait<'a>),
}

impl Authenticator {
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
    pub fn start(&self, runtime: &Handle, metrics: &Arc<ServiceMetrics>, supervisor: &Supervisor) {
        if let Some(remote) = self.jwt.as_ref().and_then(Jwt::remote) {
            remote.start(runtime, metrics, supervisor);
        }
    }

    /// When the certificate that is shown to the hook expires.
    pub fn hook_certificate_expires(&self) -> Option<SystemTime> {
        self.hook.as_ref()?.upstream().certificate_expires()
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
        let request = Request::new(call, Some(worker.index()));
        let (found, preflight) = self.find(&request)?;
        let mut kept: Option<Allowed> = None;
        for plan in self.rules.plans(&found) {
            let allowed = match self.meet(plan, &request, preflight) {
                Ok(allowed) => allowed,
                Err(Unmet::Denied(denied)) => return Err(denied),
                // Boxed: rare, and the usual future stays small.
                Err(Unmet::Wait(wait)) => {
                    Box::pin(self.resolve(plan, &request, wait, worker)).await?
                }
            };
            Allowed::join(&mut kept, allowed);
        }
        let mut allowed = kept.expect(HAS_PLAN);
        self.finish(&mut allowed, &found);
        Ok(allowed)
    }

    /// The same decision as far as it goes without waiting for anybody.
    fn decide<'a>(&'a self, request: &Request<'_>) -> Result<Allowed, Unmet<'a>> {
        let (found, preflight) = self.find(request).map_err(Unmet::Denied)?;
        let mut kept: Option<Allowed> = None;
        // As if newer keys had brought nothing new.
        request.refetched.set(Some(Refetch::TooSoon));
        for plan in self.rules.plans(&found) {
            let allowed = self.meet(plan, request, preflight)?;
            Allowed::join(&mut kept, allowed);
        }
        let mut allowed = kept.expect(HAS_PLAN);
        self.finish(&mut allowed, &found);
        Ok(allowed)
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
    fn meet<'a>(
        &'a self,
        plan: &Plan,
        request: &Request<'_>,
        preflight: bool,
    ) -> Result<Allowed, Unmet<'a>> {
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
            Settled::AskHook(pending) => Err(Unmet::Wait(Wait::Hook(pending))),
            Settled::Proved { by, proofs } => self
                .grant(plan, request, &by, &proofs)
                .map_err(Unmet::Denied),
        }
    }

    fn finish(&self, allowed: &mut Allowed, found: &Found) {
        allowed.rule = found.rule();
        let rule = allowed.rule.and_then(|rule| self.policy.rules.get(rule));
        // The app's token is for the app, not for who else answers.
        if rule.is_none_or(|rule| rule.upstream.is_none()) {
            self.grants.add_app_token(&mut allowed.set);
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
