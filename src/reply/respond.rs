//! Answers for requests.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::{problem_json, proxy_status};
use super::facts::{Bearer, Facts, facts};
use crate::model::{Kind, ServiceName};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Methods a service port forwards: everything but `CONNECT`.
const SERVICE_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// What an answer says about the request it answers.
#[derive(Debug, Clone, Copy)]
pub struct ReplyContext<'a> {
    /// `None` on a door that stands for no service.
    pub service: Option<&'a ServiceName>,
    /// Validated or made here; empty when the request never got one.
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    /// The request is gRPC ([`is_grpc`]): the answer is trailers-only.
    pub grpc: bool,
    /// The request is HEAD: headers as for GET, no body.
    pub head: bool,
    /// `Allow` of a 405.
    pub allow: &'static str,
    /// A word that says more than the cause does; part of the contract of the
    /// door that sets it.
    pub reason: Option<&'static str>,
}

impl<'a> ReplyContext<'a> {
    /// A request to a service's port.
    pub const fn new(service: &'a ServiceName, request_id: &'a str) -> Self {
        Self {
            service: Some(service),
            request_id,
            trace_id: None,
            grpc: false,
            head: false,
            allow: SERVICE_METHODS,
            reason: None,
        }
    }

    /// A request to a door that stands for no service.
    pub const fn door(request_id: &'a str) -> Self {
        Self {
            service: None,
            request_id,
            trace_id: None,
            grpc: false,
            head: false,
            allow: "GET, HEAD",
            reason: None,
        }
    }
}

/// Whether a request speaks gRPC: `application/grpc`, with any suffix
/// (`+proto`) or parameter. gRPC-Web is plain HTTP and gets plain answers.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The answer for a failure of this kind. `x-request-id` is set from the
/// context; trace headers are the caller's to add.
pub fn problem(kind: Kind, context: &ReplyContext<'_>) -> Response<Bytes> {
    let facts = facts(kind);
    let mut response = if context.grpc {
        trailers_only(&facts)
    } else {
        document(&facts, context)
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    insert(headers, PROXY_STATUS, proxy_status(context.service, kind));
    if !context.request_id.is_empty() {
        insert(headers, REQUEST_ID, context.request_id);
    }
    if let Some(bearer) = facts.bearer {
        insert(
            headers,
            WWW_AUTHENTICATE,
            challenge(bearer, context.service),
        );
    }
    if let Some(seconds) = facts.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if kind == Kind::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static(context.allow));
    }
    response
}

fn document(facts: &Facts, context: &ReplyContext<'_>) -> Response<Bytes> {
    let request_id = Some(context.request_id).filter(|id| !id.is_empty());
    let body = problem_json(facts, request_id, context.trace_id, context.reason);
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(if context.head {
        Bytes::new()
    } else {
        Bytes::from(body)
    });
    *response.status_mut() =
        StatusCode::from_u16(facts.status).expect("the table holds statuses of three digits");
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CONTENT_LENGTH, length);
    response
}

/// gRPC's trailers-only form: 200, the status among the headers, no body
/// (grpc/doc/PROTOCOL-HTTP2.md). On HTTP/1.1 the body has length zero.
fn trailers_only(facts: &Facts) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(facts.grpc)));
    // Fixed texts are printable ASCII without `%`, so they need no encoding.
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(facts.detail));
    response
}

/// RFC 6750 §3; the realm is the bare service name.
fn challenge(bearer: Bearer, service: Option<&ServiceName>) -> String {
    let realm = service.map_or("outrigger", ServiceName::name);
    match bearer {
        Bearer::Plain => format!("Bearer realm=\"{realm}\""),
        Bearer::Error(error) => format!("Bearer realm=\"{realm}\", error=\"{error}\""),
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: impl AsRef<str>) {
    // Names, fixed words and validated ids are always legal header values; if
    // one were not, an answer without the header is better than none.
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(response: &Response<Bytes>) -> String {
        let mut text = format!("{}\n", response.status());
        for (name, value) in response.headers() {
            text += &format!("{name}: {}\n", value.to_str().expect("visible"));
        }
        text + std::str::from_utf8(response.body()).expect("text") + "\n"
    }

    #[test]
    fn every_body() {
        let service = ServiceName::new("shop", "users").expect("valid");
        let mut text = String::new();
        for kind in Kind::ALL {
            let mut context = ReplyContext::new(&service, "req-1");
            context.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736");
            let response = problem(kind, &context);
            serde_json::from_slice::<serde_json::Value>(response.body()).expect("json");
            text += &format!("--- {kind:?}\n{}", print(&response));
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn grpc_callers_get_trailers_only() {
        let service = ServiceName::new("shop", "users").expect("valid");
        let mut text = String::new();
        for kind in Kind::ALL {
            let mut context = ReplyContext::new(&service, "req-1");
            context.grpc = true;
            let response = problem(kind, &context);
            assert_eq!(response.status(), 200);
            assert!(response.body().is_empty());
            assert!(!facts(kind).detail.contains('%') && facts(kind).detail.is_ascii());
            text += &format!("--- {kind:?}\n{}", print(&response));
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn head_keeps_the_length_and_drops_the_body() {
        let mut context = ReplyContext::door("");
        let length = problem(Kind::UnknownService, &context).body().len();
        context.head = true;
        let response = problem(Kind::UnknownService, &context);
        assert!(response.body().is_empty());
        assert_eq!(response.headers()[CONTENT_LENGTH], length.to_string());
        assert!(!response.headers().contains_key("x-request-id"));
    }

    #[test]
    fn grpc_is_told_by_the_media_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
