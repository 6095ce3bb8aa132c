//! Ways an app can behave, well and badly.

use std::io::{self, Write};
use std::time::Duration;

use super::app::{Connection, Next, Received, Script};

/// 200 with the request as JSON: method, target, headers as pairs, body as text.
pub(crate) fn echo(request: &Received, stream: &mut Connection) -> io::Result<Next> {
    let document = serde_json::json!({
        "method": request.method,
        "target": request.target,
        "headers": request.head.headers,
        "body": String::from_utf8_lossy(&request.body),
    });
    stream.respond(
        200,
        "Content-Type: application/json\r\n",
        document.to_string().as_bytes(),
    )?;
    Ok(Next::KeepAlive)
}

/// A header as the app saw it whose [`echo`] this is: of the app itself the
/// last request may be a health check.
pub(crate) fn seen(document: &serde_json::Value, name: &str) -> Option<String> {
    let headers = document["headers"].as_array()?;
    let found = headers.iter().find(|pair| {
        let known = pair[0].as_str().unwrap_or_default();
        known.eq_ignore_ascii_case(name)
    });
    found.and_then(|pair| pair[1].as_str().map(str::to_owned))
}

/// 200 `ok` for everything.
pub(crate) fn ok(_: &Received, stream: &mut Connection) -> io::Result<Next> {
    stream.respond(200, "Content-Type: text/plain\r\n", b"ok")?;
    Ok(Next::KeepAlive)
}

/// 200 with the value of one request header as body.
pub(crate) fn say_header(name: &'static str) -> impl Script {
    move |request: &Received, stream: &mut Connection| {
        let value = request.head.all(name).collect::<Vec<_>>().join(",");
        stream.respond(200, "Content-Type: text/plain\r\n", value.as_bytes())?;
        Ok(Next::KeepAlive)
    }
}

/// Answers `ok` after this time.
pub(crate) fn slow(time: Duration) -> impl Script {
    move |_: &Received, stream: &mut Connection| {
        if !stream.wait(time) {
            return Ok(Next::Close);
        }
        stream.respond(200, "", b"ok")?;
        Ok(Next::KeepAlive)
    }
}

/// Reads requests and never answers.
pub(crate) fn silent(_: &Received, stream: &mut Connection) -> io::Result<Next> {
    while stream.wait(Duration::from_secs(1)) {}
    Ok(Next::Close)
}

/// These bytes, whatever they are; then the connection ends like this.
pub(crate) fn bytes(bytes: impl Into<Vec<u8>>, next: Next) -> impl Script {
    let bytes = bytes.into();
    move |_: &Received, stream: &mut Connection| {
        stream.write_all(&bytes)?;
        Ok(next)
    }
}

/// Half of an announced body, then RST.
pub(crate) fn half_body_then_reset() -> impl Script {
    let mut message = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    message.extend(std::iter::repeat_n(b'x', 50_000));
    move |_: &Received, stream: &mut Connection| {
        stream.write_all(&message)?;
        // Long enough for the bytes to leave before the reset discards them.
        stream.wait(Duration::from_millis(100));
        Ok(Next::Reset)
    }
}

/// Not HTTP at all.
pub(crate) fn garbage() -> impl Script {
    bytes(*b"SSH-2.0-OpenSSH_9.2\r\n\r\n\x00\xff\x01", Next::Close)
}

/// A head that never ends.
pub(crate) fn endless_headers(_: &Received, stream: &mut Connection) -> io::Result<Next> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
    for number in 0_u64.. {
        if stream.stopping() {
            break;
        }
        stream.write_all(format!("x-{number}: {}\r\n", "y".repeat(100)).as_bytes())?;
    }
    Ok(Next::Close)
}

/// A proper response of which only the first `count` bytes come.
pub(crate) fn closes_after(count: usize) -> impl Script {
    let message =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n0123456789";
    bytes(message[..count.min(message.len())].to_vec(), Next::Close)
}

/// A body of this many bytes whose byte at `n` is [`pattern`]`(n)`.
pub(crate) fn download(length: u64) -> impl Script {
    move |_: &Received, stream: &mut Connection| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut at = 0;
        while at < length {
            let end = (at + 64 * 1024).min(length);
            let block: Vec<u8> = (at..end).map(pattern).collect();
            stream.write_all(&block)?;
            at = end;
        }
        Ok(Next::KeepAlive)
    }
}

/// The byte of [`download`] at a position: no period that a buffer could share.
pub(crate) fn pattern(position: u64) -> u8 {
    let mixed = (position / 251).wrapping_mul(31) + position;
    mixed.to_le_bytes()[0]
}

/// One chunk, then silence with the response open.
pub(crate) fn hung_stream(_: &Received, stream: &mut Connection) -> io::Result<Next> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    stream.write_all(b"9\r\ndata: 1\n\n\r\n")?;
    silent_from(stream)
}

fn silent_from(stream: &mut Connection) -> io::Result<Next> {
    while stream.wait(Duration::from_secs(1)) {}
    stream.write_all(b"0\r\n\r\n")?;
    Ok(Next::Close)
}

/// Picks a script by the path's first segment; `ok` for the rest.
pub(crate) struct Routes(pub(crate) Vec<(&'static str, Box<dyn Script>)>);

impl Script for Routes {
    fn answer(&self, request: &Received, stream: &mut Connection) -> io::Result<Next> {
        let found = self
            .0
            .iter()
            .find(|(prefix, _)| request.target.starts_with(prefix));
        match found {
            Some((_, script)) => script.answer(request, stream),
            None => ok(request, stream),
        }
    }
}
