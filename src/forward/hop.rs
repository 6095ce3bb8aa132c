//! What belongs to one hop and must not pass (RFC 9110 §7.6.1).

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client::is_forwarding;
use super::reserved::{Reserved, fold, remove_where};
use super::seen::Seen;
use crate::model::{Failure, Kind};
use crate::upstream::{TrailerFilter, is_hop_by_hop};

/// What a request's hop-by-hop fields asked for, before they were removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HopRequest {
    /// The client accepts trailers (`TE: trailers`).
    pub accepts_trailers: bool,
    /// The tokens of `Upgrade`, when `Connection` names it.
    pub upgrade: Option<HeaderValue>,
    /// Fields announced by `Trailer` and not named by `Connection`.
    pub trailers: Names,
}

/// Removes the hop-by-hop fields of a request (HOP-1, HOP-2), of which `seen`
/// tells.
///
/// # Errors
/// `bad_request` where `Connection` names `host` or `content-length` (HOP-4):
/// removing them would change what the request means.
pub fn strip_request(headers: &mut HeaderMap, seen: Seen) -> Result<HopRequest, Failure> {
    let mut asked = HopRequest::default();
    let named = match seen.has(Seen::CONNECTION) {
        true => named_by_connection(headers),
        false => Names::new(),
    };
    if named.contains(&header::HOST) || named.contains(&header::CONTENT_LENGTH) {
        return Err(Failure::because(
            Kind::BadRequest,
            "Connection names a field that frames or routes the request",
        ));
    }
    if seen.has(Seen::TE) {
        asked.accepts_trailers = headers.get_all(header::TE).iter().any(|value| {
            tokens(value).any(|token| {
                let coding = token.split(|byte| *byte == b';').next().unwrap_or_default();
                coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
            })
        });
    }
    if named.contains(&header::UPGRADE) {
        asked.upgrade = headers.get(header::UPGRADE).cloned();
    }
    if seen.has(Seen::TRAILER) {
        asked.trailers = announced(headers, &named);
    }
    if seen.has(Seen::HOP_BY_HOP) {
        strip(headers, &named);
    }
    if seen.has(Seen::EXPECT) {
        // Answered by us once the body is wanted (RFC 9110 §10.1.1).
        headers.remove(header::EXPECT);
    }
    Ok(asked)
}

/// Removes the hop-by-hop fields of a response; returns what `Connection`
/// named, which may not come as a trailer either.
pub fn strip_response(headers: &mut HeaderMap) -> Names {
    let named = named_by_connection(headers);
    strip(headers, &named);
    named
}

/// Which trailers of a request may pass.
pub enum TrailerRule {
    /// HTTP/2: there is no `Connection` that could name one.
    AnyName,
    /// HTTP/1: these.
    Announced(Names),
}

/// Cleans the trailers of a request: they follow the rules of headers (HOP-1,
/// HOP-2, ID-1), and may say nothing about framing, routing, credentials or
/// the client's address (RFC 9110 §6.5.1).
pub fn trailer_filter(reserved: Arc<Reserved>, rule: TrailerRule) -> TrailerFilter {
    Rc::new(move |trailers| {
        if let TrailerRule::Announced(names) = &rule {
            remove_where(trailers, |name| !names.contains(name));
        }
        remove_where(trailers, |name| {
            reserved.contains(name) || is_forwarding(name) || is_credential(name)
        });
        strip_trailers(trailers);
    })
}

/// However it is spelled: many app servers fold `_` and `-` together.
fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
        || *name == header::COOKIE
        || name.as_str().bytes().map(fold).eq(*b"x-api-key")
}

/// The names in `Trailer`, without those in `named`.
fn announced(headers: &HeaderMap, named: &Names) -> Names {
    headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(tokens)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !named.contains(name))
        .collect()
}

/// Removes from decoded trailers what may not stand there: hop-by-hop and
/// framing fields (RFC 9110 §6.5.1).
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    let named = named_by_connection(trailers);
    strip(trailers, &named);
    trailers.remove(header::CONTENT_LENGTH);
    trailers.remove(header::HOST);
    trailers.remove(header::TRAILER);
}

fn strip(headers: &mut HeaderMap, named: &Names) {
    for name in named {
        if *name != header::CONTENT_LENGTH && *name != header::HOST {
            headers.remove(name);
        }
    }
    remove_where(headers, is_hop_by_hop);
}

/// Field names of one request: mostly none, so no room is carried along.
pub type Names = Vec<HeaderName>;

/// Every field that any `Connection` line names. Tokens that are no field name
/// name nothing; `keep-alive`, which nearly every line has, always goes.
fn named_by_connection(headers: &HeaderMap) -> Names {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect()
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn every_connection_line_counts() {
        let mut map = headers(&[
            ("connection", "close, x-a"),
            ("connection", " X-B ,,"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("te", "trailers, gzip;q=0.5"),
            ("transfer-encoding", "chunked"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("expect", "100-continue"),
        ]);
        let seen = Seen::of(&map);
        let asked = strip_request(&mut map, seen).expect("legal");
        assert!(asked.accepts_trailers);
        assert_eq!(map, headers(&[("x-c", "3")]));
    }

    #[test]
    fn trailers_pass_when_announced_and_harmless() {
        let mut map = headers(&[
            ("connection", "x-named"),
            (
                "trailer",
                "x-sum, x-named, x-auth-subject, authorization, x_forwarded_for, x_api_key",
            ),
        ]);
        let seen = Seen::of(&map);
        let asked = strip_request(&mut map, seen).expect("legal");
        let mut trailers = headers(&[
            ("x-sum", "1"),
            ("x-named", "1"),
            ("x-auth-subject", "1"),
            ("authorization", "1"),
            ("x_forwarded_for", "1"),
            ("x_api_key", "1"),
            ("x-unannounced", "1"),
        ]);
        let reserved = Arc::new(Reserved::new([]));
        trailer_filter(reserved, TrailerRule::Announced(asked.trailers))(&mut trailers);
        assert_eq!(trailers, headers(&[("x-sum", "1")]));
    }

    #[test]
    fn host_and_content_length_cannot_be_named_away() {
        for token in ["host", "Content-Length", "close, HOST"] {
            let mut map = headers(&[("host", "a"), ("content-length", "0")]);
            map.append("connection", HeaderValue::from_str(token).expect("legal"));
            let seen = Seen::of(&map);
            assert_eq!(
                strip_request(&mut map, seen).expect_err(token).kind,
                Kind::BadRequest
            );
        }
    }

    #[test]
    fn an_upgrade_counts_only_when_connection_names_it() {
        let mut map = headers(&[("upgrade", "websocket")]);
        let seen = Seen::of(&map);
        assert_eq!(strip_request(&mut map, seen).expect("legal").upgrade, None);
        let mut map = headers(&[("upgrade", "websocket"), ("connection", "Upgrade")]);
        let seen = Seen::of(&map);
        let asked = strip_request(&mut map, seen).expect("legal");
        assert!(asked.upgrade.is_some());
        assert!(map.is_empty());
    }
}
