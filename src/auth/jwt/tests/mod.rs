//! The strategy `jwt` from signature to identity.

/// A key for tests only, made by `openssl genpkey`.
macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../tests/keys/", $name, ".pem"))
    };
}

mod cache;
mod claims;
mod signatures;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::keys::library;
use super::*;
use crate::model::JwtAlgorithm;
use crate::secret::Secret;

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(super) const OTHER_SECRET: &str = "fedcba9876543210fedcba9876543210";

/// A fixed "now", 2026-11-22.
pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

pub(super) const NOW: u64 = 1_795_305_600;

/// A private key of an algorithm, the public one, and both of a stranger.
pub(super) struct Pair {
    pub(super) private: EncodingKey,
    pub(super) public: JwtKeys,
    pub(super) stranger: EncodingKey,
}

pub(super) fn pair(algorithm: JwtAlgorithm) -> Pair {
    let public = |pem: &str| JwtKeys::PublicKey(pem.to_owned());
    match algorithm {
        JwtAlgorithm::Hs256 | JwtAlgorithm::Hs384 | JwtAlgorithm::Hs512 => Pair {
            private: EncodingKey::from_secret(SECRET.as_bytes()),
            public: JwtKeys::Secrets(vec![Secret::new(SECRET)]),
            stranger: EncodingKey::from_secret(OTHER_SECRET.as_bytes()),
        },
        JwtAlgorithm::Es256 => Pair {
            private: EncodingKey::from_ec_pem(pem!("ec-P-256").as_bytes()).unwrap(),
            public: public(pem!("ec-P-256.pub")),
            stranger: EncodingKey::from_ec_pem(pem!("other-ec-P-256").as_bytes()).unwrap(),
        },
        JwtAlgorithm::Es384 => Pair {
            private: EncodingKey::from_ec_pem(pem!("ec-P-384").as_bytes()).unwrap(),
            public: public(pem!("ec-P-384.pub")),
            stranger: EncodingKey::from_ec_pem(pem!("other-ec-P-384").as_bytes()).unwrap(),
        },
        JwtAlgorithm::EdDsa => Pair {
            private: EncodingKey::from_ed_pem(pem!("ed25519").as_bytes()).unwrap(),
            public: public(pem!("ed25519.pub")),
            stranger: EncodingKey::from_ed_pem(pem!("other-ed25519").as_bytes()).unwrap(),
        },
        _ => Pair {
            private: EncodingKey::from_rsa_pem(pem!("rsa").as_bytes()).unwrap(),
            public: public(pem!("rsa.pub")),
            stranger: EncodingKey::from_rsa_pem(pem!("other-rsa").as_bytes()).unwrap(),
        },
    }
}

/// Signs any header and payload, proper or not.
pub(super) fn sign_raw(
    algorithm: JwtAlgorithm,
    key: &EncodingKey,
    header: &str,
    payload: &str,
) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), key, library(algorithm)).unwrap();
    format!("{message}.{signature}")
}

pub(super) fn sign(algorithm: JwtAlgorithm, claims: &Value) -> String {
    let header = json!({"alg": algorithm.as_str(), "typ": "JWT"}).to_string();
    sign_raw(
        algorithm,
        &pair(algorithm).private,
        &header,
        &claims.to_string(),
    )
}

/// Good for ten minutes.
pub(super) fn good_claims() -> Value {
    json!({"sub": "ann", "iss": "https://id.example/", "aud": "orders", "exp": NOW + 600})
}

pub(super) fn jwt_policy(keys: JwtKeys, algorithms: &[JwtAlgorithm]) -> JwtPolicy {
    JwtPolicy {
        keys,
        algorithms: algorithms.to_vec(),
        issuer: Some(Arc::from("https://id.example/")),
        audience: vec![Arc::from("orders")],
        leeway: Duration::from_secs(60),
        require_exp: true,
        max_lifetime: None,
        types: Vec::new(),
        service_name_claim: Arc::from("serviceName"),
        claims: BTreeMap::new(),
    }
}

pub(super) fn jwt(policy: &JwtPolicy) -> Jwt {
    Jwt::build(policy, &ClaimNames::default(), 2, None).unwrap()
}

pub(super) fn check(jwt: &Jwt, token: &str) -> Result<Arc<Verified>, AuthReason> {
    jwt.check(token.as_bytes(), now(), Some(0))
        .map_err(|refusal| match refusal {
            Refusal::Wrong(reason) | Refusal::UnknownKey(reason) => reason,
            Refusal::NoKeys => AuthReason::NoKeys,
        })
}

pub(super) fn reason(jwt: &Jwt, token: &str) -> Option<AuthReason> {
    check(jwt, token).err()
}
