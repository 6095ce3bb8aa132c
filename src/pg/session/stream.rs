//! What `tokio-postgres` gets to speak through: a stream that is connected and
//! encrypted already, and looks at how the server asks for the password before
//! one is sent.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready as polled};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::pg::backend::{Passwords, Transport};
use crate::pg::failure::ConnectFailure;

/// Tag, length and method of an authentication request (protocol, "Message
/// Formats").
const HEAD: usize = 9;
const AUTHENTICATION: u8 = b'R';
const CLEARTEXT: [u8; 4] = 3_u32.to_be_bytes();
const MD5: [u8; 4] = 5_u32.to_be_bytes();

/// A stream at the beginning of a login.
pub(super) struct LoginStream {
    transport: Transport,
    passwords: Passwords,
    /// The first bytes of the server, held back until they are whole.
    head: [u8; HEAD],
    held: usize,
    /// How many of them were handed out; `None` while more are to come.
    given: Option<usize>,
}

/// Hands the stream over as it is.
pub(super) struct Dialled;

impl LoginStream {
    pub(super) fn new(transport: Transport, passwords: Passwords) -> Self {
        Self {
            transport,
            passwords,
            head: [0; HEAD],
            held: 0,
            given: None,
        }
    }

    /// Reads the first message's head and judges it.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.given.is_none() {
            let rest = self.head.get_mut(self.held..).unwrap_or_default();
            let mut buffer = ReadBuf::new(rest);
            polled!(Pin::new(&mut self.transport).poll_read(context, &mut buffer))?;
            let count = buffer.filled().len();
            self.held += count;
            if count == 0 || self.held == HEAD {
                self.judge()?;
                self.given = Some(0);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The password is asked for with the first message or not at all.
    fn judge(&self) -> io::Result<()> {
        let [tag, _, _, _, _, method @ ..] = self.head;
        let whole = self.held == HEAD && tag == AUTHENTICATION;
        let refused = match method {
            CLEARTEXT if whole && !self.passwords.cleartext => "password",
            MD5 if whole && !self.passwords.md5 => "md5",
            _ => return Ok(()),
        };
        let failure = ConnectFailure::Method(refused);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, failure))
    }
}

/// What kept a login from happening, where the server said nothing.
pub(super) fn failure_of(error: &tokio_postgres::Error, has_password: bool) -> ConnectFailure {
    let source = std::error::Error::source(error);
    if let Some(failed) = source.and_then(|source| source.downcast_ref::<io::Error>()) {
        let ours = failed.get_ref();
        let ours = ours.and_then(|inner| inner.downcast_ref::<ConnectFailure>());
        return ours
            .cloned()
            .unwrap_or_else(|| ConnectFailure::Io(failed.kind()));
    }
    match (error.is_closed(), has_password) {
        (true, _) => ConnectFailure::Io(io::ErrorKind::UnexpectedEof),
        (false, false) => ConnectFailure::NoPassword,
        (false, true) => ConnectFailure::Login(super::whole(error)),
    }
}

impl TlsConnect<LoginStream> for Dialled {
    type Stream = LoginStream;
    type Error = io::Error;
    type Future = Ready<io::Result<LoginStream>>;

    fn connect(self, stream: LoginStream) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for LoginStream {
    fn channel_binding(&self) -> ChannelBinding {
        match self.transport.channel_binding() {
            Some(digest) => ChannelBinding::tls_server_end_point(digest),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for LoginStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        polled!(stream.poll_head(context))?;
        let given = stream.given.unwrap_or(HEAD);
        let rest = stream.head.get(given..stream.held).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut stream.transport).poll_read(context, buffer);
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        stream.given = Some(given + count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LoginStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(context)
    }
}
