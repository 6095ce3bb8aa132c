//! A request as the app is to see it.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use hyper::body::Incoming;

use super::site::Local;
use super::{Arrival, ClientSide};
use crate::auth::Allowed;
use crate::forward;
use crate::model::{Failure, Kind, Limits};
use crate::snapshot::Ready;
use crate::telemetry::record::Record;
use crate::trace::REQUEST_ID;
use crate::upstream::RequestBody;
use crate::upstream::h1::{Framing, RequestHead};

/// Refuses what is larger than the service allows, before a byte of the body is read.
pub(super) fn check_limits(limits: &Limits, parts: &Parts, body: &Incoming) -> Result<(), Failure> {
    let target_bytes = parts
        .uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    if target_bytes > limits.uri_bytes as usize {
        return Err(Failure::new(Kind::UriTooLong));
    }
    if parts.headers.len() > limits.header_count as usize
        || head_bytes(&parts.headers) > limits.header_bytes as usize
    {
        return Err(Failure::new(Kind::HeadersTooLarge));
    }
    if limits
        .body_bytes
        .is_some_and(|most| body.size_hint().lower() > most)
    {
        return Err(Failure::new(Kind::BodyTooLarge));
    }
    Ok(())
}

/// Names, values and separators.
fn head_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// Takes the request apart and makes the app's (HOP-3): hop-by-hop fields go,
/// then what authentication removes; ours are set last.
pub(super) fn request(
    ready: &Ready,
    local: &Local,
    arrival: Arrival,
    allowed: Allowed,
    client_side: ClientSide,
    record: &Record,
) -> Result<(RequestHead, RequestBody), Failure> {
    let Arrival {
        mut parts,
        body,
        host,
        client,
        ..
    } = arrival;
    let headers = &mut parts.headers;
    let asked = forward::strip_request(headers)?;
    for name in &allowed.remove {
        headers.remove(name);
    }
    forward::write_forwarding(headers, client, client_side.peer, &host, client_side.tls);
    headers.insert(HOST, host);
    if let Some(id) = &record.request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
    if asked.accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    for (name, value) in allowed.set {
        headers.insert(name, value);
    }
    let framing = framing(headers, &body);
    let limit = ready.spec.limits.body_bytes;
    let body = match framing {
        Framing::None => RequestBody::empty(),
        Framing::Length(_) | Framing::Chunked => {
            RequestBody::client(body, limit, local.trailer_filter.clone())
        }
    };
    let target = parts.uri.path_and_query().map_or_else(
        || Bytes::from_static(b"/"),
        |target| Bytes::copy_from_slice(target.as_str().as_bytes()),
    );
    let head = RequestHead {
        method: parts.method,
        target,
        headers: parts.headers,
        framing,
        upgrade: None,
    };
    Ok((head, body))
}

/// The body's framing toward the app follows from what was received, never from
/// what the client's framing fields say beyond that (SMUG-6).
fn framing(headers: &mut HeaderMap, body: &Incoming) -> Framing {
    let declared = headers.remove(CONTENT_LENGTH).is_some();
    match body.size_hint().exact() {
        Some(0) if !declared => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}
