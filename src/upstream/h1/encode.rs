//! A request as strict RFC 9112 bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::model::HeaderCase;
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

/// Fields that this side sets: kept apart from what was received, because each
/// insertion into that map hashes a name. None of them is in the map, too.
pub type OurFields = Vec<(HeaderName, HeaderValue)>;

/// The head of a request toward an app.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    /// Path and query exactly as they are to be sent.
    pub target: Bytes,
    /// Without framing fields: those are written from `framing`.
    pub headers: HeaderMap,
    pub ours: OurFields,
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
    out.reserve(64 + target.len() + (headers.len() + ours.len()) * 48);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // `Host` is among them, and is to come first (RFC 9110 §7.2).
    for (name, value) in ours {
        write_field(name, value, case, out);
    }
    for (name, value) in headers {
        if is_framing(name) {
            continue;
        }
        write_field(name, value, case, out);
    }
    match *framing {
        Framing::None => {}
        Framing::Length(length) => {
            write_name("content-length", case, out);
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => {
            write_name("transfer-encoding", case, out);
            out.extend_from_slice(b"chunked\r\n");
        }
    }
    if upgrade.is_none() && ours.iter().any(|(name, _)| *name == header::TE) {
        // RFC 9110 §10.1.4.
        write_name("connection", case, out);
        out.extend_from_slice(b"TE\r\n");
    }
    if let Some(token) = upgrade {
        write_name("connection", case, out);
        out.extend_from_slice(b"Upgrade\r\n");
        write_name("upgrade", case, out);
        out.extend_from_slice(token);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that only `framing` may say.
fn is_framing(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING
}

fn write_field(name: &HeaderName, value: &HeaderValue, case: HeaderCase, out: &mut Vec<u8>) {
    let (name, value) = (name.as_str(), value.as_bytes());
    match case {
        HeaderCase::Lower => http1::write_field(name.as_bytes(), value, out),
        HeaderCase::Title => {
            write_name(name, case, out);
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The name in the wanted spelling, colon and space.
fn write_name(name: &str, case: HeaderCase, out: &mut Vec<u8>) {
    match case {
        HeaderCase::Lower => out.extend_from_slice(name.as_bytes()),
        HeaderCase::Title => {
            let mut starts_word = true;
            for byte in name.bytes() {
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

    fn head(framing: Framing) -> RequestHead {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("shop.example"));
        headers.insert("content-length", HeaderValue::from_static("999"));
        headers.append("x-a-b", HeaderValue::from_static("1"));
        headers.append("x-a-b", HeaderValue::from_static("2"));
        RequestHead {
            method: Method::POST,
            target: Bytes::from_static(b"/a?b=c"),
            headers,
            ours: OurFields::new(),
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
            "POST /a?b=c HTTP/1.1\r\nhost: shop.example\r\nx-a-b: 1\r\nx-a-b: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert!(!written(Framing::None, HeaderCase::Lower).contains("content-length"));
    }

    #[test]
    fn title_case_for_apps_that_need_it() {
        assert_eq!(
            written(Framing::Length(3), HeaderCase::Title),
            "POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nX-A-B: 1\r\nX-A-B: 2\r\nContent-Length: 3\r\n\r\n"
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
