//! What `tokio-postgres` gets to speak through: a stream that is connected and
//! encrypted already, and looks at what the server asks for during the login
//! before an answer is made.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready as polled};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_util::io::poll_read_buf;

use crate::pg::backend::{Passwords, Transport, channel_binding, check_iterations};
use crate::pg::failure::ConnectFailure;

/// Tag, length and method of an authentication request (protocol, "Message
/// Formats").
const HEAD: usize = 9;
/// Longest request that is waited for; longer ones are not read through.
const LONGEST: usize = 64 * 1024;
const AUTHENTICATION: u8 = b'R';
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;

/// A stream at the beginning of a login.
pub(super) struct LoginStream {
    transport: Transport,
    passwords: Passwords,
    /// Read and not handed out.
    held: BytesMut,
    /// How much of it was looked at.
    judged: usize,
    /// Whether the password has been asked for.
    over: bool,
}

/// Hands the stream over as it is.
pub(super) struct Dialled;

impl LoginStream {
    pub(super) fn new(transport: Transport, passwords: Passwords) -> Self {
        Self {
            transport,
            passwords,
            held: BytesMut::new(),
            judged: 0,
            over: false,
        }
    }

    /// Reads on until there is something that may be handed out.
    fn poll_judged(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.judged == 0 && !self.over {
            let read = poll_read_buf(Pin::new(&mut self.transport), context, &mut self.held);
            if polled!(read)? == 0 {
                self.over = true;
            }
            while !self.over && self.judge()? {}
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at the next message; whether it was whole.
    fn judge(&mut self) -> io::Result<bool> {
        let rest = self.held.get(self.judged..).unwrap_or_default();
        let Some((head, after)) = rest.split_first_chunk::<HEAD>() else {
            return Ok(false);
        };
        let [tag, l0, l1, l2, l3, m0, m1, m2, m3] = *head;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(LONGEST);
        let method = u32::from_be_bytes([m0, m1, m2, m3]);
        // The length counts itself and the method.
        let body = length.saturating_sub(8);
        if tag != AUTHENTICATION || body > LONGEST {
            self.over = true;
            return Ok(true);
        }
        let Some(body) = after.get(..body) else {
            return Ok(false);
        };
        let refused = match method {
            CLEARTEXT if !self.passwords.cleartext => Some(ConnectFailure::Method("password")),
            MD5 if !self.passwords.md5 => Some(ConnectFailure::Method("md5")),
            SASL_CONTINUE => check_iterations(body).err(),
            _ => None,
        };
        if let Some(failure) = refused {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, failure));
        }
        self.judged += HEAD + body.len();
        // Nothing else is answered with what a password makes.
        self.over = method != SASL;
        Ok(true)
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
        match channel_binding(&self.transport) {
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
        polled!(stream.poll_judged(context))?;
        if stream.held.is_empty() {
            return Pin::new(&mut stream.transport).poll_read(context, buffer);
        }
        let allowed = match stream.over {
            true => stream.held.len(),
            false => stream.judged,
        };
        let count = allowed.min(buffer.remaining());
        buffer.put_slice(stream.held.get(..count).unwrap_or_default());
        stream.held.advance(count);
        stream.judged = stream.judged.saturating_sub(count);
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
