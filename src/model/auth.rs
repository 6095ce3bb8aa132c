//! Who may call a service: the validated policy (CONFIG.md `auth`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::origin::Origin;
use super::service::{TlsClientSpec, UpstreamSpec};
use crate::secret::Secret;

/// A way to establish an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    ApiKey,
    Jwt,
    Custom,
    Mtls,
}

impl Strategy {
    /// The name used in configuration, metrics and `x-auth-strategy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key",
            Self::Jwt => "jwt",
            Self::Custom => "custom",
            Self::Mtls => "mtls",
        }
    }
}

/// What a request must show. Lists are never empty and never hold duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Written out as `strategy: none`, or the default.
    None,
    /// One strategy, or `anyOf`.
    AnyOf(Vec<Strategy>),
    /// `allOf`: each from its own carrier; the last names the identity.
    AllOf(Vec<Strategy>),
}

impl Requirement {
    /// Every strategy named.
    pub fn strategies(&self) -> &[Strategy] {
        match self {
            Self::None => &[],
            Self::AnyOf(list) | Self::AllOf(list) => list,
        }
    }
}

/// The validated `auth` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthPolicy {
    /// What applies where no rule matches.
    pub requirement: Requirement,
    /// Whether the file (or an environment default) says `none` or anything
    /// else itself; `false` means the built-in default applied.
    pub explicit: bool,
    /// Ordered; the first match wins.
    pub rules: Vec<Rule>,
    /// Who, once authenticated; `None` = anyone.
    pub allow: Option<Who>,
    pub preflight: Preflight,
    /// Drop the credential before the app.
    pub hide_credentials: bool,
    pub app_token: Option<AppToken>,
    /// Present exactly when a requirement anywhere names the strategy.
    pub api_key: Option<ApiKeyPolicy>,
    pub jwt: Option<JwtPolicy>,
    pub hook: Option<HookPolicy>,
    pub mtls: Option<MtlsPolicy>,
}

impl AuthPolicy {
    /// The default: open, not stated.
    pub fn open() -> Self {
        Self {
            requirement: Requirement::None,
            explicit: false,
            rules: Vec::new(),
            allow: None,
            preflight: Preflight::Forward,
            hide_credentials: false,
            app_token: None,
            api_key: None,
            jwt: None,
            hook: None,
            mtls: None,
        }
    }
}

/// One entry of `rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Empty = every path.
    pub paths: Vec<PathGlob>,
    /// Upper-case method names; empty = every method.
    pub methods: Vec<Arc<str>>,
    /// `None` inherits the policy's requirement.
    pub requirement: Option<Requirement>,
    /// `None` inherits the policy's `allow`.
    pub allow: Option<Who>,
    pub deny: Deny,
    /// Another upstream for requests of this rule.
    pub upstream: Option<UpstreamSpec>,
    pub origin: Origin,
}

/// `deny` of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Deny {
    #[default]
    Nobody,
    /// `deny: true`: 403 for all, whatever they show.
    Everyone,
    /// These authenticated callers.
    Who(Who),
}

/// A validated path pattern: `/a/*/c`, `/x/**`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob {
    /// As written.
    pub text: Arc<str>,
    /// Between slashes, in order; `Rest` only at the end.
    pub segments: Vec<Segment>,
}

/// One segment of a [`PathGlob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Compared as it is (exemptions) or without regard to ASCII case (stricter rules).
    Literal(Arc<str>),
    /// `*`: exactly one segment.
    One,
    /// `**`: the rest; `/x/**` also matches `/x`.
    Rest,
}

/// `allow`: every list that is present must hold the caller; within a list one
/// match is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// Bare or full service names, matched against `Identity::service`.
    pub services: Vec<Arc<str>>,
    /// API key ids.
    pub keys: Vec<Arc<str>>,
    pub subjects: Vec<Arc<str>>,
    /// Claim name → values, of which the token must carry one (a
    /// space-separated `scope` counts each word, RFC 8693 §4.2).
    pub claims: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

/// What happens to a CORS preflight (`OPTIONS` with `Origin` and
/// `Access-Control-Request-Method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// Passed without credentials, identity stripped.
    Forward,
    Authenticate,
}

/// A header with a secret value sent to the app on every forwarded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppToken {
    /// A valid lower-case header name.
    pub header: Arc<str>,
    pub value: Secret,
}

/// SHA-256 of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyDigest(pub [u8; 32]);

/// Strategy `api-key`; never without keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyPolicy {
    pub keys: Vec<ApiKey>,
}

/// One accepted key. Plain keys of the file are digested while compiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Names the caller.
    pub id: Arc<str>,
    pub sha256: ApiKeyDigest,
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}

/// JWS algorithms (RFC 7518 §3.1, RFC 8037) that may be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JwtAlgorithm {
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
    EdDsa,
}

impl JwtAlgorithm {
    /// All, in the order of the registry.
    pub const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// HMAC family.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// Where the keys of a [`JwtPolicy`] come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// Any verifies, the first mints; each ≥ 32 bytes.
    Secrets(Vec<Secret>),
    /// A PEM public key (SPKI), as text.
    PublicKey(String),
    Jwks(JwksSource),
}

/// A key set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// `https`, or `http` on loopback.
    Url {
        url: String,
        ca: Option<PathBuf>,
        stale_keys: Duration,
    },
    /// The file's content at compile time; a change recompiles the service.
    File { path: PathBuf, content: Secret },
}

/// Strategy `jwt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtPolicy {
    pub keys: JwtKeys,
    /// Never empty; never mixes families.
    pub algorithms: Vec<JwtAlgorithm>,
    pub issuer: Option<Arc<str>>,
    /// Any of; empty = not checked.
    pub audience: Vec<Arc<str>>,
    pub leeway: Duration,
    pub require_exp: bool,
    pub max_lifetime: Option<Duration>,
    /// Accepted `typ` values; empty = not checked.
    pub types: Vec<Arc<str>>,
    /// Claim that names a calling service.
    pub service_name_claim: Arc<str>,
    /// Claim → lower-case header name.
    pub claims: BTreeMap<Arc<str>, Arc<str>>,
}

/// Known request/answer shapes of authentication hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPreset {
    Traefik,
    Nginx,
    Envoy,
    Caddy,
}

/// Fields that frame or route a message: a hook cannot be asked with them.
pub const FRAMING_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Strategy `custom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookPolicy {
    /// `http` or `https`.
    pub url: String,
    pub preset: Option<HookPreset>,
    pub timeout: Duration,
    pub fail_open: bool,
    /// Lower-case; `None` = the default list of SPEC §3.
    pub request_headers: Option<Vec<Arc<str>>>,
    /// Lower-case: response headers of the hook that replace the client's.
    pub response_headers: Vec<Arc<str>>,
    /// URL browsers are sent to.
    pub sign_in: Option<String>,
    /// Zero = off.
    pub cache: Duration,
    pub max_in_flight: u32,
    pub tls: Option<TlsClientSpec>,
}

/// Strategy `mtls`; `allow` is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtlsPolicy {
    pub allow: Vec<MtlsName>,
}

/// An exact certificate name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtlsName {
    /// `spiffe://trust-domain/path`, or whatever URI a certificate shows.
    Spiffe(Arc<str>),
    /// `dns:name`, without the prefix, in lower case.
    Dns(Arc<str>),
}

impl MtlsName {
    /// An exact name as files write it: `spiffe://trust-domain/path`, or
    /// `dns:name`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("spiffe://") {
            let (domain, path) = path.split_once('/')?;
            let is_whole = !domain.is_empty() && !path.is_empty() && !path.contains('*');
            return is_whole.then(|| Self::Spiffe(text.into()));
        }
        let host = text.strip_prefix("dns:")?;
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = !host.is_empty() && host.bytes().all(known);
        is_name.then(|| Self::Dns(host.to_ascii_lowercase().into()))
    }

    /// The name itself, as it becomes the caller's identity.
    pub fn as_str(&self) -> &Arc<str> {
        match self {
            Self::Spiffe(name) | Self::Dns(name) => name,
        }
    }
}
