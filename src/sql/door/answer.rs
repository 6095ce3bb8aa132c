//! What a request may end in.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};

use crate::model::{Kind, ServiceName};
use crate::pg::backend::BadStatement;
use crate::pg::failure::{ConnectFailure, Lost, ServerError};
use crate::pg::pool::CheckoutFailure;
use crate::pg::value::write_string;
use crate::reply::{ReplyContext, facts, problem};
use crate::trace::{REQUEST_ID, RequestId};

/// Why there are no rows.
#[derive(Debug)]
pub(super) enum Refusal {
    /// By the table of [`crate::reply`], with a word that says more.
    Kind(Kind, Option<&'static str>),
    /// An error of the server about a statement; its index within a batch.
    Sql(Box<ServerError>, Option<usize>),
    /// The same, said by us.
    Statement { code: &'static str, message: String },
}

impl Refusal {
    pub(super) fn unavailable(reason: &'static str) -> Self {
        Self::Kind(Kind::DatabaseUnavailable, Some(reason))
    }

    /// An error of the server: about the statement, or about itself.
    pub(super) fn of(error: Box<ServerError>, index: Option<usize>) -> Self {
        match error.is_unavailability() {
            true => Self::unavailable(ConnectFailure::refused(*error).reason()),
            false => Self::Sql(error, index),
        }
    }

    /// One word for spans: SQLSTATE, our reason, or the cause.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Kind(_, Some(reason)) => reason,
            Self::Kind(kind, None) => facts(*kind).cause.as_str(),
            Self::Sql(error, _) => &error.code,
            Self::Statement { code, .. } => code,
        }
    }

    /// What says more than the cause; empty when nothing does.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Kind(_, Some(reason)) => reason,
            _ => "",
        }
    }

    /// The status and cause that metrics count.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Kind(kind, _) => Some(*kind),
            Self::Sql(..) | Self::Statement { .. } => None,
        }
    }
}

impl From<Kind> for Refusal {
    fn from(kind: Kind) -> Self {
        Self::Kind(kind, None)
    }
}

impl From<CheckoutFailure> for Refusal {
    fn from(failure: CheckoutFailure) -> Self {
        Self::unavailable(failure.reason())
    }
}

impl From<Arc<ConnectFailure>> for Refusal {
    fn from(failure: Arc<ConnectFailure>) -> Self {
        Self::unavailable(failure.reason())
    }
}

impl From<Lost> for Refusal {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Server(error) | Lost::Unreset(Some(error)) if error.is_unavailability() => {
                Self::of(error, None)
            }
            // Of the session alone: terminated, or idle in a transaction for too long.
            Lost::Server(error) => Self::Sql(error, None),
            Lost::TooLarge => Self::Kind(Kind::AnswerTooLarge, None),
            Lost::Io(_) | Lost::Closed => Self::unavailable("connection_lost"),
            Lost::Protocol => Self::unavailable("protocol"),
            Lost::Unreset(_) => Self::unavailable("reset_failed"),
            Lost::Copy => Self::Statement {
                code: "0A000",
                message: "COPY from and to the client is not carried by this door".to_owned(),
            },
        }
    }
}

impl From<BadStatement> for Refusal {
    fn from(bad: BadStatement) -> Self {
        let code = match bad {
            BadStatement::Nul => "22021",
            BadStatement::TooManyParameters | BadStatement::TooLong => "54000",
        };
        Self::Statement {
            code,
            message: bad.to_string(),
        }
    }
}

/// The answer for a refusal.
pub(super) fn refuse(
    refusal: &Refusal,
    service: Option<&ServiceName>,
    id: &RequestId,
    allow: &'static str,
) -> Response<Bytes> {
    let (error, index) = match refusal {
        Refusal::Kind(kind, reason) => {
            let mut context = ReplyContext::door(id.as_str());
            context.service = service;
            context.allow = allow;
            context.reason = *reason;
            return problem(*kind, &context);
        }
        Refusal::Sql(error, index) => (json_of(error, *index), *index),
        Refusal::Statement { code, message } => {
            let error = ServerError {
                severity: "ERROR".to_owned(),
                code: (*code).to_owned(),
                message: message.clone(),
                ..ServerError::default()
            };
            (json_of(&error, None), None)
        }
    };
    debug_assert!(index.is_none() || !error.is_empty());
    json(400, error, id)
}

/// The shape node-postgres and the Neon driver give to errors.
fn json_of(error: &ServerError, index: Option<usize>) -> Vec<u8> {
    let ServerError {
        severity,
        code,
        message,
        detail,
        hint,
        position,
        internal_position,
        internal_query,
        context,
        schema,
        table,
        column,
        data_type,
        constraint,
        file,
        line,
        routine,
    } = error;
    let mut output = b"{\"message\":".to_vec();
    write_string(message, &mut output);
    let mut member = |name: &str, value: Option<&str>| {
        output.extend_from_slice(b",\"");
        output.extend_from_slice(name.as_bytes());
        output.extend_from_slice(b"\":");
        match value {
            Some(value) => write_string(value, &mut output),
            None => output.extend_from_slice(b"null"),
        }
    };
    member("code", Some(code));
    member("severity", Some(severity));
    for (name, value) in [
        ("detail", detail),
        ("hint", hint),
        ("position", position),
        ("internalPosition", internal_position),
        ("internalQuery", internal_query),
        ("where", context),
        ("schema", schema),
        ("table", table),
        ("column", column),
        ("dataType", data_type),
        ("constraint", constraint),
        ("file", file),
        ("line", line),
        ("routine", routine),
    ] {
        member(name, value.as_deref());
    }
    if let Some(index) = index {
        output.extend_from_slice(format!(",\"queryIndex\":{index}").as_bytes());
    }
    output.extend_from_slice(b"}\n");
    output
}

/// JSON of ours.
pub(super) fn json(status: u16, body: Vec<u8>, id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).expect("the door uses statuses of three digits");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id.value().clone());
    response
}

/// 201 with the place of a new transaction.
pub(super) fn created(location: &str, body: Vec<u8>, id: &RequestId) -> Response<Bytes> {
    let mut response = json(201, body, id);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
