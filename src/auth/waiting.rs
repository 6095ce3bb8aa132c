//! Decisions that hang on somebody else: newer keys, or a hook.

use std::sync::Arc;

use http::header::HeaderValue;

use crate::model::{AuthReason, Kind, Strategy};

use super::call::{Allowed, Denied};
use super::hook::{Hook, Word};
use super::jwks::RemoteKeySet;
use super::named::X_AUTH_FAILED_OPEN;
use super::request::Request;
use super::rules::Plan;
use super::settle::{Pending, Proof};
use super::who::Refusal;
use super::{AuthWorker, Authenticator, Unmet};

/// What a decision hangs on.
pub(super) enum Wait<'a> {
    /// Newer keys.
    Keys(Arc<RemoteKeySet>),
    /// The hook's word.
    Hook(Pending<'a>),
}

impl Authenticator {
    /// Waits for what a decision hangs on, then decides.
    pub(super) async fn resolve(
        &self,
        plan: &Plan,
        request: &Request<'_>,
        wait: Wait<'_>,
        worker: &AuthWorker,
    ) -> Result<Allowed, Denied> {
        let pending = match wait {
            Wait::Hook(pending) => pending,
            Wait::Keys(remote) => {
                request.refetched.set(Some(remote.refetch().await));
                match self.meet(plan, request, false) {
                    Ok(allowed) => return Ok(allowed),
                    Err(Unmet::Denied(denied)) => return Err(denied),
                    Err(Unmet::Wait(Wait::Hook(pending))) => pending,
                    Err(Unmet::Wait(Wait::Keys(_))) => {
                        return Err(unavailable(Strategy::Jwt, AuthReason::NoKeys));
                    }
                }
            }
        };
        let Some(hook) = &self.hook else {
            return Err(unavailable(Strategy::Custom, AuthReason::NotBuilt));
        };
        let word = hook.ask(request.call, worker).await;
        self.conclude(plan, request, pending, hook, word)
    }

    /// The truth tables with the hook's word filled in.
    fn conclude(
        &self,
        plan: &Plan,
        request: &Request<'_>,
        pending: Pending<'_>,
        hook: &Hook,
        word: Word,
    ) -> Result<Allowed, Denied> {
        let Pending {
            by,
            mut proofs,
            all,
            hook_names,
        } = pending;
        match (word, by) {
            (Word::Granted(grant), by) => {
                proofs.hook = Some(Arc::clone(&grant));
                let by = match by {
                    Some(by) if all && !hook_names => by,
                    _ => Proof::Hook(grant),
                };
                self.grant(plan, request, &by, &proofs)
            }
            // Nobody knows whether a credential for the hook was there at all.
            (Word::Denied(_), Some(by)) if !all => self.grant(plan, request, &by, &proofs),
            (Word::Denied(answer), _) => {
                let mut denied = Denied::new(
                    Kind::CredentialInvalid,
                    Some(Strategy::Custom),
                    AuthReason::HookDenied,
                );
                denied.relay = Some(Box::new((*answer).clone()));
                Err(denied)
            }
            (Word::Failed(reason), _) if !hook.fails_open() => {
                Err(unavailable(Strategy::Custom, reason))
            }
            (Word::Failed(_), Some(by)) if !all => self.grant(plan, request, &by, &proofs),
            (Word::Failed(_), Some(by)) if !hook_names => {
                let allowed = self.grant(plan, request, &by, &proofs)?;
                Ok(failed_open(allowed))
            }
            (Word::Failed(_), _) => self.pass_unknown(plan, request),
        }
    }

    /// `failOpen`: nobody is known, so a list cannot hold the caller.
    fn pass_unknown(&self, plan: &Plan, request: &Request<'_>) -> Result<Allowed, Denied> {
        if plan.allow.is_some() || matches!(plan.deny, Refusal::Listed(_)) {
            return Err(Denied::new(
                Kind::NotAllowed,
                Some(Strategy::Custom),
                AuthReason::NotListed,
            ));
        }
        Ok(failed_open(
            self.grants.anonymous(request, AuthReason::FailedOpen),
        ))
    }
}

fn failed_open(mut allowed: Allowed) -> Allowed {
    let value = HeaderValue::from_static("true");
    allowed.set.set(&X_AUTH_FAILED_OPEN, &value);
    allowed.strategy = Strategy::Custom.as_str();
    allowed.reason = AuthReason::FailedOpen.as_str();
    allowed
}

pub(super) fn unavailable(strategy: Strategy, reason: AuthReason) -> Denied {
    Denied::new(Kind::AuthUnavailable, Some(strategy), reason)
}
