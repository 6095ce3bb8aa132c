//! Making tokens: for `outrigger token mint` and for calls to other services.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use crate::model::JwtAlgorithm;
use crate::secret::Secret;

use super::keys::library;

/// What a new token says.
#[derive(Debug, Clone)]
pub struct Mint<'a> {
    /// HMAC family only.
    pub algorithm: JwtAlgorithm,
    /// Header `typ`; `JWT` where nobody wants another.
    pub kind: Option<&'a str>,
    pub issuer: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub audience: Option<&'a str>,
    /// Claim that names the calling service, its name.
    pub service: Option<(&'a str, &'a str)>,
    /// Further claims; the ones above win.
    pub claims: BTreeMap<String, Value>,
    pub lifetime: Duration,
}

/// Why no token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("tokens are minted with HS256, HS384 or HS512 only")]
    Algorithm,
    #[error("a secret needs at least 32 bytes")]
    ShortSecret,
    #[error("the token could not be signed")]
    Signing,
}

/// Signs a token that is good from now on.
///
/// # Errors
/// See [`MintError`].
pub fn mint(secret: &Secret, wanted: &Mint<'_>, now: SystemTime) -> Result<String, MintError> {
    if !wanted.algorithm.is_symmetric() {
        return Err(MintError::Algorithm);
    }
    if secret.len() < 32 {
        return Err(MintError::ShortSecret);
    }
    let now = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let mut claims: Map<String, Value> = wanted.claims.clone().into_iter().collect();
    let texts = [
        ("iss", wanted.issuer),
        ("sub", wanted.subject),
        ("aud", wanted.audience),
    ];
    let texts = texts
        .into_iter()
        .chain(wanted.service.map(|(claim, name)| (claim, Some(name))));
    for (name, value) in texts {
        if let Some(value) = value {
            claims.insert(name.to_owned(), Value::from(value));
        }
    }
    claims.insert("iat".to_owned(), Value::from(now));
    let expires = now.saturating_add(wanted.lifetime.as_secs());
    claims.insert("exp".to_owned(), Value::from(expires));
    let key = EncodingKey::from_secret(secret.expose());
    let mut header = Header::new(library(wanted.algorithm));
    if let Some(kind) = wanted.kind {
        header.typ = Some(kind.to_owned());
    }
    jsonwebtoken::encode(&header, &claims, &key).map_err(|_| MintError::Signing)
}
