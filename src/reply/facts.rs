//! The table. Every kind is spelled out; there is no `_` arm, so a new kind
//! does not compile until somebody decides what it means.

use tracing::Level;

use crate::model::{Cause, Failure, Kind};
use crate::telemetry::recorder::RecordedFailure;

/// What one kind of failure is to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// HTTP status; 499 is for the log only, nobody is there to read it.
    pub status: u16,
    pub cause: Cause,
    /// The standard reason phrase of the status (RFC 9457 §4.2.1, `about:blank`).
    pub title: &'static str,
    /// One fixed sentence for the client.
    pub detail: &'static str,
    /// Error type registered by RFC 9209 §2.3.
    pub proxy_status: &'static str,
    /// gRPC status code (SPEC §3).
    pub grpc: u8,
    /// A client's mistakes are DEBUG, what may pass by itself WARN, what needs
    /// an operator ERROR.
    pub level: Level,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u32>,
    /// `WWW-Authenticate`, when there is one.
    pub bearer: Option<Bearer>,
}

/// The challenge of RFC 6750 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// No credential was shown, so no error is named (RFC 6750 §3.1).
    Plain,
    /// `error="…"`.
    Error(&'static str),
}

/// The facts of a kind.
pub const fn facts(kind: Kind) -> Facts {
    let (status, cause, proxy_status, grpc, level) = row(kind);
    Facts {
        status,
        cause,
        title: title(status),
        detail: detail(kind),
        proxy_status,
        grpc,
        level,
        retry_after: retry_after(kind),
        bearer: bearer(kind),
    }
}

/// A failure as the record of a request takes it.
pub fn recorded(failure: Failure) -> RecordedFailure {
    let facts = facts(failure.kind);
    RecordedFailure {
        cause: facts.cause,
        level: facts.level,
        status: facts.status,
        detail: failure.detail,
    }
}

/// gRPC status codes by name (grpc/doc/statuscodes.md).
mod grpc {
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const FAILED_PRECONDITION: u8 = 9;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

/// Status, cause, RFC 9209 error type, gRPC status, log level.
#[rustfmt::skip] // a table reads best with one row a line
const fn row(kind: Kind) -> (u16, Cause, &'static str, u8, Level) {
    use Cause as C;
    const CLIENT: Level = Level::DEBUG;
    const PASSING: Level = Level::WARN;
    const OPERATOR: Level = Level::ERROR;
    match kind {
        Kind::BadRequest => (400, C::BadRequest, "http_request_error", grpc::INTERNAL, CLIENT),
        Kind::MethodNotAllowed => (405, C::BadRequest, "http_request_error", grpc::UNIMPLEMENTED, CLIENT),
        Kind::BodyTooLarge => (413, C::BadRequest, "http_request_error", grpc::RESOURCE_EXHAUSTED, CLIENT),
        Kind::UriTooLong => (414, C::BadRequest, "http_request_error", grpc::INTERNAL, CLIENT),
        Kind::HeadersTooLarge => (431, C::BadRequest, "http_request_error", grpc::RESOURCE_EXHAUSTED, CLIENT),
        Kind::ClientTimeout => (408, C::ClientTimeout, "http_request_error", grpc::DEADLINE_EXCEEDED, CLIENT),
        Kind::ClientClosed => (499, C::ClientClosed, "http_request_error", grpc::CANCELLED, CLIENT),
        Kind::CredentialMissing => (401, C::AuthDenied, "http_request_denied", grpc::UNAUTHENTICATED, CLIENT),
        Kind::CredentialAmbiguous => (400, C::AuthDenied, "http_request_denied", grpc::INTERNAL, CLIENT),
        Kind::CredentialInvalid => (401, C::AuthDenied, "http_request_denied", grpc::UNAUTHENTICATED, CLIENT),
        Kind::NotAllowed => (403, C::AuthDenied, "http_request_denied", grpc::PERMISSION_DENIED, CLIENT),
        Kind::AuthUnavailable => (503, C::AuthUnavailable, "proxy_internal_response", grpc::UNAVAILABLE, PASSING),
        Kind::UnknownService => (404, C::UnknownService, "destination_not_found", grpc::UNIMPLEMENTED, CLIENT),
        Kind::CrossSite => (403, C::AuthDenied, "http_request_denied", grpc::PERMISSION_DENIED, CLIENT),
        Kind::Misdirected => (421, C::BadRequest, "http_request_denied", grpc::UNAVAILABLE, CLIENT),
        Kind::NotFound => (404, C::UnknownService, "http_request_error", grpc::UNIMPLEMENTED, CLIENT),
        Kind::Loop => (508, C::Loop, "proxy_loop_detected", grpc::FAILED_PRECONDITION, PASSING),
        Kind::ConnectRefused => (502, C::UpstreamConnectRefused, "connection_refused", grpc::UNAVAILABLE, PASSING),
        Kind::ConnectTimeout => (504, C::UpstreamConnectTimeout, "connection_timeout", grpc::DEADLINE_EXCEEDED, PASSING),
        Kind::UpstreamClosed => (502, C::UpstreamClosed, "connection_terminated", grpc::UNAVAILABLE, PASSING),
        Kind::UpstreamProtocol => (502, C::UpstreamProtocol, "http_protocol_error", grpc::UNAVAILABLE, PASSING),
        Kind::UpgradeFailed => (502, C::UpgradeFailed, "http_upgrade_failed", grpc::UNAVAILABLE, PASSING),
        Kind::Dns => (502, C::Dns, "dns_error", grpc::UNAVAILABLE, PASSING),
        Kind::UpstreamTls => (502, C::UpstreamProtocol, "tls_protocol_error", grpc::UNAVAILABLE, PASSING),
        Kind::ResponseTimeout => (504, C::UpstreamResponseTimeout, "http_response_timeout", grpc::DEADLINE_EXCEEDED, PASSING),
        Kind::AppUnavailable => (503, C::AppUnavailable, "destination_unavailable", grpc::UNAVAILABLE, PASSING),
        Kind::Overloaded => (503, C::Overloaded, "connection_limit_reached", grpc::UNAVAILABLE, PASSING),
        Kind::CircuitOpen => (503, C::CircuitOpen, "destination_unavailable", grpc::UNAVAILABLE, PASSING),
        Kind::ConfigInvalid => (503, C::ConfigInvalid, "proxy_configuration_error", grpc::UNAVAILABLE, PASSING),
        Kind::DatabaseUnavailable => (503, C::DatabaseUnavailable, "destination_unavailable", grpc::UNAVAILABLE, PASSING),
        Kind::AnswerTooLarge => (507, C::BadRequest, "proxy_internal_response", grpc::RESOURCE_EXHAUSTED, CLIENT),
        Kind::TransactionExpired => (410, C::TxExpired, "proxy_internal_response", grpc::FAILED_PRECONDITION, CLIENT),
        Kind::Internal => (500, C::Internal, "proxy_internal_error", grpc::INTERNAL, OPERATOR),
    }
}

/// What the client is told. Reasons of a denial are for the log only.
const fn detail(kind: Kind) -> &'static str {
    match kind {
        Kind::BadRequest => "The request is malformed.",
        Kind::MethodNotAllowed => "The method is not allowed here.",
        Kind::BodyTooLarge => "The request body is larger than this service accepts.",
        Kind::UriTooLong => "The request target is longer than this service accepts.",
        Kind::HeadersTooLarge => "The request headers are larger than this service accepts.",
        Kind::ClientTimeout => "The request did not arrive in time.",
        Kind::ClientClosed => "The client closed the connection.",
        Kind::CredentialMissing => "A credential is required.",
        Kind::CredentialAmbiguous => "The request must carry exactly one credential of a kind.",
        Kind::CredentialInvalid => "The credential is not accepted.",
        Kind::NotAllowed => "The caller may not do this.",
        Kind::AuthUnavailable => "The caller cannot be authenticated at the moment.",
        Kind::UnknownService => "There is no service of this name here.",
        Kind::CrossSite => "Requests from web pages are not allowed here.",
        Kind::Misdirected => "This host name is not served here.",
        Kind::NotFound => "There is no such page here.",
        Kind::Loop => "The request passed through too many services.",
        Kind::ConnectRefused => "The service refused the connection.",
        Kind::ConnectTimeout => "The service did not accept the connection in time.",
        Kind::UpstreamClosed => "The service closed the connection before it answered.",
        Kind::UpstreamProtocol => "The service answered with a malformed response.",
        Kind::UpgradeFailed => "The service did not agree to the upgrade.",
        Kind::Dns => "The address of the service could not be resolved.",
        Kind::UpstreamTls => "No secure connection to the service could be made.",
        Kind::ResponseTimeout => "The service did not answer in time.",
        Kind::AppUnavailable => "The service is not available.",
        Kind::Overloaded => "Too many requests are being served.",
        Kind::CircuitOpen => "The service failed repeatedly and is not called for a while.",
        Kind::ConfigInvalid => "The configuration of this service is not valid.",
        Kind::DatabaseUnavailable => "The database is not available.",
        Kind::AnswerTooLarge => "The answer is larger than this door carries.",
        Kind::TransactionExpired => "The transaction is over.",
        Kind::Internal => "The sidecar failed to serve this request.",
    }
}

/// Only where waiting helps, so only on 503. One second where it is a matter of
/// load, five where something has to come back, thirty where a person has to act.
const fn retry_after(kind: Kind) -> Option<u32> {
    match kind {
        Kind::Overloaded => Some(1),
        Kind::AuthUnavailable
        | Kind::AppUnavailable
        | Kind::CircuitOpen
        | Kind::DatabaseUnavailable => Some(5),
        Kind::ConfigInvalid => Some(30),
        Kind::BadRequest
        | Kind::MethodNotAllowed
        | Kind::BodyTooLarge
        | Kind::UriTooLong
        | Kind::HeadersTooLarge
        | Kind::ClientTimeout
        | Kind::ClientClosed
        | Kind::CredentialMissing
        | Kind::CredentialAmbiguous
        | Kind::CredentialInvalid
        | Kind::NotAllowed
        | Kind::UnknownService
        | Kind::CrossSite
        | Kind::Misdirected
        | Kind::NotFound
        | Kind::Loop
        | Kind::ConnectRefused
        | Kind::ConnectTimeout
        | Kind::UpstreamClosed
        | Kind::UpstreamProtocol
        | Kind::UpgradeFailed
        | Kind::Dns
        | Kind::UpstreamTls
        | Kind::ResponseTimeout
        | Kind::AnswerTooLarge
        | Kind::TransactionExpired
        | Kind::Internal => None,
    }
}

/// RFC 6750 §3.1.
const fn bearer(kind: Kind) -> Option<Bearer> {
    match kind {
        Kind::CredentialMissing => Some(Bearer::Plain),
        Kind::CredentialAmbiguous => Some(Bearer::Error("invalid_request")),
        Kind::CredentialInvalid => Some(Bearer::Error("invalid_token")),
        Kind::NotAllowed => Some(Bearer::Error("insufficient_scope")),
        Kind::BadRequest
        | Kind::MethodNotAllowed
        | Kind::BodyTooLarge
        | Kind::UriTooLong
        | Kind::HeadersTooLarge
        | Kind::ClientTimeout
        | Kind::ClientClosed
        | Kind::AuthUnavailable
        | Kind::UnknownService
        | Kind::CrossSite
        | Kind::Misdirected
        | Kind::NotFound
        | Kind::Loop
        | Kind::ConnectRefused
        | Kind::ConnectTimeout
        | Kind::UpstreamClosed
        | Kind::UpstreamProtocol
        | Kind::UpgradeFailed
        | Kind::Dns
        | Kind::UpstreamTls
        | Kind::ResponseTimeout
        | Kind::AppUnavailable
        | Kind::Overloaded
        | Kind::CircuitOpen
        | Kind::ConfigInvalid
        | Kind::DatabaseUnavailable
        | Kind::AnswerTooLarge
        | Kind::TransactionExpired
        | Kind::Internal => None,
    }
}

/// Reason phrases (RFC 9110 §15, RFC 6585 §5, RFC 5842 §7.2) of the statuses
/// that the table holds; a test finds a missing one.
pub(super) const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_agrees_with_the_contract() {
        for kind in Kind::ALL {
            let facts = facts(kind);
            assert!(
                !facts.title.is_empty() && !facts.detail.is_empty(),
                "{kind:?}"
            );
            // SPEC §3: the statuses that fix a gRPC code.
            let fixed = match facts.status {
                400 => Some(grpc::INTERNAL),
                401 => Some(grpc::UNAUTHENTICATED),
                403 => Some(grpc::PERMISSION_DENIED),
                404 => Some(grpc::UNIMPLEMENTED),
                502 | 503 => Some(grpc::UNAVAILABLE),
                504 => Some(grpc::DEADLINE_EXCEEDED),
                508 => Some(grpc::FAILED_PRECONDITION),
                _ => None,
            };
            assert!(fixed.is_none_or(|code| code == facts.grpc), "{kind:?}");
            assert_eq!(facts.retry_after.is_some(), facts.status == 503, "{kind:?}");
            assert!(facts.status != 401 || facts.bearer.is_some(), "{kind:?}");
        }
    }

    #[test]
    fn the_whole_table() {
        let mut text = String::new();
        for kind in Kind::ALL {
            let Facts {
                status,
                cause,
                title,
                detail: _,
                proxy_status,
                grpc,
                level,
                retry_after,
                bearer,
            } = facts(kind);
            text += &format!(
                "{kind:?}: {status} {title} | {} | {proxy_status} | grpc {grpc} | {level} | {retry_after:?} | {bearer:?}\n",
                cause.as_str()
            );
        }
        insta::assert_snapshot!(text);
    }
}
