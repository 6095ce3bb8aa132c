//! A byte stream, whatever carries it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::files;

/// Unacknowledged data for this long means the other host is gone (SPEC §2.4).
const DIALLED_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected TCP or Unix stream, or TLS over TCP.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: plain streams are moved about without its weight.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Wraps an accepted connection.
    pub fn accepted(stream: TcpStream) -> Self {
        // Fails only on a socket that is already dead; reading will tell.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    /// Wraps a connection made by us: no delay, keepalive, user timeout.
    pub fn dialled(stream: TcpStream) -> Self {
        Self::prepare(&stream);
        Self::Tcp(stream)
    }

    /// What a connection made by us gets, whatever it is going to carry.
    pub fn prepare(stream: &TcpStream) {
        let socket = SockRef::from(stream);
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5));
        // None of these can matter on a socket that is already dead.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&keepalive);
        let _ = socket.set_tcp_user_timeout(Some(DIALLED_USER_TIMEOUT));
    }

    /// Whether the data path may keep it: few descriptors are left for others.
    pub fn may_be_kept(&self) -> bool {
        match self {
            Self::Tcp(stream) => files::may_keep(stream),
            Self::Unix(stream) => files::may_keep(stream),
            Self::Tls(stream) => files::may_keep(stream.get_ref().0),
        }
    }

    /// Whether an idle connection is still usable: open, and silent. Costs no
    /// system call unless the kernel has reported something.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        let outcome = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
            // Records of the protocol itself, such as tickets, may have come:
            // they are taken in and count as silence.
            Self::Tls(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                let mut buffer = ReadBuf::new(&mut byte);
                let polled = Pin::new(stream).poll_read(&mut context, &mut buffer);
                return polled.is_pending();
            }
        };
        matches!(outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ready when a read may have something to say, be it an end or an error.
    pub fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let polled = match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Tls(stream) => stream.get_ref().0.poll_read_ready(context),
        };
        polled.map(|_| ())
    }

    /// A close that is seen as a failure: the peer gets a reset, so a cut
    /// response cannot be taken for a complete one.
    pub fn reset_on_close(&self) {
        // A socket that refuses is closed anyway.
        let _ = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Self::Tls(stream) => SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) => Ok(()),
        };
    }

    /// Whether bytes may be held back here, to be sent by a flush.
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The kernel sends by itself.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
