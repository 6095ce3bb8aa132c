//! Accepting and serving a door's connections.
//!
//! A door must answer probes whatever strangers do to it: connections are
//! bounded, a head must come in time, and when all places are taken the oldest
//! connection that has nothing under way makes room. So holding connections
//! open, or feeding them slowly, shuts nobody out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Door;
use super::route::answer;
use crate::model::Kind;
use crate::reply::raw;

/// Connections at once: a few scrapers, kubelets and people, with room. Both
/// doors together stay below the descriptors that are kept for them.
const CONNECTIONS: usize = 24;

/// For a complete head, and so also how long a connection may idle. Longer
/// than usual scrape intervals would only keep places taken.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Longest life of a connection; a client that does not read its answer is cut
/// then. The longest answer, a reload, takes 20 s.
const LIFE: Duration = Duration::from_secs(60);

/// For the answer under way when a connection's life ends.
const LAST_ANSWER: Duration = Duration::from_secs(25);

/// Bytes of a head and of hyper's buffers.
const BUFFER_BYTES: usize = 16 * 1024;

/// Rest after `accept` failed: usually descriptors ran out (EMFILE).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves a door until the future is dropped; dropping it cuts all its
/// connections. `listener` is bound and listening, in non-blocking mode.
pub async fn serve(listener: std::net::TcpListener, door: Door) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let mut places = Places::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = places.tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => places.seat(stream, peer, &door),
            Err(error) => {
                tracing::warn!(%error, "a door cannot accept connections");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// The connections of one door, oldest first.
#[derive(Default)]
struct Places {
    tasks: JoinSet<()>,
    seated: VecDeque<Seat>,
}

struct Seat {
    task: AbortHandle,
    /// Requests under way: 0 or 1, as HTTP/1 goes.
    busy: Arc<AtomicUsize>,
}

impl Places {
    fn seat(&mut self, stream: TcpStream, peer: SocketAddr, door: &Door) {
        self.seated.retain(|seat| !seat.task.is_finished());
        if self.seated.len() >= CONNECTIONS && !self.make_room() {
            refuse(stream);
            return;
        }
        let busy = Arc::new(AtomicUsize::new(0));
        let connection = serve_connection(stream, peer, door.clone(), Arc::clone(&busy));
        let task = self.tasks.spawn(connection);
        self.seated.push_back(Seat { task, busy });
    }

    /// Ends the oldest connection without a request under way.
    fn make_room(&mut self) -> bool {
        let idle = |seat: &Seat| seat.busy.load(Ordering::Relaxed) == 0;
        let Some(index) = self.seated.iter().position(idle) else {
            return false;
        };
        if let Some(seat) = self.seated.remove(index) {
            seat.task.abort();
        }
        true
    }
}

/// Everybody is busy: says so and hangs up. A new socket's send buffer is
/// empty, so the answer fits or the client is not there.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Whether it arrives is the client's affair.
        let _ = stream.write(&raw(Kind::Overloaded, None));
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, door: Door, busy: Arc<AtomicUsize>) {
    // Answers are small and written whole.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let door = door.clone();
        let under_way = UnderWay::begin(&busy);
        async move {
            let _under_way = under_way;
            let response = answer(&door, request, peer.ip()).await;
            Ok::<_, Infallible>(response.map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        // An error or another timeout ends the connection all the same.
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}

/// A request being answered.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
