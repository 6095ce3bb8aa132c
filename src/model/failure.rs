//! What can go wrong on a request, as one closed list.

use std::borrow::Cow;
use std::fmt;

/// Every way the sidecar itself ends a request. `reply` maps each one to status,
/// cause, fixed text, `Proxy-Status` token, gRPC status and log level in one
/// exhaustive table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    // bad_request
    BadRequest,
    MethodNotAllowed,
    BodyTooLarge,
    UriTooLong,
    HeadersTooLarge,
    // client_timeout, client_closed
    ClientTimeout,
    ClientClosed,
    // auth_denied
    /// 401 without any credential.
    CredentialMissing,
    /// 400 `invalid_request`: ambiguous credentials (RFC 6750 §3.1).
    CredentialAmbiguous,
    /// 401 `invalid_token`.
    CredentialInvalid,
    /// 403 `insufficient_scope`.
    NotAllowed,
    // auth_unavailable
    AuthUnavailable,
    UnknownService,
    /// 403 of a local door: browser-shaped request (Origin, Sec-Fetch-Site).
    CrossSite,
    /// 421: a Host this door does not serve.
    Misdirected,
    /// 404: a door has no such page.
    NotFound,
    Loop,
    ConnectRefused,
    ConnectTimeout,
    UpstreamClosed,
    UpstreamProtocol,
    UpgradeFailed,
    Dns,
    UpstreamTls,
    ResponseTimeout,
    AppUnavailable,
    Overloaded,
    CircuitOpen,
    ConfigInvalid,
    DatabaseUnavailable,
    /// 507: more rows than the SQL door carries.
    AnswerTooLarge,
    /// 410: an interactive transaction that is over.
    TransactionExpired,
    /// A caught panic.
    Internal,
}

impl Kind {
    /// All, in declaration order.
    pub const ALL: [Self; 33] = [
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::ClientTimeout,
        Self::ClientClosed,
        Self::CredentialMissing,
        Self::CredentialAmbiguous,
        Self::CredentialInvalid,
        Self::NotAllowed,
        Self::AuthUnavailable,
        Self::UnknownService,
        Self::CrossSite,
        Self::Misdirected,
        Self::NotFound,
        Self::Loop,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::UpgradeFailed,
        Self::Dns,
        Self::UpstreamTls,
        Self::ResponseTimeout,
        Self::AppUnavailable,
        Self::Overloaded,
        Self::CircuitOpen,
        Self::ConfigInvalid,
        Self::DatabaseUnavailable,
        Self::AnswerTooLarge,
        Self::TransactionExpired,
        Self::Internal,
    ];
}

/// Who or what made an error: the `cause` of metrics, log lines and problem
/// bodies (SPEC §9). Several kinds share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    BadRequest,
    ClientTimeout,
    ClientClosed,
    AuthDenied,
    AuthUnavailable,
    UnknownService,
    Loop,
    UpstreamConnectRefused,
    UpstreamConnectTimeout,
    UpstreamClosed,
    UpstreamProtocol,
    UpgradeFailed,
    Dns,
    UpstreamResponseTimeout,
    AppUnavailable,
    Overloaded,
    CircuitOpen,
    ConfigInvalid,
    DatabaseUnavailable,
    TxExpired,
    Internal,
}

impl Cause {
    /// All, in declaration order: `cause as usize` is an index into it.
    pub const ALL: [Self; 21] = [
        Self::BadRequest,
        Self::ClientTimeout,
        Self::ClientClosed,
        Self::AuthDenied,
        Self::AuthUnavailable,
        Self::UnknownService,
        Self::Loop,
        Self::UpstreamConnectRefused,
        Self::UpstreamConnectTimeout,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::UpgradeFailed,
        Self::Dns,
        Self::UpstreamResponseTimeout,
        Self::AppUnavailable,
        Self::Overloaded,
        Self::CircuitOpen,
        Self::ConfigInvalid,
        Self::DatabaseUnavailable,
        Self::TxExpired,
        Self::Internal,
    ];

    /// The name printed everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::ClientTimeout => "client_timeout",
            Self::ClientClosed => "client_closed",
            Self::AuthDenied => "auth_denied",
            Self::AuthUnavailable => "auth_unavailable",
            Self::UnknownService => "unknown_service",
            Self::Loop => "loop",
            Self::UpstreamConnectRefused => "upstream_connect_refused",
            Self::UpstreamConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpgradeFailed => "upgrade_failed",
            Self::Dns => "dns",
            Self::UpstreamResponseTimeout => "upstream_response_timeout",
            Self::AppUnavailable => "app_unavailable",
            Self::Overloaded => "overloaded",
            Self::CircuitOpen => "circuit_open",
            Self::ConfigInvalid => "config_invalid",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::TxExpired => "tx_expired",
            Self::Internal => "internal",
        }
    }
}

/// A failed request: the kind, plus text for the log only.
///
/// `detail` never reaches a client; `reply` has fixed texts for those.
#[derive(Clone)]
pub struct Failure {
    /// What happened.
    pub kind: Kind,
    /// For the log: OS error, reason of a denial. No header or parameter values.
    pub detail: Cow<'static, str>,
}

impl Failure {
    /// A failure whose log line needs no more than the kind.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            detail: Cow::Borrowed(""),
        }
    }

    /// A failure with a reason for the log.
    pub fn because(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.kind)?;
        if !self.detail.is_empty() {
            write!(formatter, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl std::error::Error for Failure {}
