//! From credentials to a decision: the truth tables of `anyOf` and `allOf`.
//!
//! | | absent | wrong | cannot be judged | not listed | good |
//! |---|---|---|---|---|---|
//! | `anyOf` | the next one counts | 401 | 503 | 403, unless another is good | named by the first good one |
//! | `allOf` | 401 | 401 | 503 | 403 | named by the last |
//!
//! A credential that is present and wrong is never outvoted by a good one, and
//! one that cannot be judged is never skipped: the caller would silently get
//! another identity. A hook's carrier is unknown, so its "no" counts as absent
//! in `anyOf`, and it is asked only where no good credential is listed before it.
//! "Not listed" is said of certificates alone: one comes with the connection, for
//! whatever reason, so it does not spoil another credential.

use std::sync::Arc;

use crate::model::{AuthReason, Kind, Requirement, Strategy};

use super::Authenticator;
use super::api_key::Entry;
use super::call::Denied;
use super::carrier::{Bearer, Carried};
use super::hook::Grant;
use super::jwks::{Refetch, RemoteKeySet};
use super::jwt::{Refusal, Verified};
use super::mtls::Listed;
use super::named::Named;
use super::request::Request;

/// What one strategy finds in a request.
enum Shown<'a> {
    Absent,
    Wrong(AuthReason),
    /// Good, but nobody who may call.
    NotListed,
    /// Shown, or needed, but there is nothing to judge it by.
    Unjudged(AuthReason),
    /// Newer keys might know it.
    AwaitKeys(Arc<RemoteKeySet>),
    /// Only the hook can tell.
    AskHook,
    Good(Proof<'a>),
}

/// A credential found good.
#[derive(Debug, Clone)]
pub(super) enum Proof<'a> {
    Key(&'a Entry),
    Token(Arc<Verified>),
    Hook(Arc<Grant>),
    Certificate(&'a Listed),
}

impl Proof<'_> {
    pub(super) fn strategy(&self) -> Strategy {
        match self {
            Self::Key(_) => Strategy::ApiKey,
            Self::Token(_) => Strategy::Jwt,
            Self::Hook(_) => Strategy::Custom,
            Self::Certificate(_) => Strategy::Mtls,
        }
    }

    /// The caller it establishes.
    pub(super) fn named(&self, worker: usize) -> &Named {
        match self {
            Self::Key(entry) => entry.named.of(worker),
            Self::Token(verified) => &verified.named,
            Self::Hook(grant) => &grant.named,
            Self::Certificate(listed) => listed.named.of(worker),
        }
    }
}

/// Every credential found good.
#[derive(Debug, Clone, Default)]
pub(super) struct Proofs<'a> {
    pub(super) key: Option<&'a Entry>,
    pub(super) token: Option<Arc<Verified>>,
    pub(super) hook: Option<Arc<Grant>>,
}

/// What is left when only the hook's word is missing.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    /// Names the caller: in `anyOf` if the hook does not let the request pass,
    /// in `allOf` unless the hook is listed last.
    pub(super) by: Option<Proof<'a>>,
    pub(super) proofs: Proofs<'a>,
    pub(super) all: bool,
    /// In `allOf`, whether the hook is listed last.
    pub(super) hook_names: bool,
}

/// How far a requirement could be settled without waiting for anybody.
#[derive(Debug)]
pub(super) enum Settled<'a> {
    /// Nothing was asked.
    Open,
    Proved {
        /// Names the caller.
        by: Proof<'a>,
        proofs: Proofs<'a>,
    },
    Refused(Denied),
    /// Ask for newer keys, then settle again.
    AwaitKeys(Arc<RemoteKeySet>),
    /// Everything else is settled.
    AskHook(Pending<'a>),
}

impl Authenticator {
    pub(super) fn settle<'a>(
        &'a self,
        requirement: &Requirement,
        request: &Request<'_>,
    ) -> Settled<'a> {
        let (list, all) = match requirement {
            Requirement::None => return Settled::Open,
            Requirement::AnyOf(list) => (list, false),
            Requirement::AllOf(list) => (list, true),
        };
        let carried = match request.carried_to(self.jwt.as_ref()) {
            Ok(carried) => carried,
            Err(denied) => return Settled::Refused(denied),
        };
        let mut proofs = Proofs::default();
        let mut named: Option<Proof<'a>> = None;
        let mut ask = false;
        let mut unjudged = None;
        let mut missing = None;
        let mut not_listed = None;
        for &strategy in list {
            match self.show(strategy, &carried, request) {
                Shown::Wrong(reason) => {
                    return refused(Kind::CredentialInvalid, strategy, reason);
                }
                Shown::AwaitKeys(remote) => return Settled::AwaitKeys(remote),
                Shown::AskHook => ask |= all || named.is_none(),
                Shown::Unjudged(reason) => {
                    unjudged = unjudged.or(Some((strategy, reason)));
                }
                Shown::NotListed => not_listed = Some(strategy),
                Shown::Absent => {
                    missing = missing.or(Some(strategy));
                }
                Shown::Good(proof) => {
                    match &proof {
                        Proof::Key(entry) => proofs.key = Some(entry),
                        Proof::Token(verified) => proofs.token = Some(Arc::clone(verified)),
                        Proof::Hook(grant) => proofs.hook = Some(Arc::clone(grant)),
                        // Nothing of it is in the request, to be hidden or read.
                        Proof::Certificate(_) => {}
                    }
                    if all || named.is_none() {
                        named = Some(proof);
                    }
                }
            }
        }
        // Without a policy nothing was shown that could be wrong, so another
        // good credential of `anyOf` counts.
        let counts_anyway = !all && (named.is_some() || ask);
        match unjudged {
            Some((_, AuthReason::NotBuilt)) if counts_anyway => {}
            Some((strategy, reason)) => return refused(Kind::AuthUnavailable, strategy, reason),
            None => {}
        }
        if all && missing.is_some() {
            return nothing_good(list, &carried, missing);
        }
        if let Some(strategy) = not_listed.filter(|_| all || (named.is_none() && !ask)) {
            return refused(Kind::NotAllowed, strategy, AuthReason::NotListed);
        }
        match named {
            by if ask => Settled::AskHook(Pending {
                by,
                proofs,
                all,
                hook_names: list.last() == Some(&Strategy::Custom),
            }),
            Some(by) => Settled::Proved { by, proofs },
            None => nothing_good(list, &carried, missing),
        }
    }

    fn show<'a>(
        &'a self,
        strategy: Strategy,
        carried: &Carried<'_>,
        request: &Request<'_>,
    ) -> Shown<'a> {
        match strategy {
            Strategy::ApiKey => self.show_key(carried, request),
            Strategy::Jwt => self.show_token(carried, request),
            Strategy::Custom if self.hook.is_some() => Shown::AskHook,
            Strategy::Custom => Shown::Unjudged(AuthReason::NotBuilt),
            Strategy::Mtls => self.show_certificate(request),
        }
    }

    /// Only that of the connection itself: what a header says of one is nobody's
    /// word.
    fn show_certificate<'a>(&'a self, request: &Request<'_>) -> Shown<'a> {
        let Some(certificates) = &self.certificates else {
            return Shown::Unjudged(AuthReason::NotBuilt);
        };
        let Some(names) = request.call.certificate else {
            return Shown::Absent;
        };
        match certificates.find(names) {
            Some(listed) => Shown::Good(Proof::Certificate(listed)),
            None => Shown::NotListed,
        }
    }

    /// Keys in both carriers must both be good; `x-api-key` names the caller.
    fn show_key<'a>(&'a self, carried: &Carried<'_>, request: &Request<'_>) -> Shown<'a> {
        let Some(keys) = &self.api_keys else {
            return Shown::Unjudged(AuthReason::NotBuilt);
        };
        let bearer = match carried.bearer {
            Some(Bearer::Key(key)) => Some(key),
            Some(Bearer::Token(_)) | None => None,
        };
        let mut found = None;
        for key in [carried.key, bearer].into_iter().flatten() {
            match keys.check(key, || request.now()) {
                Ok(entry) => found = found.or(Some(entry)),
                Err(reason) => return Shown::Wrong(reason),
            }
        }
        found.map_or(Shown::Absent, |entry| Shown::Good(Proof::Key(entry)))
    }

    fn show_token<'a>(&'a self, carried: &Carried<'_>, request: &Request<'_>) -> Shown<'a> {
        let Some(jwt) = &self.jwt else {
            return Shown::Unjudged(AuthReason::NotBuilt);
        };
        let Some(Bearer::Token(token)) = carried.bearer else {
            return Shown::Absent;
        };
        let now = request.now();
        let known = request.known.get();
        let known = known.and_then(|known| jwt.recheck(known, token, now));
        match known.unwrap_or_else(|| jwt.check(token, now, request.worker)) {
            Ok(verified) => Shown::Good(Proof::Token(verified)),
            Err(Refusal::Wrong(reason)) => Shown::Wrong(reason),
            Err(Refusal::NoKeys) => Shown::Unjudged(AuthReason::NoKeys),
            Err(Refusal::UnknownKey(reason)) => match (request.refetched.get(), jwt.remote()) {
                (None, Some(remote)) => Shown::AwaitKeys(Arc::clone(remote)),
                // The server could not be asked: nobody knows whether it is wrong.
                (Some(Refetch::Failed), _) => Shown::Unjudged(AuthReason::NoKeys),
                (Some(Refetch::Fresh | Refetch::TooSoon), _) | (None, None) => Shown::Wrong(reason),
            },
        }
    }
}

fn refused<'a>(kind: Kind, strategy: Strategy, reason: AuthReason) -> Settled<'a> {
    Settled::Refused(Denied::new(kind, Some(strategy), reason))
}

/// A Bearer of a kind that is not listed might be meant for the app, so it is
/// ignored beside a good credential; alone it is a credential that cannot be
/// parsed as what is wanted.
fn nothing_good<'a>(
    list: &[Strategy],
    carried: &Carried<'_>,
    missing: Option<Strategy>,
) -> Settled<'a> {
    let listed = match carried.bearer {
        None => true,
        Some(Bearer::Token(_)) => list.contains(&Strategy::Jwt),
        Some(Bearer::Key(_)) => list.contains(&Strategy::ApiKey),
    };
    let (kind, reason) = if listed {
        (Kind::CredentialMissing, AuthReason::Missing)
    } else {
        (Kind::CredentialInvalid, AuthReason::Malformed)
    };
    Settled::Refused(Denied::new(kind, missing, reason))
}
