//! HTTP/2 at frame level (RFC 9113): a client that can send anything.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::pki::{Secure, Socket};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A frame as bytes, whatever its payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a test's frame is small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field as a literal without indexing and without Huffman (RFC 7541 §6.2.2).
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(text.len(), 7, 0, &mut bytes);
        bytes.extend_from_slice(text);
    }
    bytes
}

/// RFC 7541 §5.1.
pub(crate) fn integer(mut value: usize, prefix_bits: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1_usize << prefix_bits) - 1;
    let byte = |value: usize| u8::try_from(value).expect("masked to a byte");
    if value < most {
        out.push(first | byte(value));
        return;
    }
    out.push(first | byte(most));
    value -= most;
    while value >= 128 {
        out.push(byte(value % 128) | 128);
        value /= 128;
    }
    out.push(byte(value));
}

/// A block of fields.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes()))
        .collect()
}

/// The pseudo-headers of a plain request.
pub(crate) fn get(path: &str) -> Vec<u8> {
    asking("GET", path)
}

/// The same of a `POST`.
pub(crate) fn post(path: &str) -> Vec<u8> {
    asking("POST", path)
}

fn asking(method: &str, path: &str) -> Vec<u8> {
    block(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ])
}

/// HEADERS with these fields, complete.
pub(crate) fn headers(stream: u32, block: &[u8], end_stream: bool) -> Vec<u8> {
    let end = if end_stream { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | end, stream, block)
}

/// SETTINGS of these.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port accepts");
    stream.set_nodelay(true).expect("a socket takes an option");
    stream
}

/// One connection.
pub(crate) struct FrameClient {
    stream: Socket,
}

impl FrameClient {
    /// Connects and sends the preface with these settings.
    pub(crate) fn connect(port: u16, values: &[(u16, u32)]) -> Self {
        Self::silent(port).greet(values)
    }

    /// The same under TLS, as agreed on by ALPN.
    pub(crate) fn connect_secure(port: u16, secure: &Secure) -> Self {
        let stream = secure.speaking(b"h2").handshake(dial(port));
        let mut client = Self {
            stream: stream.expect("the handshake is answered"),
        };
        client.patience(Duration::from_secs(15));
        client.greet(&[])
    }

    fn greet(mut self, values: &[(u16, u32)]) -> Self {
        self.send(PREFACE).expect("a new connection takes bytes");
        self.send(&settings(values))
            .expect("a new connection takes bytes");
        self
    }

    /// Connects and says nothing.
    pub(crate) fn silent(port: u16) -> Self {
        let mut client = Self {
            stream: Socket::Plain(dial(port)),
        };
        client.patience(Duration::from_secs(15));
        client
    }

    /// Longest wait for bytes, and for room for them.
    pub(crate) fn patience(&mut self, time: Duration) {
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(self.stream.tcp(), Some(time)).expect("a socket takes a timeout");
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` at the end of the connection, however it ends.
    pub(crate) fn frame(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if self.stream.read_exact(&mut payload).is_err() {
            return Ok(None);
        }
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        }))
    }

    /// Reads on to a frame that fits; `None` when the connection ended first.
    pub(crate) fn find(&mut self, fits: impl Fn(&Frame) -> bool) -> io::Result<Option<Frame>> {
        while let Some(frame) = self.frame()? {
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                // A refused write shows as the end soon after.
                let _ = self.send(&self::frame(SETTINGS, ACK, 0, &[]));
            }
            if fits(&frame) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The frame that ends a stream or everything; `None` at the end of the
    /// connection.
    pub(crate) fn refusal(&mut self) -> io::Result<Option<Frame>> {
        self.find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY))
    }

    /// Whether a request on this stream is answered 200.
    pub(crate) fn answers(&mut self, stream: u32) -> bool {
        let request = headers(stream, &get("/"), true);
        self.send(&request).is_ok()
            && self
                .find(|frame| frame.kind == HEADERS && frame.stream == stream)
                .is_ok_and(|frame| frame.is_some_and(|frame| frame.payload.first() == Some(&0x88)))
    }
}
