//! The head of a request, and what it says of its body and connection.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Uri, Version, header};

use super::decode::BodyFraming;
use super::fields::{Spans, decimal, for_each_field, spans_of, tokens};
use super::{FramingError, ParserLimits, Spares};

/// What `http::Uri` holds.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;
/// Nobody has a longer body.
const MAX_LENGTH: u64 = i64::MAX as u64;
/// So many fields are parsed onto the stack.
const FEW_FIELDS: usize = 100;

/// A parsed request head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Box<Parts>,
    pub(super) framing: BodyFraming,
    /// The client wants the connection to go on.
    pub(super) keep_alive: bool,
    /// It said itself that this is its last request.
    pub(super) ends: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
    /// `TE: trailers`.
    pub(super) trailers: bool,
}

/// A head that is refused without being looked at further, with its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16);

const BAD: Refused = Refused(400);
const TARGET_TOO_LONG: Refused = Refused(414);
const TOO_LARGE: Refused = Refused(431);

impl From<FramingError> for Refused {
    fn from(_: FramingError) -> Self {
        BAD
    }
}

/// Takes a complete head from the front of `buffer`; `None` if more is needed.
///
/// # Errors
/// The status of a bare refusal: 400, 414 or 431.
pub(super) fn take_head(
    buffer: &mut BytesMut,
    limits: ParserLimits,
    spares: &Spares,
) -> Result<Option<Head>, Refused> {
    // Blanking a hundred fields would cost more than parsing a few.
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut many = Vec::new();
    let fields = match few.get_mut(..limits.header_count) {
        Some(few) => few,
        None => {
            many.resize(limits.header_count, MaybeUninit::uninit());
            &mut many[..]
        }
    };
    let most = limits.most_bytes();
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buffer, fields) {
        Ok(httparse::Status::Complete(length)) if length <= most => length,
        Ok(httparse::Status::Partial) if buffer.len() < most => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err(BAD),
    };
    let method = request.method.ok_or(BAD)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BAD)?;
    let version = match request.version {
        Some(1) => Version::HTTP_11,
        Some(0) => Version::HTTP_10,
        _ => return Err(BAD),
    };
    let target = request.path.ok_or(BAD)?;
    if target.len() > MAX_TARGET_BYTES {
        return Err(TARGET_TOO_LONG);
    }
    let begin = (target.as_ptr() as usize).saturating_sub(buffer.as_ptr() as usize);
    let target = begin..begin + target.len();
    let spans = spans_of(buffer, request.headers);
    let head = buffer.split_to(length).freeze();
    let uri = Uri::from_maybe_shared(head.slice(target)).map_err(|_| BAD)?;
    let mut parts = spares.take();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    Fields::read(parts, &head, &spans)?.head().map(Some)
}

/// The fields of a request, looked at as they come.
struct Fields {
    parts: Box<Parts>,
    /// The one length that all lines agree on (RFC 9110 §8.6).
    length: Option<u64>,
    /// Lines of `Transfer-Encoding`: whether the last one ends in `chunked`.
    chunked: Option<bool>,
    /// Any `Content-Length`, even one that does not count.
    measured: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
    trailers: bool,
}

impl Fields {
    /// Those of `head`, appended to `parts`.
    fn read(mut parts: Box<Parts>, head: &Bytes, spans: &Spans) -> Result<Self, Refused> {
        parts.headers.reserve(spans.len().min(FEW_FIELDS));
        let mut fields = Self {
            parts,
            length: None,
            chunked: None,
            measured: false,
            close: false,
            keep_alive: false,
            expects: false,
            trailers: false,
        };
        for_each_field(head, spans, |name, value| fields.take(name, value))?;
        Ok(fields)
    }

    fn take(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Refused> {
        match name {
            header::CONTENT_LENGTH => {
                let first = !std::mem::replace(&mut self.measured, true);
                if self.chunked.is_some() {
                    return Ok(());
                }
                let length = decimal(value.as_bytes()).ok_or(BAD)?;
                if length > MAX_LENGTH {
                    return Err(TOO_LARGE);
                }
                if self.length.replace(length).is_some_and(|one| one != length) {
                    return Err(BAD);
                }
                // Equal lines become one.
                if !first {
                    return Ok(());
                }
            }
            header::TRANSFER_ENCODING => {
                if self.parts.version != Version::HTTP_11 {
                    return Err(BAD);
                }
                // Which it overrides (RFC 9112 §6.3).
                if self.length.take().is_some() {
                    self.parts.headers.remove(header::CONTENT_LENGTH);
                }
                let last = tokens(value.as_bytes()).last().unwrap_or_default();
                self.chunked = Some(last.eq_ignore_ascii_case(b"chunked"));
            }
            header::CONNECTION => {
                for token in tokens(value.as_bytes()) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            header::EXPECT => {
                self.expects = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            }
            header::TE => {
                let trailers = |token: &[u8]| token.eq_ignore_ascii_case(b"trailers");
                self.trailers |= tokens(value.as_bytes()).any(trailers);
            }
            _ => {}
        }
        self.parts.headers.append(name, value);
        Ok(())
    }

    fn head(self) -> Result<Head, Refused> {
        let version = self.parts.version;
        let framing = match (self.chunked, self.length) {
            (Some(true), _) => BodyFraming::Chunked,
            // Where it ends nobody could tell (RFC 9112 §6.3).
            (Some(false), _) => return Err(BAD),
            (None, Some(length)) => BodyFraming::Length(length),
            (None, None) => BodyFraming::None,
        };
        let asked = version == Version::HTTP_11 || self.keep_alive;
        // Whoever sends two framings, or wants a tunnel, may mean something
        // else by what follows.
        let doubtful =
            (self.chunked.is_some() && self.measured) || self.parts.method == Method::CONNECT;
        Ok(Head {
            parts: self.parts,
            framing,
            keep_alive: asked && !self.close && !doubtful,
            ends: !asked || self.close,
            expects: self.expects && version == Version::HTTP_11,
            trailers: self.trailers,
        })
    }
}
