//! Accepting connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// First pause after an accept error such as EMFILE; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Accepts until `closed` is cancelled, hands each connection to `serve`, then
/// empties the accept queue (closing a socket of a SO_REUSEPORT group resets
/// what it queued) and closes the socket.
pub async fn accept_loop(
    listener: StdListener,
    closed: CancellationToken,
    serve: Rc<dyn Fn(TcpStream, SocketAddr)>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = closed.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                serve(stream, peer);
            }
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, pausing");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
    let listener = listener.into_std()?;
    while let Ok((stream, peer)) = listener.accept() {
        stream.set_nonblocking(true)?;
        serve(TcpStream::from_std(stream)?, peer);
    }
    Ok(())
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
