//! Bad networks: a TCP proxy in this process that delays, drops, half-opens,
//! resets at a byte, dribbles. What is random comes from a seed that is printed.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What happens to connections accepted from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Each piece, both ways, comes this much later.
    Delay(Duration),
    /// Accepted and reset before a byte.
    Refuse,
    /// Accepted; bytes are read and lead nowhere.
    BlackHole,
    /// Connected through, but nothing of the answer ever comes.
    HalfOpen,
    /// Reset both ways after so many bytes toward the client.
    ResetAnswerAt(usize),
    /// Reset both ways after so many bytes toward the app.
    ResetRequestAt(usize),
    /// Closed with FIN after so many bytes toward the client.
    CloseAnswerAt(usize),
    /// So many bytes at a time, this much apart, toward the client.
    Dribble(usize, Duration),
    /// One of the above, drawn per connection.
    Any,
}

struct Shared {
    target: SocketAddr,
    fault: Mutex<(Fault, fastrand::Rng)>,
    stopping: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

/// A running shim; stops when dropped.
pub(crate) struct Shim {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Shim {
    /// In front of a port of loopback, without faults.
    pub(crate) fn start(target: u16, seed: u64) -> Self {
        println!("shim: seed {seed}");
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, target)),
            fault: Mutex::new((Fault::None, fastrand::Rng::with_seed(seed))),
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
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

    /// Sets what happens to connections accepted from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0 = fault;
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Ends every open connection, with RST where asked.
    pub(crate) fn cut(&self, reset: bool) {
        for stream in self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            end(&stream, reset);
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.cut(false);
        // Wakes the acceptor, which looks at `stopping` first.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Ends both directions; with `reset`, unsent bytes are dropped and RST is sent
/// when the last copy of the socket goes.
fn end(stream: &TcpStream, reset: bool) {
    if reset {
        // Fails only on sockets that are gone already.
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let fault = draw(shared);
        let shared = Arc::clone(shared);
        // A failed copy or connect ends this connection and nothing else.
        thread::spawn(move || carry(&client, fault, &shared).unwrap_or_default());
    }
}

fn draw(shared: &Shared) -> Fault {
    let mut state = shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
    let (fault, random) = &mut *state;
    if *fault != Fault::Any {
        return *fault;
    }
    match random.u8(0..9) {
        0 => Fault::Delay(Duration::from_millis(random.u64(1..80))),
        1 => Fault::Refuse,
        2 => Fault::BlackHole,
        3 => Fault::HalfOpen,
        4 => Fault::ResetAnswerAt(random.usize(0..400)),
        5 => Fault::ResetRequestAt(random.usize(0..400)),
        6 => Fault::CloseAnswerAt(random.usize(0..400)),
        7 => Fault::Dribble(random.usize(1..40), Duration::from_millis(1)),
        _ => Fault::None,
    }
}

fn carry(client: &TcpStream, fault: Fault, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    remember(client, shared)?;
    match fault {
        Fault::Refuse => {
            end(client, true);
            return Ok(());
        }
        Fault::BlackHole => {
            let mut sink = [0; 4096];
            while (&*client).read(&mut sink)? > 0 {}
            return Ok(());
        }
        _ => {}
    }
    let app = TcpStream::connect_timeout(&shared.target, Duration::from_secs(2))?;
    app.set_nodelay(true)?;
    remember(&app, shared)?;
    let (back_from, back_to) = (app.try_clone()?, client.try_clone()?);
    let answers = thread::spawn(move || pump(&back_from, &back_to, fault, Way::Answer));
    let reset = pump(client, &app, fault, Way::Request);
    let reset = answers.join().unwrap_or_default() || reset;
    end(client, reset);
    end(&app, reset);
    let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|stream| stream.peer_addr().is_ok());
    Ok(())
}

fn remember(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let copy = stream.try_clone()?;
    shared
        .open
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(copy);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

/// Copies one way until its end or the fault; says whether it ended in a reset.
fn pump(from: &TcpStream, to: &TcpStream, fault: Fault, way: Way) -> bool {
    let mut buffer = [0; 16 * 1024];
    let mut passed = 0;
    loop {
        let count = match (&*from).read(&mut buffer) {
            Ok(0) | Err(_) => {
                // The other half may still have something to say.
                let _ = to.shutdown(Shutdown::Write);
                return false;
            }
            Ok(count) => count,
        };
        let limit = match (fault, way) {
            (Fault::ResetAnswerAt(at) | Fault::CloseAnswerAt(at), Way::Answer)
            | (Fault::ResetRequestAt(at), Way::Request) => at.saturating_sub(passed).min(count),
            (Fault::HalfOpen, Way::Answer) => continue,
            _ => count,
        };
        if send(to, &buffer[..limit], fault, way).is_err() {
            return false;
        }
        passed += limit;
        if limit < count {
            let reset = !matches!(fault, Fault::CloseAnswerAt(_));
            end(to, reset);
            end(from, reset);
            return reset;
        }
    }
}

fn send(mut to: &TcpStream, bytes: &[u8], fault: Fault, way: Way) -> io::Result<()> {
    match (fault, way) {
        (Fault::Delay(time), _) => super::wait::pause(time),
        (Fault::Dribble(size, time), Way::Answer) => {
            for piece in bytes.chunks(size.max(1)) {
                to.write_all(piece)?;
                super::wait::pause(time);
            }
            return Ok(());
        }
        _ => {}
    }
    to.write_all(bytes)
}
