//! Accepting connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::files;

/// First pause after an accept error such as EMFILE; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// While descriptors are short at the end.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// Connections taken from the queue at the end before others are served.
const AT_A_TIME: usize = 16;
/// Between two complaints of one listener.
const QUIET: Duration = Duration::from_secs(10);

/// Accepts until `closed` is cancelled, hands each connection to `serve`, then
/// empties the accept queue (closing a socket of a SO_REUSEPORT group resets
/// what it queued) and closes the socket.
///
/// Leaves connections in the queue while descriptors are short, and drops none
/// for that: who wants an end to it drops the future.
pub async fn accept_loop(
    listener: Rc<TcpListener>,
    closed: CancellationToken,
    serve: Rc<dyn Fn(TcpStream, SocketAddr)>,
) -> io::Result<()> {
    let begins = lowest_free(&*listener).unwrap_or_else(|_| listener.as_raw_fd());
    let ends = files::accept_ends(begins);
    let mut pause = FIRST_PAUSE;
    let mut short = false;
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = closed.cancelled() => break,
            accepted = accept(&listener, short.then_some(ends)) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                short = stream.as_raw_fd() >= ends;
                if files::may_keep(&stream) {
                    serve(stream, peer);
                }
            }
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= QUIET) {
                    complained = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept connections, pausing");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = closed.cancelled() => {}
                }
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
    match Rc::try_unwrap(listener) {
        // Without the runtime: between the last look and the end is nothing.
        Ok(listener) => serve_queue(&listener.into_std()?, ends, &*serve).await,
        // Somebody else goes on with it.
        Err(_) => Ok(()),
    }
}

/// Accepts what waits in the queue and nothing more. Where descriptors are
/// short it goes on as connections give theirs back: whoever drops this at its
/// deadline resets what is left.
async fn serve_queue(
    listener: &StdListener,
    ends: RawFd,
    serve: &dyn Fn(TcpStream, SocketAddr),
) -> io::Result<()> {
    for served in 1_usize.. {
        // An error is a want of descriptors, too.
        while !lowest_free(listener).is_ok_and(|number| number < ends) {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                serve(TcpStream::from_std(stream)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_about_the_connection(&error) => {}
            // Another thread was faster to take the last one.
            Err(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
        if served % AT_A_TIME == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// The next connection; when descriptors were short the last time, only once
/// there is a free number below `ends`.
async fn accept(
    listener: &TcpListener,
    ends: Option<RawFd>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(ends) = ends
        && lowest_free(listener)? >= ends
    {
        return Err(io::Error::other("too many open files"));
    }
    listener.accept().await
}

/// The number the next descriptor will have.
fn lowest_free(listener: &impl AsFd) -> io::Result<RawFd> {
    let copy = socket2::SockRef::from(listener).try_clone()?;
    Ok(copy.as_raw_fd())
}

/// The client gave up before it was accepted; the listener is fine.
fn is_about_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_is_queued_is_served_before_the_socket_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = Rc::new(listener.expect("a free port"));
        let address = listener.local_addr().expect("bound");
        let clients: Vec<_> = (0..20)
            .map(|_| std::net::TcpStream::connect(address).expect("queued"))
            .collect();
        let closed = CancellationToken::new();
        closed.cancel();
        let served = Rc::new(Cell::new(0));
        let count = Rc::clone(&served);
        let serve = Rc::new(move |_, _| count.set(count.get() + 1));
        accept_loop(listener, closed, serve).await.expect("listens");
        assert_eq!(served.get(), clients.len());
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
