//! The upstream's answer, made the client's.

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};

use super::AnswerBody;
use super::hop::strip_response;
use crate::model::{Failure, FieldLines, Kind, LineStart};
use crate::trace::{REQUEST_ID_START, RequestId};
use crate::upstream::h1::Switched;
use crate::upstream::{UpstreamBody, UpstreamFields, UpstreamResponse};

/// The upstream's answer, cleaned of what belongs to its connection. `memory` is
/// for what is set in it.
pub fn relay(response: UpstreamResponse, memory: Vec<u8>) -> Response<AnswerBody> {
    let UpstreamResponse {
        status,
        fields,
        named,
        body,
        ..
    } = response;
    let (headers, relayed, named) = match (fields, named) {
        (UpstreamFields::Came(mut relayed), named) => {
            relayed.lend(memory);
            (HeaderMap::new(), Some(relayed), named.unwrap_or_default())
        }
        (UpstreamFields::Map(mut headers), named) => {
            let named = named.unwrap_or_else(|| strip_response(&mut headers));
            (headers, None, named)
        }
    };
    let mut response = Response::new(AnswerBody::Upstream {
        body,
        named,
        relayed,
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Sets fields of ours in an answer; what the upstream said there goes.
pub fn set_fields(response: &mut Response<AnswerBody>, write: impl FnOnce(&mut FieldLines)) {
    if let AnswerBody::Upstream {
        relayed: Some(relayed),
        ..
    } = response.body_mut()
    {
        return write(relayed.ours());
    }
    let mut ours = FieldLines::default();
    write(&mut ours);
    ours.insert_into(response.headers_mut());
}

/// Says in an answer which request it is for, and whether it is the last one of
/// its connection.
pub fn sign(response: &mut Response<AnswerBody>, id: &RequestId, closes: bool) {
    set_fields(response, |ours| {
        id.end_line(ours.line(REQUEST_ID_START));
        if closes {
            let line = ours.line(LineStart::new("connection: "));
            line.text("close").end();
        }
    });
}

/// A 101, relayed only when it switches to what was asked for (UPG-2).
pub fn relay_switch(
    response: UpstreamResponse,
    asked: &[u8],
) -> Result<(Response<AnswerBody>, Box<Switched>), Failure> {
    let failed = |detail: &'static str| Failure::because(Kind::UpgradeFailed, detail);
    let UpstreamResponse {
        status,
        fields,
        body,
        ..
    } = response;
    let mut headers = fields.into_map();
    let mut protocols = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next().cloned(), protocols.next()) else {
        return Err(failed("101 without exactly one Upgrade"));
    };
    if !protocol.as_bytes().eq_ignore_ascii_case(asked) {
        return Err(failed("101 to a protocol that was not asked for"));
    }
    strip_response(&mut headers);
    let switched = match body {
        UpstreamBody::Http1(body) => body.into_switched(),
        UpstreamBody::Http2(_) => None,
    };
    let switched = switched.ok_or_else(|| failed("the connection is gone"))?;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
    let mut answer = Response::new(AnswerBody::Whole(Bytes::new()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    // Boxed, as what is rare.
    Ok((answer, Box::new(switched)))
}
