//! A service's file as it is written (CONFIG.md "Service file").

use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::RawAuth;
use super::database::RawDatabase;
use super::values::{OneOrMany, RawDuration, RawSecret, RawSize, Short};

/// The file of one service of the tree.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Service", title = "Outrigger service file")]
pub(crate) struct RawService {
    /// The folder's name; another value is a warning.
    pub(crate) name: Option<String>,
    /// The domain folder's name; another value is a warning.
    pub(crate) domain: Option<String>,
    /// Shown in `/health` and on the admin port.
    pub(crate) version: Option<String>,
    /// Shown on the admin port.
    pub(crate) description: Option<String>,
    /// Public port of the sidecar for this service.
    #[schemars(range(min = 1))]
    pub(crate) port: Option<u16>,
    /// Address for that port; default: the process setting.
    pub(crate) listen: Option<String>,
    /// The app: `8080`, `host:port`, a URL, `unix:/path`, or its settings.
    /// Default: `http://127.0.0.1:<port+10000>`, then `[::1]`.
    pub(crate) upstream: Option<Short<RawUpstream>>,
    /// Where other sidecars reach this service: `host:port`, a URL, or a list.
    pub(crate) address: Option<OneOrMany>,
    /// Services this one calls.
    pub(crate) dependencies: Option<Vec<Short<RawDependency>>>,
    /// Path on the app, `false`, `grpc`, or its settings.
    pub(crate) health_check: Option<Short<RawHealthCheck>>,
    /// The sidecar's own `/health`.
    pub(crate) health: Option<RawHealth>,
    /// Bounds of the public port.
    pub(crate) limits: Option<RawLimits>,
    /// Tokens of `Upgrade` that may pass. Default: `[websocket]`.
    pub(crate) upgrades: Option<Short<Vec<String>>>,
    /// TLS on the public port.
    pub(crate) tls: Option<RawTlsServer>,
    /// Who may call. `auth: jwt` is short for `auth: {strategy: jwt}`.
    pub(crate) auth: Option<Short<RawAuth>>,
    /// Trace context and spans; a block without `enabled` is on.
    pub(crate) tracing: Option<Short<RawTracing>>,
    /// The service's own Postgres pool, schema or database, and migrations.
    pub(crate) database: Option<RawDatabase>,
}

/// `upstream`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Upstream")]
pub(crate) struct RawUpstream {
    /// `8080`, `host:port`, a URL or `unix:/path`.
    pub(crate) url: Option<String>,
    /// What is spoken to the app. Default: `http1`.
    pub(crate) protocol: Option<RawProtocol>,
    /// Spelling of header names toward an HTTP/1.1 app. Default: `lower`.
    pub(crate) header_case: Option<RawHeaderCase>,
    /// Default: `300ms` on loopback and Unix sockets, else `2s`.
    pub(crate) connect_timeout: Option<RawDuration>,
    /// Until the complete response head. Default: `30s`.
    pub(crate) response_timeout: Option<RawDuration>,
    /// The app silent in a body. Default: `5m`.
    pub(crate) body_idle_timeout: Option<RawDuration>,
    /// How long an idle connection is kept. Default: `3s`.
    pub(crate) pool_idle_timeout: Option<RawDuration>,
    /// Idle connections kept per worker. Default: 64.
    pub(crate) max_idle: Option<u32>,
    /// TLS to an `https` app.
    pub(crate) tls: Option<RawTlsClient>,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Protocol")]
pub(crate) enum RawProtocol {
    Http1,
    H2c,
    Auto,
}

/// Spelling of header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HeaderCase")]
pub(crate) enum RawHeaderCase {
    Lower,
    Title,
}

/// TLS as a client.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "TlsClient")]
pub(crate) struct RawTlsClient {
    /// File with the authorities to trust. Default: the system's.
    pub(crate) ca: Option<String>,
    /// File with the client certificate.
    pub(crate) cert: Option<String>,
    /// File with its key.
    pub(crate) key: Option<String>,
    /// Name to verify instead of the host.
    pub(crate) server_name: Option<String>,
}

/// One entry of `dependencies`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Dependency")]
pub(crate) struct RawDependency {
    /// A service of the tree, or any name together with `address`.
    pub(crate) name: Option<String>,
    /// Where it is reached: `host:port`, a URL, or a list.
    pub(crate) address: Option<OneOrMany>,
    /// A port on loopback for calls to it.
    #[schemars(range(min = 1))]
    pub(crate) local_port: Option<u16>,
    /// Whether this service is unhealthy without it. Default: `false`.
    pub(crate) required: Option<bool>,
    /// How its state is probed when no sidecar fronts it.
    pub(crate) health_check: Option<Short<RawHealthCheck>>,
    /// Of a whole call. Default: `30s`.
    pub(crate) timeout: Option<RawDuration>,
    /// Default: `2s`.
    pub(crate) connect_timeout: Option<RawDuration>,
    /// Default: 0.
    pub(crate) retries: Option<u32>,
    /// Circuit breaker, or `false`.
    pub(crate) breaker: Option<Short<RawBreaker>>,
    /// What is attached to calls.
    pub(crate) credential: Option<RawCredential>,
    /// TLS to an `https` address.
    pub(crate) tls: Option<RawTlsClient>,
}

/// `breaker`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Breaker")]
pub(crate) struct RawBreaker {
    /// Consecutive failures that open it. Default: 5.
    pub(crate) failures: Option<u32>,
    /// Default: `60s`.
    pub(crate) open: Option<RawDuration>,
}

/// `credential`: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Credential")]
pub(crate) struct RawCredential {
    /// Sent in `x-api-key`.
    pub(crate) api_key: Option<RawSecret>,
    /// A token minted for each call.
    pub(crate) jwt: Option<RawMint>,
}

/// `credential.jwt`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Mint")]
pub(crate) struct RawMint {
    /// At least 32 bytes.
    pub(crate) secret: Option<RawSecret>,
    /// At most `5m`. Default: `60s`.
    pub(crate) lifetime: Option<RawDuration>,
}

/// `healthCheck`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "HealthCheck")]
pub(crate) struct RawHealthCheck {
    /// Path on the app, or `grpc`.
    pub(crate) path: Option<String>,
    /// Default: `5s`.
    pub(crate) interval: Option<RawDuration>,
    /// Default: `1s`.
    pub(crate) timeout: Option<RawDuration>,
    /// Failures in a row until it is down. Default: 3.
    pub(crate) unhealthy_threshold: Option<u32>,
    /// Successes in a row until it is up. Default: 2.
    pub(crate) healthy_threshold: Option<u32>,
}

/// `health`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Health")]
pub(crate) struct RawHealth {
    /// Exact path, or `false`. Default: `/health`.
    #[schemars(with = "Option<PathOrOff>")]
    pub(crate) path: Option<Short<Never>>,
    /// Who sees everything. Default: `auto`.
    pub(crate) details: Option<RawHealthDetails>,
    /// Status for `degraded`. Default: 202.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) degraded_status: Option<u16>,
    /// `/health/services` on the public port too. Default: `false`.
    pub(crate) services: Option<bool>,
}

/// A short form without a long one: no mapping fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Never {}

/// What the schema says of a path that may be off.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum PathOrOff {
    Path(String),
    Off(bool),
}

/// Who sees checks, version and dependencies in `/health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HealthDetails")]
pub(crate) enum RawHealthDetails {
    Auto,
    Public,
    Restricted,
}

/// `limits`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub(crate) struct RawLimits {
    /// A request head. Default: `64KiB`.
    pub(crate) header_bytes: Option<RawSize>,
    /// Default: 100.
    pub(crate) header_count: Option<u32>,
    /// Path and query. Default: `16KiB`.
    pub(crate) uri_bytes: Option<RawSize>,
    /// Default: `unlimited`.
    pub(crate) body_bytes: Option<RawSize>,
    /// Requests at once. Default: 10000.
    pub(crate) in_flight: Option<u32>,
    /// Default: 10000.
    pub(crate) connections: Option<u32>,
    /// First byte and complete head. Default: `10s`.
    pub(crate) header_timeout: Option<RawDuration>,
    /// Default: `75s`.
    pub(crate) idle_timeout: Option<RawDuration>,
    /// A client that does not read. Default: `60s`.
    pub(crate) write_stall_timeout: Option<RawDuration>,
    /// Default: `1h`.
    pub(crate) upgrade_idle_timeout: Option<RawDuration>,
    /// Streams per HTTP/2 connection. Default: 128.
    pub(crate) h2_streams: Option<u32>,
}

/// `tls`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "TlsServer")]
pub(crate) struct RawTlsServer {
    /// File with the certificate chain.
    pub(crate) cert: Option<String>,
    /// File with its key.
    pub(crate) key: Option<String>,
    /// File with the authorities of client certificates.
    pub(crate) client_ca: Option<String>,
    /// Default with `clientCa`: `require`.
    pub(crate) client_cert: Option<RawClientCert>,
    /// Default: 1.2.
    #[schemars(with = "Option<VersionNumber>")]
    pub(crate) min_version: Option<RawTlsVersion>,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ClientCert")]
pub(crate) enum RawClientCert {
    Require,
    Optional,
}

/// Lowest TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum RawTlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// What the schema says of a TLS version: YAML reads `1.2` as a number.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum VersionNumber {
    Number(f64),
    Text(String),
}

/// `tracing`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Tracing")]
pub(crate) struct RawTracing {
    /// Default: `true` where the block is there.
    pub(crate) enabled: Option<bool>,
    /// Share of new traces that are sampled. Default: 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sampling_rate: Option<f64>,
    /// Formats that are written. Default: `[w3c, house]`.
    pub(crate) propagate: Option<Vec<RawPropagation>>,
    /// Whose sampling decision is followed. Default: `auto`.
    pub(crate) trust_parent: Option<RawTrustParent>,
}

/// A header format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Propagation")]
pub(crate) enum RawPropagation {
    W3c,
    House,
    /// `b3: …`
    B3,
    /// `X-B3-…`
    B3multi,
}

/// Whose sampling decision is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "TrustParent")]
pub(crate) enum RawTrustParent {
    Auto,
    Always,
    Authenticated,
    Never,
}
