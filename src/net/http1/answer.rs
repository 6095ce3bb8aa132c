//! An answer as strict RFC 9112 bytes.

use http::{HeaderMap, HeaderName, StatusCode, Version};

use super::fields::{decimal, is_named, tokens, write_field};
use super::relayed::Relayed;
use crate::model::Marks;

/// What of a request its answer's form depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The method was `HEAD`.
    pub(super) head: bool,
    pub(super) version: Version,
    /// `TE: trailers`.
    pub(super) trailers: bool,
}

impl Asked {
    /// Of what was no request.
    pub(super) const NOTHING: Self = Self {
        head: false,
        version: Version::HTTP_11,
        trailers: false,
    };
}

/// How the body of an answer is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Not at all.
    Nothing,
    /// Bytes still to come.
    Length(u64),
    /// These fields may follow it.
    Chunked(Vec<HeaderName>),
    UntilClose,
}

/// A written head.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) sending: Sending,
    /// The connection goes on afterwards.
    pub(super) keep_alive: bool,
}

/// How long a body is that has not been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// There is nothing to send, whatever a field says.
    None,
    Known(u64),
    Unknown,
}

/// Appends the head of an answer, its blank line included. `keep_alive` says
/// whether the connection may go on; `date` appends the time.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    asked: Asked,
    (status, headers, relayed): (StatusCode, &HeaderMap, Option<&Relayed>),
    length: Length,
    keep_alive: bool,
    date: impl FnOnce(&mut Vec<u8>),
) -> Written {
    write_status(out, asked.version, status);
    let bodiless = asked.head
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let mut fields = Fields {
        length,
        head: asked.head,
        chunks: !bodiless && length == Length::Unknown && asked.version == Version::HTTP_11,
        trailers: Vec::new(),
        told_length: None,
        has_connection: false,
        keep_alive,
        has_date: false,
    };
    for (name, value) in headers {
        fields.take(name.as_str().as_bytes(), value.as_bytes(), None, out);
    }
    if let Some(relayed) = relayed {
        match relayed.lines_without(Fields::KNOWN) {
            // As with nearly every answer.
            Some(lines) if headers.is_empty() => {
                out.extend_from_slice(lines);
                relayed.for_each_that_came(|name, value, line| fields.take(name, value, line, out));
            }
            _ => relayed.for_each(headers, |name, value, line| {
                fields.take(name, value, line, out);
            }),
        }
    }
    let sending = match bodiless {
        true => fields.nothing(status, out),
        false => fields.sending(asked, out),
    };
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let keep_alive = fields.keep_alive && sending != Sending::UntilClose && !switches;
    if !fields.has_connection && !switches {
        match (keep_alive, asked.version) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            // Who speaks it has to be told (RFC 9112 §9.3).
            (true, Version::HTTP_10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, _) => {}
        }
    }
    if !fields.has_date {
        out.extend_from_slice(b"date: ");
        date(out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Written {
        sending,
        keep_alive,
    }
}

fn write_status(out: &mut Vec<u8>, version: Version, status: StatusCode) {
    if version == Version::HTTP_11 && status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    // A reason is expected by many parsers.
    let reason = status.canonical_reason().unwrap_or("<none>");
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The fields of an answer, written as they come.
struct Fields {
    length: Length,
    head: bool,
    /// Sent in chunks, unless a field tells the length.
    chunks: bool,
    trailers: Vec<HeaderName>,
    /// By a field, where the body does not know it.
    told_length: Option<u64>,
    has_connection: bool,
    keep_alive: bool,
    has_date: bool,
}

impl Fields {
    /// The names that mean something here.
    const KNOWN: Marks = Marks::NONE
        .and("content-length")
        .and("transfer-encoding")
        .and("trailer")
        .and("connection")
        .and("date");

    /// `line` is what of both can be written as it came.
    fn take(&mut self, name: &[u8], value: &[u8], line: Option<&[u8]>, out: &mut Vec<u8>) {
        match name.len() {
            // Written from what is sent. Only to HEAD it tells what would be.
            14 if is_named(name, b"content-length") => {
                let told = decimal(value);
                let first = self.told_length.is_none() && told.is_some();
                self.told_length = self.told_length.or(told);
                if !self.head || !first {
                    return;
                }
            }
            17 if is_named(name, b"transfer-encoding") => return,
            7 if is_named(name, b"trailer") => {
                if !self.chunks {
                    return;
                }
                let names = tokens(value).filter_map(|name| HeaderName::from_bytes(name).ok());
                self.trailers.extend(names.filter(may_follow));
            }
            10 if is_named(name, b"connection") => {
                self.has_connection = true;
                let close = |token: &[u8]| token.eq_ignore_ascii_case(b"close");
                if tokens(value).any(close) {
                    self.keep_alive = false;
                }
            }
            4 if is_named(name, b"date") => self.has_date = true,
            _ => {}
        }
        match line {
            Some(line) => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            None => write_field(name, value, out),
        }
    }

    /// There is no body; what it would be is told to HEAD.
    fn nothing(&self, status: StatusCode, out: &mut Vec<u8>) -> Sending {
        if let (true, Length::Known(length), None) = (self.head, self.length, self.told_length)
            && !status.is_informational()
            && status != StatusCode::NO_CONTENT
            && status != StatusCode::NOT_MODIFIED
        {
            write_length(length, out);
        }
        Sending::Nothing
    }

    /// Says how the body is framed.
    fn sending(&mut self, asked: Asked, out: &mut Vec<u8>) -> Sending {
        let length = match (self.length, self.told_length) {
            (Length::None, _) => 0,
            (Length::Known(length), _) | (Length::Unknown, Some(length)) => length,
            (Length::Unknown, None) if asked.version == Version::HTTP_11 => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                return Sending::Chunked(match asked.trailers {
                    true => std::mem::take(&mut self.trailers),
                    false => Vec::new(),
                });
            }
            (Length::Unknown, None) => return Sending::UntilClose,
        };
        write_length(length, out);
        match length {
            0 => Sending::Nothing,
            length => Sending::Length(length),
        }
    }
}

/// Whether a field means what it says where it follows the body (RFC 9110
/// §6.5.1): not one of framing, routing, credentials or the content's form.
fn may_follow(name: &HeaderName) -> bool {
    !matches!(
        name.as_str(),
        "authorization"
            | "cache-control"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "host"
            | "max-forwards"
            | "set-cookie"
            | "te"
            | "trailer"
            | "transfer-encoding"
    )
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The size line of a chunk (RFC 9112 §7.1).
pub(super) fn write_size_line(length: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (length >> (place * 4)) & 0xf;
        out.extend(DIGITS.get(digit));
    }
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, with those of the trailers that were announced.
pub(super) fn write_last_chunk(
    trailers: Option<&HeaderMap>,
    announced: &[HeaderName],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if announced.contains(name) {
            write_field(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}
