//! A response from bytes: strict, bounded, any bytes accepted without panicking.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

/// Largest response head (SPEC §2.3).
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most response header fields (SPEC §2.3).
const MAX_HEADERS: usize = 100;
/// Largest trailer section (SPEC §2.3).
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// Longest chunk-size line; extensions are legal but nobody needs long ones.
const MAX_SIZE_LINE_BYTES: usize = 1024;

/// Why bytes are no acceptable response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("no HTTP/1 response head")]
    Head,
    #[error("response head larger than 64 KiB")]
    HeadTooLarge,
    #[error("more than 100 response headers")]
    TooManyHeaders,
    #[error("invalid or differing Content-Length")]
    ContentLength,
    #[error("Transfer-Encoding other than exactly `chunked`, or beside Content-Length")]
    TransferEncoding,
    #[error("malformed chunk")]
    Chunk,
    #[error("malformed trailers, or larger than 16 KiB")]
    Trailers,
}

/// A parsed response head.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) framing: BodyFraming,
    /// Neither `Connection: close` nor HTTP/1.0.
    pub(super) keep_alive: bool,
}

/// How the body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Takes a complete head from the front of `buffer`; `None` if more is needed.
pub(super) fn take_head(
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
    let mut headers = header_map(&head, &spans)?;
    let framing = body_framing(method, status, version, &headers)?;
    one_content_length(status, &mut headers);
    let keep_alive = version == Version::HTTP_11 && !announces_close(&headers);
    Ok(Some(ResponseHead {
        status,
        headers,
        framing,
        keep_alive,
    }))
}

type Spans = smallvec::SmallVec<[(std::ops::Range<usize>, std::ops::Range<usize>); 12]>;

/// Offsets of names and values within the buffer they were parsed from, so that
/// values can share the head's memory.
fn spans_of(buffer: &[u8], fields: &[httparse::Header<'_>]) -> Spans {
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

fn header_map(head: &Bytes, spans: &Spans) -> Result<HeaderMap, DecodeError> {
    let mut headers = HeaderMap::with_capacity(spans.len());
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
        headers.append(name, value);
    }
    Ok(headers)
}

fn body_framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<BodyFraming, DecodeError> {
    let length = content_length(headers)?;
    let encoded = headers.contains_key(header::TRANSFER_ENCODING);
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
fn one_content_length(status: StatusCode, headers: &mut HeaderMap) {
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    } else if let header::Entry::Occupied(mut lines) = headers.entry(header::CONTENT_LENGTH)
        && lines.iter().nth(1).is_some()
    {
        let first = lines.get().clone();
        lines.insert(first);
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

/// What a decoder found at the front of the buffer.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

/// Decodes one body.
#[derive(Debug)]
pub(super) enum BodyDecoder {
    Done,
    Length { left: u64 },
    Chunked(ChunkState),
    UntilClose,
}

/// Where a chunked body stands (RFC 9112 §7.1).
#[derive(Debug, PartialEq, Clone, Copy)]
pub(super) enum ChunkState {
    SizeLine,
    Data {
        left: u64,
    },
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
}

impl BodyDecoder {
    pub(super) fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => Self::Done,
            BodyFraming::Length(left) => Self::Length { left },
            BodyFraming::Chunked => Self::Chunked(ChunkState::SizeLine),
            BodyFraming::UntilClose => Self::UntilClose,
        }
    }

    /// Whether nothing more belongs to the body.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes still to come, where that is known.
    pub(super) fn exact_remaining(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length { left } => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next piece of what was read.
    pub(super) fn next_piece(&mut self, buffer: &mut BytesMut) -> Result<Piece, DecodeError> {
        match self {
            Self::Done => Ok(Piece::End),
            Self::UntilClose if buffer.is_empty() => Ok(Piece::More),
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Self::Length { left } => {
                let Some(data) = take_at_most(buffer, *left) else {
                    return Ok(Piece::More);
                };
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data(data))
            }
            Self::Chunked(_) => self.next_chunked(buffer),
        }
    }

    /// The peer closed: complete only for a body that ends so.
    pub(super) fn finish_at_close(&mut self) -> bool {
        let complete = matches!(self, Self::UntilClose | Self::Done);
        if complete {
            *self = Self::Done;
        }
        complete
    }

    fn next_chunked(&mut self, buffer: &mut BytesMut) -> Result<Piece, DecodeError> {
        let Self::Chunked(state) = self else {
            return Ok(Piece::End);
        };
        loop {
            match state {
                ChunkState::SizeLine => {
                    let Some(size) = take_size_line(buffer)? else {
                        return Ok(Piece::More);
                    };
                    *state = match size {
                        0 => ChunkState::Trailers,
                        left => ChunkState::Data { left },
                    };
                }
                ChunkState::Data { left } => {
                    let Some(data) = take_at_most(buffer, *left) else {
                        return Ok(Piece::More);
                    };
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *state = ChunkState::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                ChunkState::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        *state = ChunkState::SizeLine;
                    }
                    [] | [b'\r'] => return Ok(Piece::More),
                    _ => return Err(DecodeError::Chunk),
                },
                ChunkState::Trailers => {
                    let Some(trailers) = take_trailers(buffer)? else {
                        return Ok(Piece::More);
                    };
                    *self = Self::Done;
                    return Ok(if trailers.is_empty() {
                        Piece::End
                    } else {
                        Piece::Trailers(trailers)
                    });
                }
            }
        }
    }
}

fn take_at_most(buffer: &mut BytesMut, left: u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let length = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    Some(buffer.split_to(length).freeze())
}

/// `1*HEXDIG [ chunk-ext ] CRLF`; a bare LF is refused.
fn take_size_line(buffer: &mut BytesMut) -> Result<Option<u64>, DecodeError> {
    let Some(end) = buffer
        .iter()
        .take(MAX_SIZE_LINE_BYTES)
        .position(|byte| *byte == b'\n')
    else {
        return match buffer.len() < MAX_SIZE_LINE_BYTES {
            true => Ok(None),
            false => Err(DecodeError::Chunk),
        };
    };
    let line = buffer.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(DecodeError::Chunk)?;
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, extension) = line.split_at(digits);
    let extension = extension.trim_ascii_start();
    let extension_is_sane =
        extension.first().is_none_or(|byte| *byte == b';') && !extension.contains(&b'\r');
    if digits.is_empty() || digits.len() > 16 || !extension_is_sane {
        return Err(DecodeError::Chunk);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| DecodeError::Chunk)?;
    u64::from_str_radix(digits, 16)
        .map(Some)
        .map_err(|_| DecodeError::Chunk)
}

/// The trailer section up to and including its blank line.
fn take_trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, DecodeError> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, parsed))) if length <= MAX_TRAILER_BYTES => {
            let spans = spans_of(buffer, parsed);
            let section = buffer.split_to(length).freeze();
            header_map(&section, &spans)
                .map(Some)
                .map_err(|_| DecodeError::Trailers)
        }
        Ok(httparse::Status::Partial) if buffer.len() < MAX_TRAILER_BYTES => Ok(None),
        _ => Err(DecodeError::Trailers),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<ResponseHead>, DecodeError> {
        take_head(&mut BytesMut::from(text), &Method::GET)
    }

    fn body(framing: BodyFraming, bytes: &[u8]) -> Result<(Vec<u8>, Option<HeaderMap>), String> {
        let mut decoder = BodyDecoder::new(framing);
        let mut buffer = BytesMut::new();
        let mut data = Vec::new();
        let mut trailers = None;
        for byte in bytes {
            buffer.extend_from_slice(&[*byte]);
            loop {
                match decoder
                    .next_piece(&mut buffer)
                    .map_err(|error| error.to_string())?
                {
                    Piece::Data(piece) => data.extend_from_slice(&piece),
                    Piece::Trailers(map) => trailers = Some(map),
                    Piece::End | Piece::More => break,
                }
            }
        }
        match decoder.is_done() || decoder.finish_at_close() {
            true if buffer.is_empty() => Ok((data, trailers)),
            true => Err("left over".to_owned()),
            false => Err("incomplete".to_owned()),
        }
    }

    #[test]
    fn framing_follows_rfc_9112() {
        for (text, framing) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                BodyFraming::Length(5),
            ),
            (
                "HTTP/1.1 200\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
                BodyFraming::Length(5),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
                BodyFraming::Chunked,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", BodyFraming::UntilClose),
            (
                "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
                BodyFraming::None,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
                BodyFraming::None,
            ),
        ] {
            assert_eq!(
                head(text).expect(text).expect(text).framing,
                framing,
                "{text}"
            );
        }
    }

    #[test]
    fn doubtful_framing_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(head(text).is_err(), "{text}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(
            head(&many).expect_err("too many"),
            DecodeError::TooManyHeaders
        );
        let large = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
        assert_eq!(
            head(&large).expect_err("too large"),
            DecodeError::HeadTooLarge
        );
        assert!(
            head("HTTP/1.1 200 OK\r\na: b\r\n")
                .expect("partial")
                .is_none()
        );
    }

    #[test]
    fn keep_alive_is_for_those_who_offer_it() {
        let keeps = |text: &str| head(text).expect(text).expect(text).keep_alive;
        assert!(keeps("HTTP/1.1 204 x\r\n\r\n"));
        assert!(!keeps(
            "HTTP/1.1 204 x\r\nconnection: x\r\nconnection: foo, Close\r\n\r\n"
        ));
        assert!(!keeps("HTTP/1.0 204 x\r\n\r\n"));
    }

    #[test]
    fn chunked_bodies_byte_by_byte() {
        let (data, trailers) = body(
            BodyFraming::Chunked,
            b"5;name=value\r\nhello\r\n006\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
        )
        .expect("valid");
        assert_eq!(data, b"hello world");
        assert_eq!(trailers.expect("trailers").get("x-sum").expect("sum"), "1");
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bytes in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"11112222333344445\r\nhello\r\n",
            b"5\r\nhello\r\n0\r\n",
            b"5\r\nhel",
            b"0\r\nbad header\r\n\r\n",
        ] {
            assert!(
                body(BodyFraming::Chunked, bytes).is_err(),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_length_is_exact() {
        assert_eq!(
            body(BodyFraming::Length(3), b"abc").expect("whole").0,
            b"abc"
        );
        assert_eq!(
            body(BodyFraming::Length(3), b"ab").expect_err("short"),
            "incomplete"
        );
        assert_eq!(
            body(BodyFraming::Length(3), b"abcd").expect_err("long"),
            "left over"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = take_head(&mut BytesMut::from(&bytes[..]), &Method::GET);
            let _ = body(BodyFraming::Chunked, &bytes);
            let mut prefixed = BytesMut::from(&b"HTTP/1.1 200 OK\r\n"[..]);
            prefixed.extend_from_slice(&bytes);
            let _ = take_head(&mut prefixed, &Method::GET);
        }

        #[test]
        fn chunks_decode_to_what_was_encoded(pieces in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..64), 0..8,
        )) {
            let mut wire = Vec::new();
            for piece in &pieces {
                wire.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (data, _) = body(BodyFraming::Chunked, &wire).expect("valid");
            prop_assert_eq!(data, pieces.concat());
        }
    }
}
