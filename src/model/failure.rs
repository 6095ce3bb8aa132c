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
    /// A caught panic.
    Internal,
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
