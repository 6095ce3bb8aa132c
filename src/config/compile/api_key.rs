//! Strategy `api-key`.

use std::sync::Arc;

use super::context::Context;
use super::names::parse_time;
use crate::config::raw::{RawApiKey, RawAuth};
use crate::model::{ApiKey, ApiKeyDigest, ApiKeyPolicy, Strategy};
use crate::secret::Secret;

/// Keys shorter than this warn: a random key of 128 bits is at least that long.
const SHORT: usize = 24;

/// Compiles the accepted keys: those of the file, the flat one, the environment's.
pub(super) fn compile(
    raw: &RawAuth,
    single: Option<Strategy>,
    context: &mut Context<'_>,
) -> ApiKeyPolicy {
    let mut keys: Vec<ApiKey> = Vec::new();
    let block = raw.api_key.as_ref().and_then(|block| block.keys.as_ref());
    for (index, written) in block.into_iter().flatten().enumerate() {
        let key = format!("auth.apiKey.keys[{index}]");
        if let Some(accepted) = one(written, &key, context) {
            // Keys may share an id: so a caller changes its key with an overlap.
            // Without secrets, all of them stand for the same nothing.
            let mut known = keys.iter();
            if !context.tolerant && known.any(|known| known.sha256 == accepted.sha256) {
                context.report.error(&key, "this key is listed already");
            }
            keys.push(accepted);
        }
    }
    if single == Some(Strategy::ApiKey)
        && let Some(secret) = &raw.secret_key
    {
        if block.is_some() {
            context
                .report
                .error("auth.secretKey", "is there beside `auth.apiKey`");
        }
        check_text(&secret.0, "auth.secretKey", context);
        keys.push(plain("default", &secret.0));
    }
    if let Some(secret) = &context.defaults.framework.api_key
        && !keys.iter().any(|known| &*known.id == "default")
    {
        if secret.len() < SHORT {
            context.report.warn_hint(
                "auth",
                "SERVICE_API_KEY is shorter than 24 characters",
                "make one with `outrigger key generate`",
            );
        }
        keys.push(plain("default", secret));
    }
    // Keys that are written and not accepted have been told of.
    let is_silent = block.is_none_or(Vec::is_empty) && !context.report.has_errors();
    if keys.is_empty() && !context.tolerant && is_silent {
        context.report.error_hint(
            "auth",
            "strategy api-key has no key",
            "set `auth.apiKey.keys`, or SERVICE_API_KEY",
        );
    }
    let now = std::time::SystemTime::now();
    if !keys.is_empty()
        && keys
            .iter()
            .all(|key| key.expires.is_some_and(|expires| expires <= now))
    {
        context.report.warn("auth.apiKey", "every key has expired");
    }
    ApiKeyPolicy { keys }
}

fn one(written: &RawApiKey, key: &str, context: &mut Context<'_>) -> Option<ApiKey> {
    let id = match written.id.as_deref() {
        // Sent as a header's value.
        Some(id)
            if !id.is_empty()
                && id.len() <= 128
                && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Some(Arc::from(id))
        }
        Some(_) => {
            context.report.error(
                &format!("{key}.id"),
                "expected 1 to 128 visible characters without spaces",
            );
            None
        }
        None => {
            context.report.error(key, "needs `id`");
            None
        }
    };
    let sha256 = match (&written.sha256, &written.key) {
        (Some(digest), None) => digest_of(&digest.0, &format!("{key}.sha256"), context),
        (None, Some(text)) => {
            check_text(&text.0, &format!("{key}.key"), context);
            Some(hash(&text.0))
        }
        (Some(_), Some(_)) | (None, None) => {
            context
                .report
                .error(key, "needs exactly one of `sha256` and `key`");
            None
        }
    };
    let mut time = |name: &str, written: Option<&String>| {
        let text = written?;
        let parsed = parse_time(text);
        if parsed.is_none() {
            context.report.error(
                &format!("{key}.{name}"),
                "expected a time such as 2027-01-31 or 2027-01-31T12:00:00Z",
            );
        }
        parsed
    };
    let not_before = time("notBefore", written.not_before.as_ref());
    let expires = time("expires", written.expires.as_ref());
    if let (Some(from), Some(until)) = (not_before, expires)
        && until <= from
    {
        context
            .report
            .error(&format!("{key}.expires"), "is not after `notBefore`");
    }
    Some(ApiKey {
        id: id?,
        sha256: sha256?,
        not_before,
        expires,
    })
}

fn check_text(secret: &Secret, key: &str, context: &mut Context<'_>) {
    if secret.is_empty() {
        context.report.error(key, "is empty");
    } else if !secret.expose().iter().all(u8::is_ascii_graphic) {
        context.report.error(
            key,
            "cannot stand in a header: use visible characters without spaces",
        );
    } else if secret.len() < SHORT {
        context.report.warn_hint(
            key,
            "is shorter than 24 characters",
            "make one with `outrigger key generate`",
        );
    }
}

fn plain(id: &str, secret: &Secret) -> ApiKey {
    ApiKey {
        id: Arc::from(id),
        sha256: hash(secret),
        not_before: None,
        expires: None,
    }
}

fn hash(secret: &Secret) -> ApiKeyDigest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.expose());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    ApiKeyDigest(bytes)
}

/// 64 hexadecimal digits, perhaps with `sha256:` in front.
fn digest_of(written: &Secret, key: &str, context: &mut Context<'_>) -> Option<ApiKeyDigest> {
    let text = written.expose_str().unwrap_or_default().trim();
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    let mut bytes = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    let is_digest = text.len() == 64
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && pairs.zip(&mut bytes).all(|(pair, byte)| {
            let parsed = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok());
            *byte = parsed.unwrap_or_default();
            parsed.is_some()
        });
    if !is_digest {
        context.report.error_hint(
            key,
            "expected 64 hexadecimal digits",
            "`outrigger key generate` prints a key and its digest",
        );
        return None;
    }
    Some(ApiKeyDigest(bytes))
}
