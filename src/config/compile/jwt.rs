//! Strategy `jwt`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::names::{header_name, is_credential_header, is_reserved_header};
use crate::config::address::{is_loopback_url, parse_url};
use crate::config::raw::{OneOrMany, RawAlgorithm, RawAuth, RawJwks, RawJwt};
use crate::model::{JwksSource, JwtAlgorithm, JwtKeys, JwtPolicy, Strategy};
use crate::secret::Secret;

/// RFC 7518 §3.2: a key as long as the hash of HS256.
pub(super) const MIN_SECRET: usize = 32;

/// Compiles the block, the flat names and the environment's secret.
pub(super) fn compile(
    raw: &RawAuth,
    single: Option<Strategy>,
    context: &mut Context<'_>,
) -> Option<JwtPolicy> {
    let empty = RawJwt::default();
    let block = raw.jwt.as_ref().unwrap_or(&empty);
    let (keys, flat_secret) = keys(raw, block, single, context)?;
    let algorithms = algorithms(block, &keys, flat_secret, context);
    if matches!(keys, JwtKeys::Jwks(JwksSource::Url { .. })) && block.issuer.is_none() {
        context.report.error_hint(
            "auth.jwt.jwks.url",
            "needs `auth.jwt.issuer`",
            "name the issuer whose keys these are",
        );
    }
    let leeway = block
        .leeway
        .map_or(Duration::from_secs(60), |leeway| leeway.0);
    if leeway > Duration::from_secs(600) {
        context.report.warn(
            "auth.jwt.leeway",
            "expired tokens count for more than ten minutes",
        );
    }
    if block.require_exp == Some(false) && block.max_lifetime.is_some() {
        context.report.error(
            "auth.jwt.maxLifetime",
            "needs `exp`, but `requireExp` is false",
        );
    }
    let max_lifetime = block
        .max_lifetime
        .map(|lifetime| context.duration("auth.jwt.maxLifetime", Some(lifetime), Duration::ZERO));
    Some(JwtPolicy {
        keys,
        algorithms,
        issuer: text("auth.jwt.issuer", block.issuer.as_ref(), context),
        audience: texts("auth.jwt.audience", block.audience.as_ref(), context),
        leeway,
        require_exp: block.require_exp.unwrap_or(true),
        max_lifetime,
        types: texts("auth.jwt.types", block.types.as_ref(), context),
        service_name_claim: text(
            "auth.jwt.serviceNameClaim",
            block.service_name_claim.as_ref(),
            context,
        )
        .unwrap_or_else(|| Arc::from("serviceName")),
        claims: claims(block.claims.as_ref(), context),
    })
}

/// A text that must not be empty.
fn text(key: &str, written: Option<&String>, context: &mut Context<'_>) -> Option<Arc<str>> {
    let text = written?;
    if text.is_empty() {
        context.report.error(key, "is empty");
    }
    Some(Arc::from(text.as_str()))
}

/// An empty list would check nothing where something was meant.
fn texts(key: &str, written: Option<&OneOrMany>, context: &mut Context<'_>) -> Vec<Arc<str>> {
    let Some(list) = written else {
        return Vec::new();
    };
    if list.0.is_empty() || list.0.iter().any(String::is_empty) {
        context.report.error(key, "is empty");
    }
    list.0.iter().map(|text| Arc::from(text.as_str())).collect()
}

/// The keys, and whether they are the flat `secretKey` or the environment's.
fn keys(
    raw: &RawAuth,
    block: &RawJwt,
    single: Option<Strategy>,
    context: &mut Context<'_>,
) -> Option<(JwtKeys, bool)> {
    let is_single = single == Some(Strategy::Jwt);
    let flat_secret = raw.secret_key.as_ref().filter(|_| is_single);
    let flat_public = raw.public_key.as_ref().filter(|_| is_single);
    let sources = [
        block.secret.is_some(),
        block.secrets.is_some(),
        block.public_key.is_some(),
        block.jwks.is_some(),
        flat_secret.is_some(),
        flat_public.is_some(),
    ];
    if sources.iter().filter(|given| **given).count() > 1 {
        context.report.error_hint(
            "auth.jwt",
            "takes only one of `secret`, `secrets`, `publicKey` and `jwks`",
            "the key fixes the algorithms; several secrets go into `secrets`",
        );
    }
    if let Some(secret) = &block.secret {
        check_secret(&secret.0, "auth.jwt.secret", context);
        return Some((JwtKeys::Secrets(vec![secret.0.clone()]), false));
    }
    if let Some(list) = &block.secrets {
        if list.is_empty() {
            context.report.error("auth.jwt.secrets", "is empty");
        }
        for (index, secret) in list.iter().enumerate() {
            check_secret(&secret.0, &format!("auth.jwt.secrets[{index}]"), context);
        }
        let secrets = list.iter().map(|secret| secret.0.clone()).collect();
        return Some((JwtKeys::Secrets(secrets), false));
    }
    if let Some(pem) = &block.public_key {
        return Some((public_key(pem, "auth.jwt.publicKey", context), false));
    }
    if let Some(jwks) = &block.jwks {
        return key_set(jwks, context).map(|keys| (keys, false));
    }
    if let Some(secret) = flat_secret {
        check_secret(&secret.0, "auth.secretKey", context);
        return Some((JwtKeys::Secrets(vec![secret.0.clone()]), true));
    }
    if let Some(pem) = flat_public {
        return Some((public_key(pem, "auth.publicKey", context), false));
    }
    if let Some(secret) = &context.defaults.framework.jwt_secret {
        if secret.len() < MIN_SECRET {
            context
                .report
                .environment("SERVICE_JWT_SECRET", "is shorter than 32 bytes");
        }
        return Some((JwtKeys::Secrets(vec![secret.clone()]), true));
    }
    if context.tolerant {
        return Some((JwtKeys::Secrets(Vec::new()), false));
    }
    context.report.error_hint(
        "auth",
        "strategy jwt has no key",
        "set `auth.jwt.secret`, `publicKey` or `jwks`, or SERVICE_JWT_SECRET",
    );
    None
}

/// A secret that HMAC may use.
pub(super) fn check_secret(secret: &Secret, key: &str, context: &mut Context<'_>) {
    if secret.len() < MIN_SECRET {
        context.report.error_hint(
            key,
            "is shorter than 32 bytes",
            "make one with `openssl rand -base64 32`",
        );
    }
}

fn public_key(pem: &str, key: &str, context: &mut Context<'_>) -> JwtKeys {
    // An environment file cannot hold line ends; people write `\n`.
    let pem = if pem.contains('\n') {
        pem.to_owned()
    } else {
        pem.replace("\\n", "\n")
    };
    if pem.contains("PRIVATE KEY") {
        context.report.error_hint(
            key,
            "is a private key",
            "whoever checks tokens needs only the public one",
        );
    } else if !(pem.contains("-----BEGIN PUBLIC KEY-----")
        && pem.contains("-----END PUBLIC KEY-----"))
    {
        context.report.error_hint(
            key,
            "expected PEM text with `-----BEGIN PUBLIC KEY-----`",
            "`openssl pkey -pubin -in key.pem -outform PEM`, or `${file:…}`",
        );
    }
    JwtKeys::PublicKey(pem)
}

fn key_set(written: &RawJwks, context: &mut Context<'_>) -> Option<JwtKeys> {
    let key = "auth.jwt.jwks";
    match (&written.url, &written.file) {
        (Some(url), None) => {
            match parse_url(url) {
                Err(message) => context.report.error(&format!("{key}.url"), message),
                Ok(uri) if uri.scheme_str() == Some("http") && !is_loopback_url(&uri) => {
                    context.report.error_hint(
                        &format!("{key}.url"),
                        "must be https, except on loopback",
                        "whoever can change the answer can make tokens",
                    );
                }
                Ok(_) => {}
            }
            Some(JwtKeys::Jwks(JwksSource::Url {
                url: url.clone(),
                ca: context.file(&format!("{key}.ca"), written.ca.as_ref()),
                stale_keys: written
                    .stale_keys
                    .map_or(Duration::from_secs(3600), |keep| keep.0),
            }))
        }
        (None, Some(file)) => {
            if written.ca.is_some() {
                context
                    .report
                    .error(&format!("{key}.ca"), "has no use with `file`");
            }
            let (path, bytes) = context.content(&format!("{key}.file"), file)?;
            let set: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
            if set.and_then(|set| Some(set.get("keys")?.is_array())) != Some(true) {
                context.report.error(
                    &format!("{key}.file"),
                    "is no key set: expected JSON with a list `keys`",
                );
            }
            Some(JwtKeys::Jwks(JwksSource::File {
                path,
                content: Secret::new(bytes.to_vec()),
            }))
        }
        (Some(_), Some(_)) | (None, None) => {
            context
                .report
                .error(key, "needs exactly one of `url` and `file`");
            None
        }
    }
}

fn algorithms(
    block: &RawJwt,
    keys: &JwtKeys,
    flat_secret: bool,
    context: &mut Context<'_>,
) -> Vec<JwtAlgorithm> {
    let family = |symmetric: bool| -> Vec<JwtAlgorithm> {
        JwtAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.is_symmetric() == symmetric)
            .collect()
    };
    let is_secret = matches!(keys, JwtKeys::Secrets(_));
    let Some(written) = &block.algorithms else {
        return match keys {
            JwtKeys::Secrets(_) if flat_secret => vec![JwtAlgorithm::Hs256],
            _ => family(is_secret),
        };
    };
    if written.is_empty() {
        context.report.error("auth.jwt.algorithms", "is empty");
    }
    // A key set in a file may hold symmetric keys, but never both families.
    let is_file = matches!(keys, JwtKeys::Jwks(JwksSource::File { .. }));
    let first = written.first().map(|first| convert(*first).is_symmetric());
    let mut list = Vec::new();
    for (index, algorithm) in written.iter().enumerate() {
        let algorithm = convert(*algorithm);
        let key = format!("auth.jwt.algorithms[{index}]");
        let name = algorithm.as_str();
        if is_file && first != Some(algorithm.is_symmetric()) {
            context
                .report
                .error(&key, format!("{name} belongs to another family of keys"));
        } else if is_file || is_secret == algorithm.is_symmetric() {
            if !list.contains(&algorithm) {
                list.push(algorithm);
            }
        } else if algorithm.is_symmetric() {
            context.report.error_hint(
                &key,
                format!("{name} needs a secret"),
                "set auth.jwt.secret, or list RS256 or another algorithm of public keys",
            );
        } else {
            context.report.error_hint(
                &key,
                format!("{name} needs a public key or a key set"),
                "set auth.jwt.publicKey or auth.jwt.jwks, or list HS256",
            );
        }
    }
    list
}

fn convert(written: RawAlgorithm) -> JwtAlgorithm {
    match written {
        RawAlgorithm::Hs256 => JwtAlgorithm::Hs256,
        RawAlgorithm::Hs384 => JwtAlgorithm::Hs384,
        RawAlgorithm::Hs512 => JwtAlgorithm::Hs512,
        RawAlgorithm::Rs256 => JwtAlgorithm::Rs256,
        RawAlgorithm::Rs384 => JwtAlgorithm::Rs384,
        RawAlgorithm::Rs512 => JwtAlgorithm::Rs512,
        RawAlgorithm::Ps256 => JwtAlgorithm::Ps256,
        RawAlgorithm::Ps384 => JwtAlgorithm::Ps384,
        RawAlgorithm::Ps512 => JwtAlgorithm::Ps512,
        RawAlgorithm::Es256 => JwtAlgorithm::Es256,
        RawAlgorithm::Es384 => JwtAlgorithm::Es384,
        RawAlgorithm::EdDsa => JwtAlgorithm::EdDsa,
    }
}

fn claims(
    written: Option<&BTreeMap<String, String>>,
    context: &mut Context<'_>,
) -> BTreeMap<Arc<str>, Arc<str>> {
    let mut claims: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for (claim, header) in written.into_iter().flatten() {
        let key = format!("auth.jwt.claims.{claim}");
        let Some(name) = header_name(header) else {
            context.report.error(&key, "is no header name");
            continue;
        };
        if is_reserved_header(&name) || is_credential_header(&name) {
            context.report.error(&key, "this header cannot be set");
            continue;
        }
        if claims.values().any(|known| *known == name) {
            context
                .report
                .error(&key, "another claim has this header already");
        }
        claims.insert(Arc::from(claim.as_str()), name);
    }
    claims
}
