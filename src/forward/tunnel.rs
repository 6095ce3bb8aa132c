//! A connection that switched protocols: bytes both ways until both ends are done.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::drain::Phase;
use crate::net::deadline::{Deadline, Deadlines};
use crate::net::stream::Stream;
use crate::upstream::h1::Switched;

/// Bytes held per direction; more waits in the kernel, which is the back-pressure.
const BUFFER_BYTES: usize = 16 * 1024;

/// How a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// Both ends closed.
    Closed,
    /// Nothing moved for the idle time.
    Idle,
    /// A drain ended it.
    Drained,
    Broken(io::Error),
}

/// Copies until both directions are closed (UPG-3): an end of one direction is
/// passed on, the other goes on.
///
/// `leftover` is what the client sent behind its request.
pub async fn tunnel(
    client: Stream,
    leftover: Bytes,
    upstream: Switched,
    idle: Duration,
    deadlines: &Deadlines,
    phase: &Cell<Phase>,
) -> TunnelEnd {
    let activity = Rc::new(deadlines.add());
    activity.arm(idle);
    let watched = |stream| Watched {
        stream,
        activity: Rc::clone(&activity),
        idle,
    };
    let mut client = watched(client);
    let mut app = watched(upstream.connection.into_stream());
    let copy = async {
        client.write_all(&upstream.leftover).await?;
        client.flush().await?;
        app.write_all(&leftover).await?;
        app.flush().await?;
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut app, BUFFER_BYTES, BUFFER_BYTES)
            .await
    };
    let ended = std::future::poll_fn(|context| {
        // Registers for the deadline and for the call that announces a drain.
        let expired = activity.poll_expired(context).is_ready();
        if phase.get() >= Phase::EndingTunnels {
            return Poll::Ready(TunnelEnd::Drained);
        }
        if expired {
            Poll::Ready(TunnelEnd::Idle)
        } else {
            Poll::Pending
        }
    });
    let end = tokio::select! {
        copied = copy => match copied {
            Ok(_) => TunnelEnd::Closed,
            Err(error) => TunnelEnd::Broken(error),
        },
        ended = ended => ended,
    };
    if matches!(end, TunnelEnd::Broken(_)) {
        // Neither side may take what it has for all there was.
        client.stream.reset_on_close();
        app.stream.reset_on_close();
    }
    end
}

/// A stream that moves the tunnel's deadline whenever bytes come.
struct Watched {
    stream: Stream,
    activity: Rc<Deadline>,
    idle: Duration,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        this.activity.arm(this.idle);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
