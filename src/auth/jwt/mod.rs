//! Strategy `jwt`: signed tokens (RFC 7519) with keys from configuration or a
//! key set (RFC 7517).
//!
//! The signature layer is the library's; everything around it is judged here,
//! because the library lets through what must be refused (unknown `crit`, claims
//! that are absent, lists of audiences that are not strings, a future `nbf`).
//! Order: shape and header (`token`) → key and signature (`keys`) → claims
//! (`claims`). Nothing is computed for an algorithm that is not listed.

mod cache;
mod claims;
mod json;
mod keys;
mod mint;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::SystemTime;

use http::header::HeaderName;

use crate::model::{AuthReason, JwksSource, JwtKeys, JwtPolicy};

use super::BuildError;
use super::jwks::RemoteKeySet;
use super::who::ClaimNames;

pub use keys::KeyError;
pub use mint::{Mint, MintError, mint};

pub(super) use claims::Verified;
pub(super) use keys::KeySet;

use cache::Tokens;
use claims::Uses;
use keys::Verdict;
use token::Token;

/// The strategy of one service.
#[derive(Debug)]
pub(super) struct Jwt {
    policy: JwtPolicy,
    uses: Uses,
    keys: Keys,
    tokens: Tokens,
}

#[derive(Debug)]
enum Keys {
    Fixed(KeySet),
    Remote(Arc<RemoteKeySet>),
}

/// A token that was verified before.
#[derive(Debug)]
pub(super) struct Known {
    verified: Arc<Verified>,
    generation: u64,
    worker: usize,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Wrong(AuthReason),
    /// There is nothing to verify it with.
    NoKeys,
    /// The key set may be older than the token.
    UnknownKey(AuthReason),
}

impl Jwt {
    /// `known` is the predecessor's key set, kept if it is the same source.
    pub(super) fn build(
        policy: &JwtPolicy,
        names: &ClaimNames,
        workers: usize,
        known: Option<&Arc<RemoteKeySet>>,
    ) -> Result<Self, BuildError> {
        let keys = match &policy.keys {
            JwtKeys::Secrets(secrets) => Keys::Fixed(KeySet::secrets(secrets, &policy.algorithms)?),
            JwtKeys::PublicKey(text) => Keys::Fixed(KeySet::pem(text, &policy.algorithms)?),
            JwtKeys::Jwks(JwksSource::File { content, .. }) => {
                let set = KeySet::document(content.expose(), &policy.algorithms, true)?;
                if set.len() == 0 {
                    return Err(KeyError::Useless.into());
                }
                Keys::Fixed(set)
            }
            JwtKeys::Jwks(source @ JwksSource::Url { .. }) => Keys::Remote(
                match known.filter(|known| known.is_for(source, &policy.algorithms)) {
                    Some(known) => Arc::clone(known),
                    None => Arc::new(RemoteKeySet::new(source.clone(), &policy.algorithms)),
                },
            ),
        };
        let mut headers = Vec::with_capacity(policy.claims.len());
        for (claim, header) in &policy.claims {
            let name = HeaderName::from_bytes(header.as_bytes())
                .map_err(|_| BuildError::HeaderName(header.to_string()))?;
            headers.push((Arc::clone(claim), name));
        }
        Ok(Self {
            uses: Uses {
                headers,
                values: names.iter().cloned().collect(),
            },
            keys,
            tokens: Tokens::new(workers),
            policy: policy.clone(),
        })
    }

    /// The key set that must be fetched, if there is one.
    pub(super) fn remote(&self) -> Option<&Arc<RemoteKeySet>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Remote(remote) => Some(remote),
        }
    }

    /// Decides about a token. Without a worker no cache is used.
    pub(super) fn check(
        &self,
        text: &[u8],
        now: SystemTime,
        worker: Option<usize>,
    ) -> Result<Arc<Verified>, Refusal> {
        let Some(worker) = worker else {
            let (verified, _) = self.verify(text, now)?;
            return Ok(Arc::new(verified));
        };
        let known = self.known(text, worker);
        if let Some(decided) = known.and_then(|known| self.recheck(&known, text, now)) {
            return decided;
        }
        let (verified, generation) = self.verify(text, now)?;
        let verified = Arc::new(verified);
        self.tokens.put(worker, text, &verified, generation);
        Ok(verified)
    }

    /// What is known of a token that was verified before with the keys there are.
    pub(super) fn known(&self, text: &[u8], worker: usize) -> Option<Known> {
        let generation = self.generation();
        let verified = self.tokens.get(worker, text, generation)?;
        Some(Known {
            verified,
            generation,
            worker,
        })
    }

    /// Decides about a token that is known; `None` where there are other keys by
    /// now.
    pub(super) fn recheck(
        &self,
        known: &Known,
        text: &[u8],
        now: SystemTime,
    ) -> Option<Result<Arc<Verified>, Refusal>> {
        if known.generation != self.generation() {
            return None;
        }
        Some(match known.verified.check_time(now) {
            Ok(()) => Ok(Arc::clone(&known.verified)),
            Err(reason) => {
                self.tokens.forget(known.worker, text);
                Err(Refusal::Wrong(reason))
            }
        })
    }

    /// Of the keys there are.
    fn generation(&self) -> u64 {
        match &self.keys {
            Keys::Fixed(_) => 0,
            Keys::Remote(remote) => remote.generation(),
        }
    }

    /// The whole way. Also tells the generation of the keys that were used.
    fn verify(&self, text: &[u8], now: SystemTime) -> Result<(Verified, u64), Refusal> {
        let policy = &self.policy;
        let text = std::str::from_utf8(text).map_err(|_| Refusal::Wrong(AuthReason::Malformed))?;
        let token = Token::read(text, &policy.algorithms, &policy.types).map_err(Refusal::Wrong)?;
        let (verdict, generation) = match &self.keys {
            Keys::Fixed(set) => (token.verify(set), 0),
            Keys::Remote(remote) => {
                let loaded = remote.loaded().ok_or(Refusal::NoKeys)?;
                (token.verify(&loaded.set), loaded.generation)
            }
        };
        match verdict {
            Verdict::Verified => {}
            Verdict::WrongSignature => return Err(Refusal::Wrong(AuthReason::Signature)),
            Verdict::WrongAlgorithm => return Err(Refusal::Wrong(AuthReason::Algorithm)),
            Verdict::UnknownKey => {
                let reason = match token.header.kid {
                    Some(_) => AuthReason::UnknownKeyId,
                    None => AuthReason::Signature,
                };
                return Err(match &self.keys {
                    Keys::Fixed(_) => Refusal::Wrong(reason),
                    Keys::Remote(_) => Refusal::UnknownKey(reason),
                });
            }
        }
        let claims = token.claims().map_err(Refusal::Wrong)?;
        let verified = claims::accept(&claims, policy, &self.uses, now).map_err(Refusal::Wrong)?;
        Ok((verified, generation))
    }
}

impl Token<'_> {
    fn verify(&self, set: &KeySet) -> Verdict {
        set.verify(
            self.header.algorithm,
            self.header.kid.as_deref(),
            self.message,
            self.signature,
        )
    }
}
