//! A request as the app is to see it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use http_body::Body;

use super::{Arrival, ClientSide};
use crate::auth::Allowed;
use crate::forward::{self, Client, HopRequest, Seen, TrailerRule};
use crate::model::{Failure, FieldLines, Kind, Limits, LineStart, UpstreamProtocol, UpstreamSpec};
use crate::net::ClientBody;
use crate::reply;
use crate::snapshot::Ready;
use crate::trace::{self, REQUEST_ID_START, RequestId};
use crate::upstream::RequestBody;
use crate::upstream::h1::{Framing, RequestHead};

/// Room for as much as a traced request of an authenticated caller usually has,
/// and as glibc keeps at hand: more than a kibibyte costs three times as much.
const OUR_BYTES: usize = 768;

/// Refuses what is larger than the service allows, before a byte of the body is read.
pub(super) fn check_limits(
    limits: &Limits,
    parts: &Parts,
    body: &ClientBody,
) -> Result<(), Failure> {
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

/// What a request is made into the app's with.
pub(super) struct Onward<'a> {
    pub(super) ready: &'a Ready,
    /// The one the request goes to.
    pub(super) upstream: &'a UpstreamSpec,
    pub(super) client_side: &'a ClientSide,
    pub(super) request_id: Option<&'a RequestId>,
    /// Where tracing is on.
    pub(super) trace: Option<&'a trace::Context>,
}

impl Onward<'_> {
    /// Takes the request apart and makes the app's (HOP-3): hop-by-hop fields
    /// go, then what authentication removes; ours are set last. What is left of
    /// the request is given back.
    pub(super) fn request(
        &self,
        arrival: Arrival,
        allowed: Allowed,
    ) -> Result<(RequestHead, RequestBody, Box<Parts>), Failure> {
        let Arrival {
            mut parts,
            seen,
            body,
            host,
            client,
        } = arrival;
        let multiplexed = parts.version == Version::HTTP_2;
        let grpc = multiplexed && seen.has(Seen::CONTENT_TYPE) && reply::is_grpc(&parts.headers);
        let headers = &mut parts.headers;
        let asked = forward::strip_request(headers, seen)?;
        for name in &allowed.remove {
            headers.remove(name);
        }
        let ours = self.ours(headers, (&host, client), &asked, &allowed.set);
        let framing = forward::onward_framing(headers, seen, &body);
        let upgrade = asked
            .upgrade
            .as_ref()
            // With a body it would be unclear where the new protocol begins.
            .filter(|_| parts.version == Version::HTTP_11 && framing == Framing::None)
            .and_then(|offered| forward::allowed_upgrade(&self.ready.spec.upgrades, offered));
        let http2 = match self.upstream.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::H2c => upgrade.is_none(),
            UpstreamProtocol::Auto => grpc,
        };
        let head = RequestHead {
            method: std::mem::take(&mut parts.method),
            target: forward::onward_target(&parts.uri),
            headers: std::mem::take(&mut parts.headers),
            ours,
            framing,
            upgrade,
            http2,
        };
        Ok((head, self.body(body, framing, &asked, multiplexed), parts))
    }

    /// What is said of the request here. Nothing that the client says by the
    /// same name is sent.
    fn ours(
        &self,
        headers: &mut HeaderMap,
        (host, client): (&HeaderValue, Client),
        asked: &HopRequest,
        set: &FieldLines,
    ) -> FieldLines {
        let mut ours = FieldLines::with_capacity(OUR_BYTES);
        let side = self.client_side;
        ours.line(LineStart::new("host: ")).value(host).end();
        let peer = (side.peer, &side.peer_value);
        forward::write_forwarding(headers, &mut ours, client, peer, host, side.tls);
        if let Some(id) = self.request_id {
            id.end_line(ours.line(REQUEST_ID_START));
        }
        if let (Some(context), Some(tracing)) = (self.trace, &self.ready.spec.tracing) {
            context.write(headers, &mut ours, &tracing.propagate);
        }
        if asked.accepts_trailers {
            ours.line(LineStart::new("te: ")).text("trailers").end();
        }
        ours.set_all(set);
        ours
    }

    fn body(
        &self,
        body: ClientBody,
        framing: Framing,
        asked: &HopRequest,
        multiplexed: bool,
    ) -> RequestBody {
        let limit = self.ready.spec.limits.body_bytes;
        match framing {
            Framing::None => RequestBody::empty(),
            Framing::Length(_) => RequestBody::client(body, limit, None),
            Framing::Chunked => {
                let rule = match multiplexed {
                    true => TrailerRule::AnyName,
                    // HTTP/1 trailers pass if announced, and not named by Connection.
                    false => TrailerRule::Announced(asked.trailers.clone()),
                };
                let reserved = Arc::clone(&self.ready.reserved);
                let filter = forward::trailer_filter(reserved, rule);
                RequestBody::client(body, limit, Some(filter))
            }
        }
    }
}

/// HTTP/2 clients may send `Cookie` in pieces; nobody else knows it so
/// (RFC 9113 §8.2.3).
pub(super) fn join_cookies(parts: &mut Parts) {
    if parts.version != Version::HTTP_2 {
        return;
    }
    let headers = &mut parts.headers;
    let mut pieces = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(Bytes::from(joined))
        .expect("legal values joined by legal bytes");
    headers.insert(COOKIE, joined);
}
