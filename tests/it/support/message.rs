//! HTTP/1.1 messages, read strictly (RFC 9112): whatever is not exactly right is
//! an error with words for the test's output.

use std::io::{self, Read};

/// Header or trailer fields in the order and spelling they came in.
pub(crate) type Fields = Vec<(String, String)>;

/// A start line and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Request line or status line.
    pub(crate) start: String,
    pub(crate) headers: Fields,
}

impl Head {
    /// All values of a header, by case-insensitive name.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of a header that must not be there twice.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        let first = values.next();
        assert_eq!(
            values.next(),
            None,
            "`{name}` is there twice: {:?}",
            self.headers
        );
        first
    }
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Why a message could not be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The peer closed before the first byte.
    Closed,
    /// The peer closed or reset within the message.
    Cut(String),
    TimedOut,
    /// Not RFC 9112.
    Malformed(String),
}

impl Unread {
    fn from_io(error: &io::Error, begun: bool) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset if !begun => Self::Closed,
            _ => Self::Cut(error.to_string()),
        }
    }
}

fn malformed<T>(text: impl Into<String>) -> Result<T, Unread> {
    Err(Unread::Malformed(text.into()))
}

/// A byte stream with everything that was read from it.
pub(crate) struct Reader<R> {
    pub(crate) stream: R,
    buffer: Vec<u8>,
    at: usize,
    /// Raw bytes since [`Reader::start_recording`].
    record: Vec<u8>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            at: 0,
            record: Vec::new(),
        }
    }

    /// Bytes received and not yet consumed.
    pub(crate) fn left_over(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    pub(crate) fn start_recording(&mut self) {
        self.record.clear();
    }

    /// Raw bytes consumed since [`Reader::start_recording`].
    pub(crate) fn recorded(&self) -> &[u8] {
        &self.record
    }

    /// Reads once from the stream; 0 at its end.
    fn fill(&mut self) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let mut chunk = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    fn consume(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.buffer[self.at..self.at + count].to_vec();
        self.at += count;
        if self.record.len() < 256 * 1024 {
            self.record.extend_from_slice(&bytes);
        }
        bytes
    }

    /// A line without its CR LF.
    fn line(&mut self, begun: bool) -> Result<String, Unread> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.left_over()[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.consume(searched + found + 1);
                let Some(text) = line.strip_suffix(b"\r\n") else {
                    return malformed(format!(
                        "bare LF after {:?}",
                        String::from_utf8_lossy(&line)
                    ));
                };
                if text.contains(&b'\r') || text.contains(&0) {
                    return malformed(format!("CR or NUL in {:?}", String::from_utf8_lossy(text)));
                }
                return String::from_utf8(text.to_vec())
                    .or_else(|_| malformed("a line is not UTF-8"));
            }
            searched = self.left_over().len();
            if searched > 1024 * 1024 {
                return malformed("a line of more than 1 MiB");
            }
            let begun = begun || searched > 0;
            match self.fill() {
                Ok(0) if begun => return Err(Unread::Cut("closed within a head".to_owned())),
                Ok(0) => return Err(Unread::Closed),
                Ok(_) => {}
                Err(error) => return Err(Unread::from_io(&error, begun)),
            }
        }
    }

    /// Start line and headers.
    pub(crate) fn head(&mut self) -> Result<Head, Unread> {
        let start = self.line(false)?;
        let headers = self.fields()?;
        Ok(Head { start, headers })
    }

    fn fields(&mut self) -> Result<Fields, Unread> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(true)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return malformed(format!("a header without colon: {line:?}"));
            };
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return malformed(format!("not a header name: {name:?}"));
            }
            if value
                .bytes()
                .any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f)
            {
                return malformed(format!("a control byte in the value of {name}"));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// The next bytes of a body of known length or until close; empty at its end.
    pub(crate) fn some(&mut self, most: usize) -> Result<Vec<u8>, Unread> {
        if self.left_over().is_empty() {
            match self.fill() {
                Ok(0) => return Ok(Vec::new()),
                Ok(_) => {}
                Err(error) => return Err(Unread::from_io(&error, true)),
            }
        }
        let count = self.left_over().len().min(most);
        Ok(self.consume(count))
    }

    /// Exactly `count` bytes.
    pub(crate) fn exactly(&mut self, count: u64) -> Result<Vec<u8>, Unread> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < count {
            let missing = usize::try_from(count - bytes.len() as u64).unwrap_or(usize::MAX);
            let more = self.some(missing)?;
            if more.is_empty() {
                return Err(Unread::Cut(format!(
                    "{} of {count} body bytes",
                    bytes.len()
                )));
            }
            bytes.extend(more);
        }
        Ok(bytes)
    }

    /// One chunk's data; empty for the last one, whose trailers are returned too.
    pub(crate) fn chunk(&mut self) -> Result<(Vec<u8>, Fields), Unread> {
        let line = self.line(true)?;
        let strict = !line.is_empty()
            && line.len() <= 16
            && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(size) = strict
            .then(|| u64::from_str_radix(&line, 16).ok())
            .flatten()
        else {
            return malformed(format!("not a chunk size: {line:?}"));
        };
        if size == 0 {
            return Ok((Vec::new(), self.fields()?));
        }
        let data = self.exactly(size)?;
        if self.exactly(2)? != b"\r\n" {
            return malformed("no CR LF after a chunk");
        }
        Ok((data, Vec::new()))
    }

    /// A whole body, with its trailers.
    pub(crate) fn body(&mut self, framing: Framing) -> Result<(Vec<u8>, Fields), Unread> {
        let mut body = Vec::new();
        match framing {
            Framing::Length(length) => Ok((self.exactly(length)?, Vec::new())),
            Framing::Chunked => loop {
                let (data, trailers) = self.chunk()?;
                if data.is_empty() {
                    return Ok((body, trailers));
                }
                body.extend(data);
            },
            Framing::UntilClose => loop {
                let more = self.some(usize::MAX)?;
                if more.is_empty() {
                    return Ok((body, Vec::new()));
                }
                body.extend(more);
            },
        }
    }
}

/// How the body after this head is framed; `otherwise` when no header says so.
pub(crate) fn framing(head: &Head, otherwise: Framing) -> Result<Framing, Unread> {
    let codings: Vec<&str> = head.all("transfer-encoding").collect();
    let lengths: Vec<&str> = head.all("content-length").collect();
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(otherwise),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([], [length])
            if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            length
                .parse()
                .map(Framing::Length)
                .or_else(|_| malformed(format!("content-length {length}")))
        }
        _ => malformed(format!("framing by {codings:?} and {lengths:?}")),
    }
}
