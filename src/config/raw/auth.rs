//! `auth` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::service::{RawTlsClient, RawUpstream};
use super::values::{OneOrMany, RawDuration, RawSecret, Short};

/// `auth`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Auth")]
pub(crate) struct RawAuth {
    /// Default: `none`, or the one block that is present.
    pub(crate) strategy: Option<RawStrategy>,
    /// One of these.
    pub(crate) any_of: Option<Vec<RawStrategy>>,
    /// All of these, each from its own carrier.
    pub(crate) all_of: Option<Vec<RawStrategy>>,
    /// For strategy `api-key`.
    pub(crate) api_key: Option<RawApiKeys>,
    /// For strategy `jwt`.
    pub(crate) jwt: Option<RawJwt>,
    /// For strategy `custom`.
    pub(crate) hook: Option<RawHook>,
    /// For strategy `mtls`.
    pub(crate) mtls: Option<RawMtls>,
    /// The key of `api-key` or the secret of `jwt`: short for the block.
    pub(crate) secret_key: Option<RawSecret>,
    /// The PEM key of `jwt`: short for the block.
    pub(crate) public_key: Option<String>,
    /// Ordered; the first match applies.
    pub(crate) rules: Option<Vec<RawRule>>,
    /// Who, once authenticated; otherwise 403.
    pub(crate) allow: Option<RawWho>,
    /// What happens to CORS preflights. Default: `forward`.
    pub(crate) preflight: Option<RawPreflight>,
    /// Drop the credential before the app. Default: `false`.
    pub(crate) hide_credentials: Option<bool>,
    /// A header for the app on every forwarded request.
    pub(crate) app_token: Option<RawAppToken>,
}

/// A way to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Strategy")]
pub(crate) enum RawStrategy {
    None,
    ApiKey,
    Jwt,
    Custom,
    Mtls,
}

impl RawStrategy {
    /// The words of CONFIG.md.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("api-key", Self::ApiKey),
        ("jwt", Self::Jwt),
        ("custom", Self::Custom),
        ("mtls", Self::Mtls),
    ];

    /// The strategy of a word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, strategy)| *strategy)
    }
}

/// `apiKey`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "ApiKeys")]
pub(crate) struct RawApiKeys {
    /// Every accepted key; `SERVICE_API_KEY` adds one with the id `default`.
    pub(crate) keys: Option<Vec<RawApiKey>>,
}

/// One accepted key: `sha256` or `key`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "ApiKey")]
pub(crate) struct RawApiKey {
    /// Names the caller.
    pub(crate) id: Option<String>,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub(crate) sha256: Option<RawSecret>,
    /// The key itself.
    pub(crate) key: Option<RawSecret>,
    /// RFC 3339 time or date from which it is accepted.
    pub(crate) not_before: Option<String>,
    /// RFC 3339 time or date from which it is no longer accepted.
    pub(crate) expires: Option<String>,
}

/// `jwt`: exactly one of `secret`, `secrets`, `publicKey` and `jwks`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Jwt")]
pub(crate) struct RawJwt {
    /// At least 32 bytes.
    pub(crate) secret: Option<RawSecret>,
    /// Any verifies, the first mints.
    pub(crate) secrets: Option<Vec<RawSecret>>,
    /// PEM, `-----BEGIN PUBLIC KEY-----`.
    pub(crate) public_key: Option<String>,
    /// A key set.
    pub(crate) jwks: Option<RawJwks>,
    /// Accepted algorithms. Default: those of the key's family.
    pub(crate) algorithms: Option<Vec<RawAlgorithm>>,
    /// `iss`, exact.
    pub(crate) issuer: Option<String>,
    /// `aud`, any of.
    pub(crate) audience: Option<OneOrMany>,
    /// For clocks. Default: `60s`.
    pub(crate) leeway: Option<RawDuration>,
    /// Default: `true`.
    pub(crate) require_exp: Option<bool>,
    /// Longest `exp` − `iat`.
    pub(crate) max_lifetime: Option<RawDuration>,
    /// Accepted `typ` values.
    pub(crate) types: Option<OneOrMany>,
    /// Claim that names a calling service. Default: `serviceName`.
    pub(crate) service_name_claim: Option<String>,
    /// Claim → header for the app.
    pub(crate) claims: Option<BTreeMap<String, String>>,
}

/// JWS algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "Algorithm")]
pub(crate) enum RawAlgorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// `jwks`: `url` or `file`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Jwks")]
pub(crate) struct RawJwks {
    /// `https`, or `http` on loopback.
    pub(crate) url: Option<String>,
    /// A file with the set.
    pub(crate) file: Option<String>,
    /// File with the authorities to trust for `url`.
    pub(crate) ca: Option<String>,
    /// How long old keys are kept after failures. Default: `1h`.
    pub(crate) stale_keys: Option<RawDuration>,
}

/// `hook`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Hook")]
pub(crate) struct RawHook {
    /// Asked about each request.
    pub(crate) url: Option<String>,
    /// A known shape of question and answer.
    pub(crate) preset: Option<RawHookPreset>,
    /// Default: `500ms`.
    pub(crate) timeout: Option<RawDuration>,
    /// Forward without identity when the hook fails. Default: `false`.
    pub(crate) fail_open: Option<bool>,
    /// Headers of the request it is shown.
    pub(crate) request_headers: Option<Vec<String>>,
    /// Headers of its answer that replace the client's.
    pub(crate) response_headers: Option<Vec<String>>,
    /// Where browsers are sent to sign in.
    pub(crate) sign_in: Option<String>,
    /// How long an answer counts. Default: `0s`.
    pub(crate) cache: Option<RawDuration>,
    /// Default: 256.
    pub(crate) max_in_flight: Option<u32>,
    /// TLS to an `https` hook.
    pub(crate) tls: Option<RawTlsClient>,
}

/// Known hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HookPreset")]
pub(crate) enum RawHookPreset {
    Traefik,
    Nginx,
    Envoy,
    Caddy,
}

/// `mtls`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Mtls")]
pub(crate) struct RawMtls {
    /// Exact names: `spiffe://…` or `dns:…`.
    pub(crate) allow: Option<Vec<String>>,
}

/// One entry of `rules`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Rule")]
pub(crate) struct RawRule {
    /// Patterns: `*` is one segment, `**` the rest. Default: every path.
    pub(crate) paths: Option<Vec<String>>,
    /// Default: every method.
    pub(crate) methods: Option<Vec<String>>,
    /// In the place of the service's own.
    pub(crate) strategy: Option<RawStrategy>,
    /// One of these.
    pub(crate) any_of: Option<Vec<RawStrategy>>,
    /// All of these.
    pub(crate) all_of: Option<Vec<RawStrategy>>,
    /// Who, once authenticated.
    pub(crate) allow: Option<RawWho>,
    /// `true`: 403 for all; or who is refused.
    pub(crate) deny: Option<Short<RawWho>>,
    /// Another upstream for these requests.
    pub(crate) upstream: Option<Short<RawUpstream>>,
}

/// `allow` and `deny`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Who")]
pub(crate) struct RawWho {
    /// Calling services.
    pub(crate) services: Option<Vec<String>>,
    /// API key ids.
    pub(crate) keys: Option<Vec<String>>,
    /// Subjects of tokens, or what a hook says.
    pub(crate) subjects: Option<Vec<String>>,
    /// Claim → accepted values.
    pub(crate) claims: Option<RawClaims>,
}

/// Claim → accepted values.
pub(crate) type RawClaims = BTreeMap<String, OneOrMany>;

/// What happens to CORS preflights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Preflight")]
pub(crate) enum RawPreflight {
    Forward,
    Authenticate,
}

/// `appToken`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "AppToken")]
pub(crate) struct RawAppToken {
    /// Name of the header.
    pub(crate) header: Option<String>,
    /// Its value, by which the app knows its sidecar.
    pub(crate) value: Option<RawSecret>,
}
