//! The process's file as it is written (CONFIG.md "Process settings").

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::database::RawProcessDatabase;
use super::service::{RawPropagation, RawTlsClient, RawTrustParent};
use super::values::{OneOrMany, RawDuration, RawSecret, RawSize, Short};

/// `config/outrigger.yaml`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Process", title = "Outrigger process settings")]
pub(crate) struct RawProcess {
    /// The tree. Default: `services`, else `src/services`.
    pub(crate) services_dir: Option<String>,
    /// For public ports. Default: `[::]` dual-stack, else `0.0.0.0`.
    pub(crate) listen: Option<String>,
    /// Data threads. Default: `auto`, at most 4.
    #[schemars(with = "Option<AutoOrNumber>")]
    pub(crate) workers: Option<String>,
    /// Read-only door: `/metrics /livez /readyz /startupz`.
    pub(crate) observe: Option<RawObserve>,
    /// The door for everything.
    pub(crate) admin: Option<RawAdmin>,
    /// The door for calls to other services by name.
    pub(crate) outbound: Option<RawOutbound>,
    /// The door for SQL over HTTP.
    pub(crate) sql: Option<RawSql>,
    /// How peers are found.
    pub(crate) discovery: Option<RawDiscovery>,
    /// Defaults for all services, and the administrative login.
    pub(crate) database: Option<RawProcessDatabase>,
    /// What is demanded of services.
    pub(crate) auth: Option<RawProcessAuth>,
    /// Where spans go, and defaults for services.
    pub(crate) tracing: Option<RawProcessTracing>,
    /// Which requests get a line. Default: `errors`.
    pub(crate) access_log: Option<RawAccessLog>,
    /// Diagnostics.
    pub(crate) log: Option<RawLog>,
    /// Networks, `loopback`, `private`.
    pub(crate) trusted_proxies: Option<OneOrMany>,
    /// Folders that `${file:}` of every service may read.
    pub(crate) secrets_dirs: Option<OneOrMany>,
    /// The end of the process.
    pub(crate) shutdown: Option<RawShutdown>,
    /// How changes of files are noticed.
    pub(crate) reload: Option<RawReload>,
}

/// What the schema says of `workers`.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum AutoOrNumber {
    Number(u16),
    Auto(String),
}

/// What the schema says of a door's address.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum AddressOrOff {
    Port(u16),
    Address(String),
    Off(bool),
}

/// `observe`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Observe")]
pub(crate) struct RawObserve {
    /// Default: `0.0.0.0:9909`; `off` allowed.
    #[schemars(with = "Option<AddressOrOff>")]
    pub(crate) listen: Option<String>,
}

/// `admin`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Admin")]
pub(crate) struct RawAdmin {
    /// Default: `127.0.0.1:9900`; `off` allowed.
    #[schemars(with = "Option<AddressOrOff>")]
    pub(crate) listen: Option<String>,
    /// Bearer token; needed off loopback.
    pub(crate) token: Option<RawSecret>,
}

/// `outbound`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Outbound")]
pub(crate) struct RawOutbound {
    /// Default: `127.0.0.1:9901`; `off` allowed.
    #[schemars(with = "Option<AddressOrOff>")]
    pub(crate) listen: Option<String>,
    /// Only declared dependencies. Default: `true`.
    pub(crate) strict: Option<bool>,
    /// Origins that browsers may call from.
    pub(crate) allow_origins: Option<OneOrMany>,
}

/// `sql`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Sql")]
pub(crate) struct RawSql {
    /// Default: `127.0.0.1:9902`; `off` allowed.
    #[schemars(with = "Option<AddressOrOff>")]
    pub(crate) listen: Option<String>,
    /// Origins that browsers may call from.
    pub(crate) allow_origins: Option<OneOrMany>,
    /// Default: `10MiB`.
    pub(crate) max_request: Option<RawSize>,
    /// Default: `10MiB`.
    pub(crate) max_response: Option<RawSize>,
}

/// `discovery`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Discovery")]
pub(crate) struct RawDiscovery {
    /// Template with `{name}`, `{domain}`, `{port}`. Default: `127.0.0.1:{port}`.
    pub(crate) address: Option<String>,
    /// How often names are resolved again. Default: `5s`.
    pub(crate) refresh: Option<RawDuration>,
}

/// `auth` of the process.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "ProcessAuth")]
pub(crate) struct RawProcessAuth {
    /// A service must say `strategy: none` itself to be open. Default: `false`.
    pub(crate) required: Option<bool>,
}

/// `tracing` of the process.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "ProcessTracing")]
pub(crate) struct RawProcessTracing {
    /// `none`, `stdout`, or `{otlp: …}`. Default: `none`.
    pub(crate) exporter: Option<Short<RawExporterFull>>,
    /// Default for services.
    pub(crate) enabled: Option<bool>,
    /// Default for services.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sampling_rate: Option<f64>,
    /// Default for services.
    pub(crate) propagate: Option<Vec<RawPropagation>>,
    /// Default for services.
    pub(crate) trust_parent: Option<RawTrustParent>,
}

/// `tracing.exporter`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Exporter")]
pub(crate) struct RawExporterFull {
    /// OTLP over HTTP.
    pub(crate) otlp: Option<RawOtlp>,
}

/// `tracing.exporter.otlp`: OTLP over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Otlp")]
pub(crate) struct RawOtlp {
    /// Such as `http://collector:4318`.
    pub(crate) endpoint: Option<String>,
    /// Sent with each export.
    pub(crate) headers: Option<BTreeMap<String, RawSecret>>,
    /// TLS to an `https` endpoint.
    pub(crate) tls: Option<RawTlsClient>,
    /// Spans held at most. Default: 2048.
    pub(crate) queue: Option<u32>,
    /// Default: `5s`.
    pub(crate) timeout: Option<RawDuration>,
}

/// Which requests get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AccessLog")]
pub(crate) enum RawAccessLog {
    Off,
    Errors,
    All,
}

/// `log`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Log")]
pub(crate) struct RawLog {
    /// Default: `info`.
    pub(crate) level: Option<RawLogLevel>,
    /// Default: `auto`, text on a terminal.
    pub(crate) format: Option<RawLogFormat>,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "LogLevel")]
pub(crate) enum RawLogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "LogFormat")]
pub(crate) enum RawLogFormat {
    Auto,
    Text,
    Json,
}

/// `shutdown`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Shutdown")]
pub(crate) struct RawShutdown {
    /// Default: `25s`.
    pub(crate) deadline: Option<RawDuration>,
    /// How long requests are still accepted. Default: `5s`.
    pub(crate) accept: Option<RawDuration>,
    /// `POST /quitquitquit`. Default: `false`.
    pub(crate) quit_endpoint: Option<bool>,
}

/// `reload`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Reload")]
pub(crate) struct RawReload {
    /// How often contents are compared. Default: `5s`.
    pub(crate) poll: Option<RawDuration>,
    /// Changes this close together are one. Default: `50ms`.
    pub(crate) quiet: Option<RawDuration>,
    /// But never wait longer. Default: `200ms`.
    pub(crate) max: Option<RawDuration>,
}
