//! `database` as it is written (POSTGRES.md §1).

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{OneOrMany, RawDuration, RawSecret};

/// The block of a service and that of the process share all keys but two.
macro_rules! database {
    ($(#[$meta:meta])* $name:ident { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        $(#[$meta])*
        pub(crate) struct $name {
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// A schema of its own, or a database of its own. Default: `shared`.
            pub(crate) isolation: Option<RawIsolation>,
            /// Default: `true`.
            pub(crate) migrations: Option<bool>,
            /// `postgres://user:password@host:port/database`.
            pub(crate) url: Option<RawSecret>,
            /// Host name, address, or folder of a Unix socket.
            pub(crate) host: Option<String>,
            /// Default: 5432.
            #[schemars(range(min = 1))]
            pub(crate) port: Option<u16>,
            /// Default: that of `url` or of the environment.
            pub(crate) database: Option<String>,
            /// Who logs in.
            pub(crate) user: Option<String>,
            /// The password of `user`.
            pub(crate) password: Option<RawSecret>,
            /// Connections at most. Default: 20.
            #[schemars(range(min = 1))]
            pub(crate) max: Option<u32>,
            /// Default: 30000.
            pub(crate) idle_timeout_millis: Option<u64>,
            /// Default: 2000.
            pub(crate) connection_timeout_millis: Option<u64>,
            /// Default: `30m`.
            pub(crate) max_lifetime: Option<RawDuration>,
            /// Default: `30s`.
            pub(crate) statement_timeout: Option<RawDuration>,
            /// Longest wait for a lock. Default: none.
            pub(crate) lock_timeout: Option<RawDuration>,
            /// Default: `60s`.
            pub(crate) idle_in_transaction_timeout: Option<RawDuration>,
            /// Whether the service is unhealthy without it. Default: `true`.
            pub(crate) required: Option<bool>,
            /// Whether roles, schemas and databases are created. Default: `auto`.
            #[schemars(with = "Option<AutoOrBool>")]
            pub(crate) provision: Option<RawProvision>,
            /// Default: `<domain>_<service>`.
            pub(crate) schema: Option<String>,
            /// Login role. Default: `<domain>_<service>`.
            pub(crate) role: Option<String>,
            /// Password of `role`. Default: derived from `roleSecret`.
            pub(crate) role_password: Option<RawSecret>,
            /// Default: `migrations`.
            pub(crate) migrations_dir: Option<String>,
            /// Default: `false`.
            pub(crate) migrate_on_reload: Option<bool>,
            /// Services whose tables may be read.
            pub(crate) reads: Option<OneOrMany>,
            /// Services that may read ours.
            pub(crate) shares_with: Option<OneOrMany>,
            /// Opens the SQL door for this service.
            pub(crate) door_token: Option<RawSecret>,
            /// When a connection is reset. Default: `always`.
            pub(crate) reset: Option<RawReset>,
            /// TLS toward PostgreSQL.
            pub(crate) tls: Option<RawDatabaseTls>,
            /// Accepted and ignored.
            pub(crate) service_name: Option<String>,
        }
    };
}

database! {
    /// `database` of a service.
    #[schemars(rename = "Database")]
    RawDatabase {}
}

database! {
    /// `database` of the process: defaults for all services and the
    /// administrative login.
    #[schemars(rename = "ProcessDatabase")]
    RawProcessDatabase {
        /// Roles' passwords are derived from it; at least 32 bytes.
        role_secret: Option<RawSecret>,
        /// Put before the name of every role.
        role_prefix: Option<String>,
    }
}

/// The boundary between services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Isolation")]
pub(crate) enum RawIsolation {
    Shared,
    Isolated,
}

/// Whether roles, schemas and databases are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawProvision {
    Auto,
    True,
    False,
}

/// What the schema says of `provision`.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum AutoOrBool {
    Bool(bool),
    Auto(Auto),
}

/// The word.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Auto {
    Auto,
}

/// When a connection is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Reset")]
pub(crate) enum RawReset {
    Always,
    Dirty,
}

/// TLS toward PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "DatabaseTls")]
pub(crate) struct RawDatabaseTls {
    /// Default: `disable` on loopback and Unix sockets, else `verify-full`.
    pub(crate) mode: Option<RawTlsMode>,
    /// File of accepted authorities. Default: the system's.
    pub(crate) ca: Option<String>,
    /// File of our certificate.
    pub(crate) cert: Option<String>,
    /// File of its key.
    pub(crate) key: Option<String>,
}

/// How far TLS goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "TlsMode")]
pub(crate) enum RawTlsMode {
    Disable,
    /// Only on loopback and Unix sockets, where it means `disable`.
    Prefer,
    Require,
    VerifyFull,
}
