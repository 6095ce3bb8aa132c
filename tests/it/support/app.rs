//! The app behind the sidecar, as a script at byte level that records what
//! reaches it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::message::{Fields, Framing, Head, Reader, Unread, framing};

/// Requests kept for the test to look at; all are counted.
const KEPT: usize = 4096;

/// One request exactly as the app received it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Counts connections from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Every byte, from the request line on (256 KiB at most).
    pub(crate) raw: Vec<u8>,
}

impl Received {
    /// A header that must not be there twice.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
}

/// What happens to the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    KeepAlive,
    Close,
    /// RST instead of FIN.
    Reset,
}

/// The app's half of one exchange: writes whatever it wants.
pub(crate) trait Script: Send + Sync + 'static {
    /// Called before anything was read of a new connection.
    fn greet(&self, _stream: &mut Connection) -> io::Result<Next> {
        Ok(Next::KeepAlive)
    }

    /// Called for each complete request.
    fn answer(&self, request: &Received, stream: &mut Connection) -> io::Result<Next>;
}

impl<F> Script for F
where
    F: Fn(&Received, &mut Connection) -> io::Result<Next> + Send + Sync + 'static,
{
    fn answer(&self, request: &Received, stream: &mut Connection) -> io::Result<Next> {
        self(request, stream)
    }
}

/// The writing side of the app's end of a connection.
pub(crate) struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Connection {
    /// Waits, but not beyond the end of the app. `false` once the app stops.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let step = Duration::from_millis(20);
        let mut left = time;
        while !left.is_zero() && !self.stopping() {
            let now = left.min(step);
            super::wait::pause(now);
            left -= now;
        }
        !self.stopping()
    }

    pub(crate) fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// A response with a length.
    pub(crate) fn respond(&mut self, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {status} Text\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

struct Shared {
    script: Box<dyn Script>,
    stopping: AtomicBool,
    count: AtomicUsize,
    connections: AtomicUsize,
    received: Mutex<VecDeque<Received>>,
    /// What came in and was not HTTP.
    faults: Mutex<Vec<String>>,
    open: Mutex<Vec<TcpStream>>,
}

/// A running app; stops when dropped.
pub(crate) struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl App {
    /// Starts on a port of the kernel's choice.
    pub(crate) fn start(script: impl Script) -> Self {
        Self::start_on(0, script)
    }

    /// Starts on this port of loopback.
    pub(crate) fn start_on(port: u16, script: impl Script) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), script)
    }

    /// Starts on this address of loopback.
    pub(crate) fn start_at(address: SocketAddr, script: impl Script) -> Self {
        let listener = TcpListener::bind(address).expect("the app's address is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            stopping: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            received: Mutex::default(),
            faults: Mutex::default(),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Requests that arrived complete.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::Acquire)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// The requests kept, oldest first; forgets them.
    pub(crate) fn take(&self) -> Vec<Received> {
        lock(&self.shared.received).drain(..).collect()
    }

    /// The newest request kept.
    #[track_caller]
    pub(crate) fn last(&self) -> Received {
        lock(&self.shared.received)
            .back()
            .expect("the app received a request")
            .clone()
    }

    /// Everything that reached the app and was not strict HTTP/1.1.
    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.shared.faults).clone()
    }

    /// Cuts every open connection.
    pub(crate) fn cut_connections(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            // Already gone is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.cut_connections();
        // Wakes the acceptor, which looks at `stopping` first.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let number = shared.connections.fetch_add(1, Ordering::AcqRel);
        if let Ok(copy) = stream.try_clone() {
            let mut open = lock(&shared.open);
            // Ended ones are let go, or the list would grow with every connection.
            open.retain(|stream| stream.peer_addr().is_ok());
            open.push(copy);
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // The peer may go away at any time; that is its right.
            let _ = serve(stream, number, &shared);
        });
    }
}

fn serve(stream: TcpStream, number: usize, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream.try_clone()?);
    let mut connection = Connection {
        stream,
        shared: Arc::clone(shared),
    };
    let mut next = shared.script.greet(&mut connection)?;
    while next == Next::KeepAlive && !connection.stopping() {
        next = match receive(&mut reader, number) {
            Ok(request) => {
                shared.count.fetch_add(1, Ordering::AcqRel);
                let mut received = lock(&shared.received);
                if received.len() == KEPT {
                    received.pop_front();
                }
                received.push_back(request.clone());
                drop(received);
                shared.script.answer(&request, &mut connection)?
            }
            Err(Unread::Malformed(why)) => {
                lock(&shared.faults).push(why);
                Next::Close
            }
            Err(Unread::Closed | Unread::Cut(_) | Unread::TimedOut) => Next::Close,
        };
    }
    if next == Next::Reset {
        socket2::SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO))?;
    } else {
        // Both halves: copies of the socket live in `open` and in the reader.
        let _ = connection.stream.shutdown(Shutdown::Both);
    }
    forget(shared, &connection.stream);
    Ok(())
}

/// Drops the copy kept for [`App::cut_connections`], so that a reset takes effect.
fn forget(shared: &Shared, stream: &TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    lock(&shared.open).retain(|kept| kept.peer_addr().is_ok_and(|other| other != peer));
}

fn receive(reader: &mut Reader<TcpStream>, connection: usize) -> Result<Received, Unread> {
    reader.start_recording();
    let head = reader.head()?;
    let parts: Vec<&str> = head.start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts.as_slice() else {
        return Err(Unread::Malformed(format!(
            "not a request line: {:?}",
            head.start
        )));
    };
    let (method, target) = ((*method).to_owned(), (*target).to_owned());
    if head.all("host").count() != 1 {
        return Err(Unread::Malformed(format!("not one Host: {head:?}")));
    }
    let (body, trailers) = reader.body(framing(&head, Framing::Length(0))?)?;
    Ok(Received {
        connection,
        method,
        target,
        head,
        body,
        trailers,
        raw: reader.recorded().to_vec(),
    })
}
