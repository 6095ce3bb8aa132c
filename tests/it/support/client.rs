//! An HTTP/1.1 client at byte level: it can send anything and believes nothing.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::message::{Fields, Framing, Head, Reader, Unread, framing};
use super::pki::{Secure, Socket};

/// Until an answer that should come at once counts as missing.
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Statuses of 1xx heads before it.
    pub(crate) informational: Vec<u16>,
}

impl Response {
    /// A header that must not be there twice.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.status, self.text()))
    }

    /// The `cause` of a problem document of ours; empty for anything else.
    pub(crate) fn cause(&self) -> String {
        let document = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        document["cause"].as_str().unwrap_or_default().to_owned()
    }

    /// Fails when there is a header that is not on the list.
    #[track_caller]
    pub(crate) fn assert_only_headers(&self, allowed: &[&str]) {
        for (name, value) in &self.head.headers {
            assert!(
                allowed
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(name)),
                "unexpected `{name}: {value}` in {:?}",
                self.head
            );
        }
    }

    /// Whether the server said that the connection ends here.
    pub(crate) fn closes(&self) -> bool {
        self.head
            .all("connection")
            .any(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// One connection.
pub(crate) struct Client {
    reader: Reader<Socket>,
}

impl Client {
    /// Connects to a port of this machine.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        Self::connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    pub(crate) fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let stream = Self::dial(address)?;
        Ok(Self {
            reader: Reader::new(Socket::Plain(stream)),
        })
    }

    /// The same under TLS; comes back after the handshake.
    pub(crate) fn connect_secure(port: u16, secure: &Secure) -> io::Result<Self> {
        let stream = Self::dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(Self {
            reader: Reader::new(secure.handshake(stream)?),
        })
    }

    fn dial(address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Another patience for reads.
    pub(crate) fn patience(&mut self, time: Duration) {
        let stream = self.reader.stream.tcp();
        stream
            .set_read_timeout(Some(time))
            .expect("a socket takes a timeout");
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.reader
            .stream
            .tcp()
            .local_addr()
            .expect("a connected socket has an address")
    }

    /// Any bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.stream.write_all(bytes)
    }

    /// What the server showed of itself under TLS.
    pub(crate) fn server_certificate(&self) -> Option<Vec<u8>> {
        self.reader.stream.server_certificate()
    }

    /// Whether the other side has not closed.
    pub(crate) fn is_open(&self) -> bool {
        self.reader.stream.is_open()
    }

    /// No more bytes from here.
    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        self.reader.stream.tcp().shutdown(Shutdown::Write)
    }

    /// Ends the connection with RST instead of FIN.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.reader.stream.tcp());
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a socket takes a linger time");
    }

    /// The next head, skipping none.
    pub(crate) fn head(&mut self) -> Result<(u16, Head), Unread> {
        let head = self.reader.head()?;
        let status = head
            .start
            .strip_prefix("HTTP/1.1 ")
            // The answer to an HTTP/1.0 request.
            .or_else(|| head.start.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok())
            .filter(|status| (100..600).contains(status));
        match status {
            Some(status) => Ok((status, head)),
            None => Err(Unread::Malformed(format!(
                "not a status line: {:?}",
                head.start
            ))),
        }
    }

    /// The next response to a request with this method.
    pub(crate) fn response_to(&mut self, method: &str) -> Result<Response, Unread> {
        let mut informational = Vec::new();
        let (status, head) = loop {
            let (status, head) = self.head()?;
            if status >= 200 || status == 101 {
                break (status, head);
            }
            informational.push(status);
        };
        let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
        let framing = if bodiless {
            Framing::Length(0)
        } else {
            framing(&head, Framing::UntilClose)?
        };
        let (body, trailers) = self.reader.body(framing)?;
        Ok(Response {
            status,
            head,
            body,
            trailers,
            informational,
        })
    }

    /// The next response.
    pub(crate) fn response(&mut self) -> Result<Response, Unread> {
        self.response_to("GET")
    }

    /// Sends and reads one exchange.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Response, Unread> {
        self.send(&request.bytes())
            .map_err(|error| Unread::Cut(error.to_string()))?;
        self.response_to(&request.method)
    }

    /// At most `most` bytes of the body that follows; empty at the end of the stream.
    pub(crate) fn some(&mut self, most: usize) -> Result<Vec<u8>, Unread> {
        self.reader.some(most)
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: u64) -> Result<Vec<u8>, Unread> {
        self.reader.exactly(count)
    }

    /// One chunk of a chunked body.
    pub(crate) fn chunk(&mut self) -> Result<Vec<u8>, Unread> {
        self.reader.chunk().map(|(data, _)| data)
    }

    /// Everything until the peer closes, whatever it is.
    pub(crate) fn until_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(more) = self.reader.some(usize::MAX) {
            if more.is_empty() {
                break;
            }
            bytes.extend(more);
        }
        bytes
    }
}

/// A request that is spelled out byte by byte.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    lines: Vec<String>,
    host: bool,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            lines: Vec::new(),
            host: true,
            body: None,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    /// A header line as it stands; names may be anything.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.host &= !name.eq_ignore_ascii_case("host");
        self.lines.push(format!("{name}: {value}"));
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if self.host {
            text.push_str("Host: localhost\r\n");
        }
        for line in &self.lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it on a connection of its own.
    pub(crate) fn try_send(&self, port: u16) -> Result<Response, Unread> {
        let mut client = Client::connect(port).map_err(|error| Unread::Cut(error.to_string()))?;
        client.exchange(self)
    }

    /// The same, to any address of this machine.
    pub(crate) fn try_send_to(&self, address: SocketAddr) -> Result<Response, Unread> {
        let mut client =
            Client::connect_to(address).map_err(|error| Unread::Cut(error.to_string()))?;
        client.exchange(self)
    }

    /// Sends it on a connection of its own; panics when there is no answer.
    #[track_caller]
    pub(crate) fn send(&self, port: u16) -> Response {
        self.try_send(port)
            .unwrap_or_else(|error| panic!("{} {} on {port}: {error:?}", self.method, self.target))
    }

    /// The status alone, or `None` when there is no answer.
    pub(crate) fn status(&self, port: u16) -> Option<u16> {
        self.try_send(port).ok().map(|response| response.status)
    }
}

/// Whether something accepts connections there.
pub(crate) fn accepts(port: u16) -> bool {
    accepts_at(SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), port)))
}

pub(crate) fn accepts_at(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}
