//! Keys that verify signatures, and what each is good for.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde_json::Value;

use crate::model::JwtAlgorithm;
use crate::secret::Secret;

use super::json;

/// Shortest HMAC secret accepted, in bytes (RFC 7518 §3.2 for HS256).
const MIN_SECRET_BYTES: usize = 32;
/// Keys of a set that are read; the bound of SPEC JWT-4.
const MAX_KEYS: usize = 32;
/// RSA moduli accepted, in bytes: 2048 to 8192 bit, what the library verifies.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A signature-verifying key.
pub(super) struct Key {
    /// Of a key set; secrets and PEM keys have none.
    kid: Option<String>,
    algorithms: Vec<JwtAlgorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// Why configured keys cannot be used; never shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a secret needs at least 32 bytes")]
    ShortSecret,
    #[error("there is no secret")]
    NoSecret,
    #[error(
        "the text is no PEM public key that is supported (RSA from 2048 bit, P-256, P-384, Ed25519)"
    )]
    Pem,
    #[error("this is a private key; give the public one")]
    Private,
    #[error("the key cannot verify any of auth.jwt.algorithms")]
    NoAlgorithm,
    #[error("the document is no key set (RFC 7517)")]
    Document,
    #[error("more than 32 keys in the set")]
    TooMany,
    #[error("no key of the set can verify any of auth.jwt.algorithms")]
    Useless,
}

/// Keys of one policy at one time.
#[derive(Debug, Default)]
pub(in crate::auth) struct KeySet {
    keys: Vec<Key>,
    /// Whether `kid` selects among them.
    by_kid: bool,
}

/// What a [`KeySet`] says about a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Verified,
    /// A key was found, and it did not sign this.
    WrongSignature,
    /// The key exists but is not for this algorithm.
    WrongAlgorithm,
    /// No such key; a newer set might have it.
    UnknownKey,
}

impl KeySet {
    /// HMAC secrets, any of which verifies.
    pub(super) fn secrets(
        secrets: &[Secret],
        algorithms: &[JwtAlgorithm],
    ) -> Result<Self, KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::NoSecret);
        }
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            if secret.len() < MIN_SECRET_BYTES {
                return Err(KeyError::ShortSecret);
            }
            let key = DecodingKey::from_secret(secret.expose());
            keys.push(
                Key::new(None, key, JwtAlgorithm::is_symmetric, algorithms)
                    .ok_or(KeyError::NoAlgorithm)?,
            );
        }
        Ok(Self {
            keys,
            by_kid: false,
        })
    }

    /// One public key in PEM.
    pub(super) fn pem(text: &str, algorithms: &[JwtAlgorithm]) -> Result<Self, KeyError> {
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let bytes = text.as_bytes();
        let key = if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
            match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(65) => Key::new(None, key, |one| one == JwtAlgorithm::Es256, algorithms),
                Ok(97) => Key::new(None, key, |one| one == JwtAlgorithm::Es384, algorithms),
                _ => return Err(KeyError::Pem),
            }
        } else if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
            Key::new(None, key, |one| one == JwtAlgorithm::EdDsa, algorithms)
        } else {
            let key = DecodingKey::from_rsa_pem(bytes).map_err(|_| KeyError::Pem)?;
            // PKCS#1: the modulus and a few bytes more.
            if !key
                .try_get_as_bytes()
                .is_ok_and(|der| der.len() > *RSA_BYTES.start())
            {
                return Err(KeyError::Pem);
            }
            Key::new(None, key, is_rsa, algorithms)
        };
        Ok(Self {
            keys: vec![key.ok_or(KeyError::NoAlgorithm)?],
            by_kid: false,
        })
    }

    /// A key set document. Keys that are for something else or not supported are
    /// passed over; `oct` keys count only with `symmetric`, which is for files.
    pub(in crate::auth) fn document(
        bytes: &[u8],
        algorithms: &[JwtAlgorithm],
        symmetric: bool,
    ) -> Result<Self, KeyError> {
        let mut document = json::object(bytes).ok_or(KeyError::Document)?;
        let Some(Value::Array(entries)) = document.remove("keys") else {
            return Err(KeyError::Document);
        };
        if entries.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        Ok(Self {
            keys: entries
                .into_iter()
                .filter_map(|entry| serde_json::from_value::<Jwk>(entry).ok())
                .filter_map(|jwk| Key::from_jwk(&jwk, algorithms, symmetric))
                .collect(),
            by_kid: true,
        })
    }

    pub(in crate::auth) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Looks a key up and verifies. Without `kid` every key that is for the
    /// algorithm is tried, of which there are at most 32.
    pub(super) fn verify(
        &self,
        algorithm: JwtAlgorithm,
        kid: Option<&str>,
        message: &str,
        signature: &str,
    ) -> Verdict {
        let mut verdict = Verdict::UnknownKey;
        for key in &self.keys {
            if self.by_kid && kid.is_some() && key.kid.as_deref() != kid {
                continue;
            }
            if !key.algorithms.contains(&algorithm) {
                if verdict == Verdict::UnknownKey && kid.is_some() {
                    verdict = Verdict::WrongAlgorithm;
                }
                continue;
            }
            let verified = jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &key.key,
                library(algorithm),
            );
            if matches!(verified, Ok(true)) {
                return Verdict::Verified;
            }
            // Without `kid` in a key set, a newer set might hold the signer.
            if !self.by_kid || kid.is_some() {
                verdict = Verdict::WrongSignature;
            }
        }
        verdict
    }
}

impl Key {
    /// `None` if it is good for none of the algorithms.
    fn new(
        kid: Option<String>,
        key: DecodingKey,
        fits: impl Fn(JwtAlgorithm) -> bool,
        algorithms: &[JwtAlgorithm],
    ) -> Option<Self> {
        let algorithms: Vec<_> = algorithms
            .iter()
            .copied()
            .filter(|one| fits(*one))
            .collect();
        (!algorithms.is_empty()).then_some(Self {
            kid,
            algorithms,
            key,
        })
    }

    /// Honours `use`, `key_ops` and `alg` (RFC 7517 §4.2 to §4.4).
    fn from_jwk(jwk: &Jwk, algorithms: &[JwtAlgorithm], symmetric: bool) -> Option<Self> {
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        if let Some(operations) = &common.key_operations
            && !operations.contains(&KeyOperations::Verify)
        {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let fits: fn(JwtAlgorithm) -> bool = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => is_rsa,
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => |one| one == JwtAlgorithm::Es256,
                EllipticCurve::P384 => |one| one == JwtAlgorithm::Es384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters) => match parameters.curve {
                EllipticCurve::Ed25519 => |one| one == JwtAlgorithm::EdDsa,
                _ => return None,
            },
            AlgorithmParameters::OctetKey(_) if symmetric => JwtAlgorithm::is_symmetric,
            _ => return None,
        };
        let has_right_size = match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RSA_BYTES.contains(&n.len()) && (1..=8).contains(&e.len())
            }
            DecodingKeyKind::SecretOrDer(bytes) => match (key.family(), bytes.len()) {
                (AlgorithmFamily::Hmac, length) => length >= MIN_SECRET_BYTES,
                (AlgorithmFamily::Ec, length) => length == 65 || length == 97,
                (AlgorithmFamily::Ed, length) => length == 32,
                (AlgorithmFamily::Rsa, _) => false,
            },
        };
        if !has_right_size {
            return None;
        }
        let named = common.key_algorithm.map(|algorithm| algorithm.to_string());
        Self::new(
            common.key_id.clone(),
            key,
            |one| fits(one) && named.as_deref().is_none_or(|name| name == one.as_str()),
            algorithms,
        )
    }
}

fn is_rsa(algorithm: JwtAlgorithm) -> bool {
    matches!(
        algorithm,
        JwtAlgorithm::Rs256
            | JwtAlgorithm::Rs384
            | JwtAlgorithm::Rs512
            | JwtAlgorithm::Ps256
            | JwtAlgorithm::Ps384
            | JwtAlgorithm::Ps512
    )
}

/// The library's name of an algorithm.
pub(super) const fn library(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Hs384 => Algorithm::HS384,
        JwtAlgorithm::Hs512 => Algorithm::HS512,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
