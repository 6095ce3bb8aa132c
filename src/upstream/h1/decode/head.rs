//! The head of a response, and what it says of its body.

use std::convert::Infallible;
use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, Version, header};

use super::{DecodeError, MAX_HEADERS};
use crate::net::http1::{BodyFraming, Relayed, decimal, is_named, spans_where, tokens};
use crate::upstream::response::UpstreamFields;

/// Largest response head (SPEC §2.3).
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A parsed response head.
#[derive(Debug)]
pub(in crate::upstream::h1) struct ResponseHead {
    pub(in crate::upstream::h1) status: StatusCode,
    pub(in crate::upstream::h1) fields: UpstreamFields,
    pub(in crate::upstream::h1) framing: BodyFraming,
    /// Neither `Connection: close` nor HTTP/1.0.
    pub(in crate::upstream::h1) keep_alive: bool,
    /// Events or gRPC.
    pub(in crate::upstream::h1) streams: bool,
    /// What `Connection` named; the fields of this hop are left out already.
    /// `None` for a 101, which has them all.
    pub(in crate::upstream::h1) named: Option<Vec<HeaderName>>,
}

/// Takes a complete head from the front of `buffer`; `None` if more is needed.
pub(in crate::upstream::h1) fn take_head(
    buffer: &mut BytesMut,
    method: &Method,
) -> Result<Option<ResponseHead>, DecodeError> {
    // Blanking a hundred fields would cost more than parsing a few.
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(httparse::Status::Complete(_)) => return Err(DecodeError::HeadTooLarge),
        Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(DecodeError::HeadTooLarge),
        Err(httparse::Error::TooManyHeaders) => return Err(DecodeError::TooManyHeaders),
        Err(_) => return Err(DecodeError::Head),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(DecodeError::Head)?;
    let version = match response.version {
        Some(1) => Version::HTTP_11,
        Some(0) => Version::HTTP_10,
        _ => return Err(DecodeError::Head),
    };
    let mut fields = Fields::for_status(status);
    let spans = spans_where(buffer, response.headers, |name, value| {
        fields.take(name, value)
    })?;
    // A copy, so that the buffer can be read into again while the answer is on
    // its way: sharing it, the next read would ask for a new one, and memory of
    // that size is what the allocator is slow with.
    let head = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
    buffer.advance(length);
    let mut relayed = Relayed::new(head, spans);
    let framing = fields.framing(method, status, version)?;
    let keep_alive = version == Version::HTTP_11 && !fields.close;
    let streams = fields.streams;
    let (named, fields) = match fields.keeps_all {
        true => (None, UpstreamFields::Map(relayed.into_map())),
        false => {
            fields.clean(&mut relayed);
            (Some(fields.named), UpstreamFields::Came(relayed))
        }
    };
    Ok(Some(ResponseHead {
        status,
        fields,
        framing,
        keep_alive,
        streams,
        named,
    }))
}

/// The fields of a response, looked at as they come. What belongs to this hop (RFC 9110 §7.6.1) is read and left
/// out.
struct Fields {
    /// A 101 keeps all: whoever switches reads them.
    keeps_all: bool,
    keeps_length: bool,
    /// The one length that all lines agree on (RFC 9110 §8.6).
    length: Option<u64>,
    /// `Some(true)`: one `Transfer-Encoding`, and it is `chunked`.
    chunked: Option<bool>,
    /// `Connection: close`.
    close: bool,
    /// Events or gRPC.
    streams: bool,
    /// Other fields that `Connection` named.
    named: Vec<HeaderName>,
}

impl Fields {
    fn for_status(status: StatusCode) -> Self {
        Self {
            keeps_all: status == StatusCode::SWITCHING_PROTOCOLS,
            // A 204 has none (RFC 9110 §8.6): clients of HTTP/2 take it for an
            // error.
            keeps_length: status != StatusCode::NO_CONTENT,
            length: None,
            chunked: None,
            close: false,
            streams: false,
            named: Vec::new(),
        }
    }

    /// Whether the field is kept.
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<bool, DecodeError> {
        let keeps = match name.len() {
            14 if is_named(name, b"content-length") => self.take_length(value)?,
            17 if is_named(name, b"transfer-encoding") => {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                self.chunked = Some(chunked && self.chunked.is_none());
                false
            }
            10 if is_named(name, b"connection") => {
                self.take_connection(value);
                false
            }
            12 if is_named(name, b"content-type") => {
                self.streams |= value.starts_with(b"text/event-stream")
                    || value.starts_with(b"application/grpc");
                true
            }
            _ => !is_hop_by_hop(name),
        };
        Ok(keeps || self.keeps_all)
    }

    /// Whether this line is kept: equal ones become one.
    fn take_length(&mut self, value: &[u8]) -> Result<bool, DecodeError> {
        let length = decimal(value).ok_or(DecodeError::ContentLength)?;
        match self.length.replace(length) {
            None => Ok(self.keeps_length),
            Some(other) if other == length => Ok(false),
            Some(_) => Err(DecodeError::ContentLength),
        }
    }

    fn take_connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if !token.eq_ignore_ascii_case(b"keep-alive")
                && let Ok(name) = HeaderName::from_bytes(token)
            {
                self.named.push(name);
            }
        }
    }

    fn framing(
        &self,
        method: &Method,
        status: StatusCode,
        version: Version,
    ) -> Result<BodyFraming, DecodeError> {
        if let Some(chunked) = self.chunked
            && (!chunked || self.length.is_some() || version == Version::HTTP_10)
        {
            return Err(DecodeError::TransferEncoding);
        }
        let bodiless = method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        Ok(match (self.length, self.chunked) {
            _ if bodiless => BodyFraming::None,
            (_, Some(_)) => BodyFraming::Chunked,
            (Some(length), None) => BodyFraming::Length(length),
            (None, None) => BodyFraming::UntilClose,
        })
    }

    /// Leaves out what `Connection` named.
    fn clean(&self, relayed: &mut Relayed) {
        for named in &self.named {
            if *named == header::CONTENT_LENGTH || *named == header::HOST {
                continue;
            }
            let named = named.as_str().as_bytes();
            let others =
                |name: &[u8], _: &[u8]| Ok::<_, Infallible>(!name.eq_ignore_ascii_case(named));
            let Ok(()) = relayed.retain(others);
        }
    }
}

/// Whether a field is for one hop whatever `Connection` says (RFC 9110 §7.6.1).
pub(in crate::upstream) fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.len() {
        2 => is_named(name, b"te"),
        7 => is_named(name, b"upgrade"),
        10 => is_named(name, b"connection") || is_named(name, b"keep-alive"),
        14 => is_named(name, b"http2-settings"),
        16 => is_named(name, b"proxy-connection"),
        17 => is_named(name, b"transfer-encoding"),
        18 => is_named(name, b"proxy-authenticate"),
        _ => false,
    }
}
