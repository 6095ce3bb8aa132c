//! The head of a response, and what it says of its body.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::{DecodeError, MAX_HEADERS};

/// Largest response head (SPEC §2.3).
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A parsed response head.
#[derive(Debug)]
pub(in crate::upstream::h1) struct ResponseHead {
    pub(in crate::upstream::h1) status: StatusCode,
    pub(in crate::upstream::h1) headers: HeaderMap,
    pub(in crate::upstream::h1) framing: BodyFraming,
    /// Neither `Connection: close` nor HTTP/1.0.
    pub(in crate::upstream::h1) keep_alive: bool,
    /// Events or gRPC.
    pub(in crate::upstream::h1) streams: bool,
    /// It has fields that belong to this hop.
    pub(in crate::upstream::h1) hop_by_hop: bool,
}

/// How the body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream::h1) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    UntilClose,
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
    let spans = spans_of(buffer, response.headers);
    let head = buffer.split_to(length).freeze();
    let (mut headers, noted) = header_map(&head, &spans)?;
    let framing = body_framing(method, status, version, &headers, noted)?;
    if noted.lengths > 0 {
        one_content_length(status, &mut headers, noted.lengths);
    }
    let close = noted.connection && announces_close(&headers);
    Ok(Some(ResponseHead {
        status,
        framing,
        keep_alive: version == Version::HTTP_11 && !close,
        streams: noted.content_type && is_streaming(&headers),
        hop_by_hop: noted.hop_by_hop,
        headers,
    }))
}

/// Which fields were among those parsed: they are few, and each look-up in the
/// map costs a hash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noted {
    /// Lines of `Content-Length`.
    lengths: u32,
    encoded: bool,
    connection: bool,
    content_type: bool,
    /// Anything that may not pass on.
    hop_by_hop: bool,
}

impl Noted {
    fn note(&mut self, name: &HeaderName) {
        match name.as_str() {
            "content-length" => self.lengths += 1,
            "transfer-encoding" => (self.encoded, self.hop_by_hop) = (true, true),
            "connection" => (self.connection, self.hop_by_hop) = (true, true),
            "content-type" => self.content_type = true,
            "keep-alive" | "te" | "upgrade" | "proxy-authenticate" | "proxy-connection"
            | "http2-settings" => self.hop_by_hop = true,
            _ => {}
        }
    }
}

/// Of what is sent as it comes, silences have no limit.
fn is_streaming(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"text/event-stream") || value.starts_with(b"application/grpc")
    })
}

pub(super) type Spans = smallvec::SmallVec<[(std::ops::Range<usize>, std::ops::Range<usize>); 12]>;

/// Offsets of names and values within the buffer they were parsed from, so that
/// values can share the head's memory.
pub(super) fn spans_of(buffer: &[u8], fields: &[httparse::Header<'_>]) -> Spans {
    let start = buffer.as_ptr() as usize;
    let span = |bytes: &[u8]| {
        let offset = (bytes.as_ptr() as usize).saturating_sub(start);
        offset..offset + bytes.len()
    };
    fields
        .iter()
        .map(|field| (span(field.name.as_bytes()), span(field.value)))
        .collect()
}

pub(super) fn header_map(head: &Bytes, spans: &Spans) -> Result<(HeaderMap, Noted), DecodeError> {
    // Room for what is added on the way.
    let mut headers = HeaderMap::with_capacity(spans.len() + 1);
    let mut noted = Noted::default();
    for (name, value) in spans {
        let name = head.get(name.clone()).ok_or(DecodeError::Head)?;
        let name = HeaderName::from_bytes(name).map_err(|_| DecodeError::Head)?;
        // An empty value's pointer may lie anywhere.
        let value = if value.is_empty() {
            Bytes::new()
        } else {
            head.slice(value.clone())
        };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| DecodeError::Head)?;
        noted.note(&name);
        headers.append(name, value);
    }
    Ok((headers, noted))
}

fn body_framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    noted: Noted,
) -> Result<BodyFraming, DecodeError> {
    let length = match noted.lengths {
        0 => None,
        _ => content_length(headers)?,
    };
    let encoded = noted.encoded;
    if encoded {
        let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let chunked = encodings
            .next()
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked || encodings.next().is_some() || length.is_some() || version == Version::HTTP_10
        {
            return Err(DecodeError::TransferEncoding);
        }
    }
    let bodiless = method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    Ok(match length {
        _ if bodiless => BodyFraming::None,
        _ if encoded => BodyFraming::Chunked,
        Some(length) => BodyFraming::Length(length),
        None => BodyFraming::UntilClose,
    })
}

/// The one length that all fields agree on (RFC 9110 §8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, DecodeError> {
    let mut agreed = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let length = parse_decimal(value.as_bytes()).ok_or(DecodeError::ContentLength)?;
        if agreed.is_some_and(|other| other != length) {
            return Err(DecodeError::ContentLength);
        }
        agreed = Some(length);
    }
    Ok(agreed)
}

/// Equal lines become one (RFC 9110 §8.6), and a 204 has none (§8.6 again):
/// clients of HTTP/2 take either for an error.
fn one_content_length(status: StatusCode, headers: &mut HeaderMap, lines: u32) {
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    } else if lines > 1
        && let Some(first) = headers.remove(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, first);
    }
}

fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn announces_close(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}
