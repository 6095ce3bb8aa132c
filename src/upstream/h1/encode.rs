//! A request as strict RFC 9112 bytes.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::model::{FieldLines, HeaderCase};
use crate::net::http1;

/// Frames the request's body (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body and no framing field.
    None,
    /// `Content-Length`.
    Length(u64),
    Chunked,
}

/// Path and query exactly as they are to be sent.
#[derive(Debug, Clone)]
pub enum Target {
    /// As received.
    Received(PathAndQuery),
    Made(Bytes),
}

impl Target {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Received(target) => target.as_str().as_bytes(),
            Self::Made(target) => target,
        }
    }
}

/// The head of a request toward an app.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    /// As received. Framing fields are written from `framing` instead, and those
    /// that are among `ours` are not sent: whoever reads one looks there first.
    pub headers: HeaderMap,
    /// What this side sets.
    pub ours: FieldLines,
    pub framing: Framing,
    /// Token of a protocol switch to ask for; HTTP/1.1 only.
    pub upgrade: Option<Bytes>,
    /// To be sent in HTTP/2.
    pub http2: bool,
}

/// Appends the head, the blank line included.
pub(super) fn write_head(head: &RequestHead, case: HeaderCase, out: &mut Vec<u8>) {
    let RequestHead {
        method,
        target,
        headers,
        ours,
        framing,
        upgrade,
        http2: _,
    } = head;
    let target = target.as_bytes();
    let relayed = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let relayed: usize = headers.iter().map(relayed).sum();
    // Separators, and what frames the body.
    let rest = 128 + headers.len() * 4;
    out.reserve(rest + target.len() + ours.as_bytes().len() + relayed);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // `Host` is among them, and is to come first (RFC 9110 §7.2).
    write_lines(ours, case, out);
    // Nearly always, and then not looked for again.
    let hosted = ours.as_bytes().starts_with(b"host: ");
    for (name, value) in headers {
        let replaced = (hosted && *name == header::HOST) || ours.has(name);
        if !is_framing(name) && !replaced {
            write_field(name, value, case, out);
        }
    }
    match *framing {
        Framing::None => {}
        Framing::Length(length) => {
            write_name(b"content-length", case, out);
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => {
            write_name(b"transfer-encoding", case, out);
            out.extend_from_slice(b"chunked\r\n");
        }
    }
    if upgrade.is_none() && ours.has(&header::TE) {
        // RFC 9110 §10.1.4.
        write_name(b"connection", case, out);
        out.extend_from_slice(b"TE\r\n");
    }
    if let Some(token) = upgrade {
        write_name(b"connection", case, out);
        out.extend_from_slice(b"Upgrade\r\n");
        write_name(b"upgrade", case, out);
        out.extend_from_slice(token);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that only `framing` may say.
fn is_framing(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING
}

fn write_lines(lines: &FieldLines, case: HeaderCase, out: &mut Vec<u8>) {
    match case {
        HeaderCase::Lower => out.extend_from_slice(lines.as_bytes()),
        HeaderCase::Title => {
            for (name, value) in lines.iter() {
                write_name(name, case, out);
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

fn write_field(name: &HeaderName, value: &HeaderValue, case: HeaderCase, out: &mut Vec<u8>) {
    let (name, value) = (name.as_str(), value.as_bytes());
    match case {
        HeaderCase::Lower => http1::write_field(name.as_bytes(), value, out),
        HeaderCase::Title => {
            write_name(name.as_bytes(), case, out);
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The name in the wanted spelling, colon and space.
fn write_name(name: &[u8], case: HeaderCase, out: &mut Vec<u8>) {
    match case {
        HeaderCase::Lower => out.extend_from_slice(name),
        HeaderCase::Title => {
            let mut starts_word = true;
            for &byte in name {
                out.push(if starts_word {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                });
                starts_word = byte == b'-';
            }
        }
    }
    out.extend_from_slice(b": ");
}

/// The size line of a chunk (RFC 9112 §7.1).
pub(super) fn chunk_size_line(length: usize) -> Bytes {
    Bytes::from(format!("{length:x}\r\n"))
}

/// The last chunk with its trailer section.
pub(super) fn last_chunk(trailers: Option<&HeaderMap>, case: HeaderCase) -> Bytes {
    let Some(trailers) = trailers.filter(|trailers| !trailers.is_empty()) else {
        return Bytes::from_static(b"0\r\n\r\n");
    };
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        write_field(name, value, case, &mut out);
    }
    out.extend_from_slice(b"\r\n");
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X_C: HeaderName = HeaderName::from_static("x-c");

    fn head(framing: Framing) -> RequestHead {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("the client's"));
        headers.insert("content-length", HeaderValue::from_static("999"));
        headers.append("x-a-b", HeaderValue::from_static("1"));
        headers.append("x-a-b", HeaderValue::from_static("2"));
        let mut ours = FieldLines::default();
        ours.push(&header::HOST, &HeaderValue::from_static("shop.example"));
        ours.push(&X_C, &HeaderValue::from_static("3"));
        RequestHead {
            method: Method::POST,
            target: Target::Made(Bytes::from_static(b"/a?b=c")),
            headers,
            ours,
            framing,
            upgrade: None,
            http2: false,
        }
    }

    fn written(framing: Framing, case: HeaderCase) -> String {
        let mut out = Vec::new();
        write_head(&head(framing), case, &mut out);
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn framing_is_ours_alone() {
        assert_eq!(
            written(Framing::Chunked, HeaderCase::Lower),
            "POST /a?b=c HTTP/1.1\r\nhost: shop.example\r\nx-c: 3\r\nx-a-b: 1\r\nx-a-b: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert!(!written(Framing::None, HeaderCase::Lower).contains("content-length"));
    }

    #[test]
    fn title_case_for_apps_that_need_it() {
        assert_eq!(
            written(Framing::Length(3), HeaderCase::Title),
            "POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nX-C: 3\r\nX-A-B: 1\r\nX-A-B: 2\r\nContent-Length: 3\r\n\r\n"
        );
    }

    #[test]
    fn last_chunk_carries_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("abc"));
        assert_eq!(
            last_chunk(Some(&trailers), HeaderCase::Lower),
            "0\r\nx-checksum: abc\r\n\r\n"
        );
        assert_eq!(last_chunk(None, HeaderCase::Lower), "0\r\n\r\n");
    }
}
