//! The bytes of an answer: problem document, `Proxy-Status`, raw responses.

use std::time::SystemTime;

use bytes::Bytes;

use super::facts::{Facts, facts};
use crate::model::{Kind, ServiceName};

/// The problem document (RFC 9457) of SPEC §9. `type` is `about:blank`: the
/// status says what kind of problem it is, `cause` says whose.
pub(super) fn problem_json(
    facts: &Facts,
    request_id: Option<&str>,
    trace_id: Option<&str>,
    reason: Option<&'static str>,
) -> Vec<u8> {
    let mut json = Vec::with_capacity(320);
    json.extend_from_slice(b"{\"type\":\"about:blank\"");
    member(&mut json, "title", facts.title);
    json.extend_from_slice(b",\"status\":");
    json.extend_from_slice(itoa::Buffer::new().format(facts.status).as_bytes());
    member(&mut json, "detail", facts.detail);
    member(&mut json, "error", facts.title);
    member(&mut json, "cause", facts.cause.as_str());
    if let Some(reason) = reason {
        member(&mut json, "reason", reason);
    }
    if let Some(id) = request_id {
        member(&mut json, "requestId", id);
    }
    if let Some(id) = trace_id {
        member(&mut json, "traceId", id);
    }
    json.extend_from_slice(b"}\n");
    json
}

/// Appends `,"name":"value"`. Ids were validated or made here and the rest is
/// fixed text; whatever would need escaping in JSON is left out all the same.
fn member(json: &mut Vec<u8>, name: &str, value: &str) {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":\"");
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    json.extend(value.bytes().filter(plain));
    json.push(b'"');
}

/// Value of `Proxy-Status` (RFC 9209 §2, an RFC 8941 item with one parameter):
/// `users.shop; error=connection_refused`; `outrigger` for a door without a
/// service.
pub fn proxy_status(service: Option<&ServiceName>, kind: Kind) -> String {
    let error = facts(kind).proxy_status;
    let Some(service) = service else {
        return format!("outrigger; error={error}");
    };
    let (name, domain) = (service.name(), service.domain());
    // A token begins with a letter (RFC 8941 §3.3.4); names may begin with a
    // digit and are then written as a string, which needs no escapes here.
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        format!("{name}.{domain}; error={error}")
    } else {
        format!("\"{name}.{domain}\"; error={error}")
    }
}

/// A complete HTTP/1.1 response for a connection without a request:
/// 408 where a head never came, 503 where a connection is one too many. The
/// connection is closed after it.
pub fn raw(kind: Kind, service: Option<&ServiceName>) -> Bytes {
    raw_at(kind, service, SystemTime::now())
}

fn raw_at(kind: Kind, service: Option<&ServiceName>, now: SystemTime) -> Bytes {
    let facts = facts(kind);
    let body = problem_json(&facts, None, None, None);
    let retry = facts
        .retry_after
        .map(|seconds| format!("retry-after: {seconds}\r\n"))
        .unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {}\r\n\
         content-type: application/problem+json\r\n\
         content-length: {}\r\n\
         cache-control: no-store\r\n\
         proxy-status: {}\r\n\
         {retry}date: {}\r\n\
         connection: close\r\n\r\n",
        facts.status,
        facts.title,
        body.len(),
        proxy_status(service, kind),
        httpdate::fmt_http_date(now),
    );
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body);
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn raw_answers_are_whole_responses() {
        let service = ServiceName::new("shop", "users").expect("valid");
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut text = String::new();
        for kind in [Kind::ClientTimeout, Kind::Overloaded] {
            let bytes = raw_at(kind, Some(&service), now);
            let answer = String::from_utf8(bytes.to_vec()).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("content-length: {}", body.len())));
            serde_json::from_str::<serde_json::Value>(body).expect("json");
            text += &answer.replace('\r', "");
            text += "--\n";
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn proxy_status_is_a_structured_item() {
        let named = |domain, name| ServiceName::new(domain, name).expect("valid");
        let status = |service: Option<ServiceName>| proxy_status(service.as_ref(), Kind::Dns);
        assert_eq!(
            status(Some(named("shop", "users"))),
            "users.shop; error=dns_error"
        );
        assert_eq!(
            status(Some(named("shop", "3d"))),
            "\"3d.shop\"; error=dns_error"
        );
        assert_eq!(status(None), "outrigger; error=dns_error");
    }

    #[test]
    fn nothing_escapes_a_json_string() {
        let json = problem_json(&facts(Kind::Dns), Some("a\"\\\n\u{7f}ä"), None, None);
        let value: serde_json::Value = serde_json::from_slice(&json).expect("json");
        assert_eq!(value["requestId"], "a");
    }
}
