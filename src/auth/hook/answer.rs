//! What a hook's answer means.

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    SET_COOKIE, WWW_AUTHENTICATE,
};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;

use std::sync::Arc;

use crate::auth::call::Call;
use crate::auth::named::{Named, faithful};
use crate::model::{AuthReason, FieldLines, Identity, Strategy};
use crate::upstream::{UpstreamBody, UpstreamResponse};

use super::question::{original_url, path_and_query};
use super::{Grant, Hook, Word};

/// A refusal's body that is relayed, at most.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Of a refusal's headers, what the client gets to see.
const RELAYED: [HeaderName; 5] = [
    LOCATION,
    SET_COOKIE,
    WWW_AUTHENTICATE,
    CONTENT_TYPE,
    RETRY_AFTER,
];

/// A word and whether it may be given again to the same question.
pub(super) struct Answer {
    pub(super) word: Word,
    pub(super) cacheable: bool,
}

/// Reads an answer whose head is complete. The head alone decides: a body that
/// does not come before `deadline` is left out.
pub(super) async fn read(
    hook: &Hook,
    response: Box<UpstreamResponse>,
    deadline: Instant,
) -> Answer {
    let UpstreamResponse {
        status,
        fields,
        body,
        ..
    } = *response;
    let headers = fields.into_map();
    let cacheable = !headers.contains_key(SET_COOKIE);
    let word = match status.as_u16() {
        200..=299 => {
            // Read so that the connection can be used again; its content is nothing.
            let _read = collect(body, deadline).await;
            Word::Granted(Arc::new(grant(hook, &headers)))
        }
        408 | 429 => Word::Failed(AuthReason::HookAnswer),
        300..=499 => Word::Denied(Arc::new(relay(
            status,
            &headers,
            collect(body, deadline).await,
        ))),
        _ => Word::Failed(AuthReason::HookAnswer),
    };
    Answer { word, cacheable }
}

/// The body, unless it is too large, too slow or breaks off.
async fn collect(body: UpstreamBody, deadline: Instant) -> Option<Bytes> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = tokio::time::timeout_at(deadline, body).await.ok()?.ok()?;
    Some(body.to_bytes())
}

fn grant(hook: &Hook, headers: &HeaderMap) -> Grant {
    let subject = hook.subject_headers.iter().find_map(|name| {
        let text = headers.get(name)?.to_str().ok()?;
        faithful(text).map(|_| Arc::from(text))
    });
    let mut told = FieldLines::default();
    for name in &hook.response_headers {
        if let Some(value) = joined(headers, name) {
            told.set(name, &value);
        }
    }
    Grant {
        named: Named::new(Identity {
            strategy: Strategy::Custom,
            subject,
            service: None,
        }),
        headers: told,
    }
}

/// All values of a field as one (RFC 9110 §5.2).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let rest: Vec<_> = values.collect();
    if rest.is_empty() {
        return Some(first.clone());
    }
    let mut bytes = first.as_bytes().to_vec();
    for value in rest {
        bytes.extend_from_slice(b", ");
        bytes.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&bytes).ok()
}

/// The refusal the client sees. Without a body where the hook's was too much: it
/// stays a refusal all the same.
fn relay(status: StatusCode, headers: &HeaderMap, body: Option<Bytes>) -> Response<Bytes> {
    let has_body = body.as_ref().is_some_and(|body| !body.is_empty());
    let mut response = Response::new(body.unwrap_or_default());
    *response.status_mut() = status;
    let answer = response.headers_mut();
    for name in &RELAYED {
        if *name == CONTENT_TYPE && !has_body {
            continue;
        }
        for value in headers.get_all(name) {
            answer.append(name, value.clone());
        }
    }
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a person is in front of it: a page is asked for, not data by a script.
pub(super) fn is_navigation(call: &Call<'_>) -> bool {
    let text = |name: &str| {
        let value = call.headers.get(name)?;
        value.to_str().ok()
    };
    if !matches!(*call.method, Method::GET | Method::HEAD)
        || text("x-requested-with").is_some()
        || text("sec-fetch-mode").is_some_and(|mode| mode != "navigate")
    {
        return false;
    }
    call.headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|accept| accept.contains("text/html"))
}

/// 302 to the sign-in page, which learns where to come back to by `rd`, as
/// oauth2-proxy and Authelia call it: a path if the page is a path of this host,
/// else the whole URL.
pub(super) fn sign_in(page: &str, call: &Call<'_>, denial: &Response<Bytes>) -> Response<Bytes> {
    let back = if page.starts_with('/') {
        path_and_query(call)
    } else {
        original_url(call)
    };
    let separator = if page.contains('?') { '&' } else { '?' };
    let location = format!("{page}{separator}rd={}", percent_encoded(&back));
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&location) {
        headers.insert(LOCATION, value);
    }
    for value in denial.headers().get_all(SET_COOKIE) {
        headers.append(SET_COOKIE, value.clone());
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Everything but RFC 3986 unreserved characters.
fn percent_encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() * 2);
    let digit = |value: u8| {
        DIGITS
            .get(usize::from(value))
            .copied()
            .map_or('0', char::from)
    };
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(digit(byte >> 4));
            encoded.push(digit(byte & 15));
        }
    }
    encoded
}
