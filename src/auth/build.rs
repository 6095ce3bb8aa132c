//! An authenticator from a policy.

use std::sync::Arc;

use crate::model::{AuthPolicy, ServiceSpec};

use super::Authenticator;
use super::api_key::ApiKeys;
use super::grant::Grants;
use super::hook::Hook;
use super::jwks::RemoteKeySet;
use super::jwt::{Jwt, KeyError};
use super::mtls::Certificates;
use super::rules::Rules;
use super::who::ClaimNames;

/// What an authenticator is built with, beside the policy.
#[derive(Debug, Clone, Copy)]
pub struct AuthContext<'a> {
    /// Data threads, which get their own copies of what is counted.
    pub workers: usize,
    /// The service's present authenticator, whose parts are kept where nothing
    /// changed.
    pub predecessor: Option<&'a Arc<Authenticator>>,
}

/// Why a policy cannot be put to work. Never holds a secret value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("auth.apiKey.keys: there is no key")]
    NoKeys,
    #[error("the id {0:?} of a caller cannot stand in a header")]
    KeyId(String),
    #[error("auth.rules: {0:?} is not a method")]
    Method(String),
    #[error("{0:?} is not a header that can be set")]
    HeaderName(String),
    #[error("auth.jwt")]
    Jwt(#[from] KeyError),
    #[error("auth.hook.url: not a usable http url")]
    HookUrl,
    /// Says which file is at fault.
    #[error("auth.hook.tls: {0}")]
    HookTls(String),
    #[error("auth.appToken: the value cannot stand in a header")]
    AppToken,
}

impl Authenticator {
    /// Resolves the policy of a service. Asks nobody, and reads no file but those
    /// of the hook's TLS.
    ///
    /// # Errors
    /// A [`BuildError`] names the first part that cannot be put to work.
    pub fn build(spec: &ServiceSpec, context: &AuthContext<'_>) -> Result<Arc<Self>, BuildError> {
        Self::from_policy(&spec.auth, context)
    }

    pub(super) fn from_policy(
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
    pub(super) fn with_key_set(
        policy: &AuthPolicy,
        context: &AuthContext<'_>,
        known: Option<&Arc<RemoteKeySet>>,
    ) -> Result<Arc<Self>, BuildError> {
        let workers = context.workers;
        // The rules first: they collect the claims that tokens must keep.
        let mut names = ClaimNames::default();
        let rules = Rules::build(policy, &mut names)?;
        let api_keys = match &policy.api_key {
            Some(keys) => Some(ApiKeys::build(keys, workers)?),
            None => None,
        };
        let jwt = match &policy.jwt {
            Some(jwt) => Some(Jwt::build(jwt, &names, workers, known)?),
            None => None,
        };
        let known = context.predecessor.and_then(|known| known.hook.as_ref());
        let hook = match &policy.hook {
            Some(hook) => Some(match known.filter(|known| known.is_for(hook, workers)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Hook::build(hook, workers)?),
            }),
            None => None,
        };
        let certificates = match &policy.mtls {
            Some(mtls) => Some(Certificates::build(mtls, workers)?),
            None => None,
        };
        Ok(Arc::new(Self {
            rules,
            certificates,
            api_keys,
            jwt,
            hook,
            grants: Grants::build(policy)?,
            workers,
            policy: policy.clone(),
        }))
    }
}
