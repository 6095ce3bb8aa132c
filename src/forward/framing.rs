//! How a request's body and protocol switch go on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, Version};
use http_body::Body;

use super::seen::Seen;
use crate::model::{Failure, Kind};
use crate::net::ClientBody;
use crate::upstream::h1::{Framing, Target};

/// Refuses framing that two parsers could read differently (SMUG-1, SMUG-2).
///
/// # Errors
/// `bad_request`.
pub fn check_framing(parts: &Parts, seen: Seen) -> Result<(), Failure> {
    if !seen.has(Seen::TRANSFER_ENCODING) {
        return Ok(());
    }
    let refuse = |reason: &'static str| Err(Failure::because(Kind::BadRequest, reason));
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if parts.headers.contains_key(CONTENT_LENGTH) {
        return refuse("Transfer-Encoding beside Content-Length");
    }
    if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
        return refuse("Transfer-Encoding other than exactly chunked");
    }
    if parts.version != Version::HTTP_11 {
        return refuse("Transfer-Encoding outside HTTP/1.1");
    }
    Ok(())
}

/// The body's framing on the next hop follows from what was received, never
/// from what the client's framing fields say beyond that (SMUG-6).
pub fn onward_framing(headers: &mut HeaderMap, seen: Seen, body: &ClientBody) -> Framing {
    let declared = seen.has(Seen::CONTENT_LENGTH) && headers.remove(CONTENT_LENGTH).is_some();
    match body.size_hint().exact() {
        Some(0) if !declared => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// Path and query as received; an absolute target without a path has `/`
/// (RFC 9112 §3.2.1).
pub fn onward_target(uri: &Uri) -> Target {
    match uri.path_and_query() {
        None => Target::Made(Bytes::from_static(b"/")),
        Some(target) => match target.as_str() {
            query if query.starts_with('?') => Target::Made(Bytes::from(format!("/{query}"))),
            _ => Target::Received(target.clone()),
        },
    }
}

/// The first offered protocol that may pass (UPG-1). `h2c` never does.
pub fn allowed_upgrade(allowed: &[Arc<str>], offered: &HeaderValue) -> Option<Bytes> {
    offered
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .find(|token| {
            !token.eq_ignore_ascii_case(b"h2c")
                && allowed
                    .iter()
                    .any(|known| known.as_bytes().eq_ignore_ascii_case(token))
        })
        .map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(version: Version, fields: &[(&str, &str)]) -> Result<(), Failure> {
        let mut request = Request::builder().version(version).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).expect("legal").into_parts().0;
        check_framing(&parts, Seen::of(&parts.headers))
    }

    #[test]
    fn framing_is_plain_or_refused() {
        let te = ("transfer-encoding", "chunked");
        assert!(check(Version::HTTP_11, &[te]).is_ok());
        assert!(check(Version::HTTP_11, &[te, ("content-length", "3")]).is_err());
        assert!(check(Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")]).is_err());
        assert!(check(Version::HTTP_11, &[te, te]).is_err());
        assert!(check(Version::HTTP_10, &[te]).is_err());
    }
}
