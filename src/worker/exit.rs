//! A port that apps call others through: its accept loop and connections.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::drain::Phase;
use crate::inbound::ConnectionSettings;
use crate::model::{Kind, Limits};
use crate::net::deadline::Deadlines;
use crate::net::stream::Stream;
use crate::net::{self, ClientIo, End, OpenListener, Permits, Purpose, Spoken, Stalled, Watch};
use crate::outbound::{CallBody, CallEnding, CallTunnelSlot, Directory, Door, Entry};
use crate::reply;

/// The directory in force; replaced with each generation.
pub(super) type Callers = Rc<RefCell<Option<Rc<Directory>>>>;

/// One listening socket of this worker.
pub(super) struct Exit {
    entry: Entry,
    callers: Callers,
    deadlines: Deadlines,
    settings: ConnectionSettings,
    connections: Permits,
    ceiling: u32,
    phase: Cell<Phase>,
    closed: CancellationToken,
}

impl Exit {
    /// Begins to accept. `broken` is cancelled should that fail.
    pub(super) fn open(
        listener: OpenListener,
        entry: Entry,
        callers: Callers,
        deadlines: Deadlines,
        broken: CancellationToken,
    ) -> Rc<Self> {
        let limits = Limits::default();
        let exit = Rc::new(Self {
            entry,
            callers,
            deadlines,
            settings: ConnectionSettings::of(&limits),
            connections: Permits::default(),
            ceiling: limits.connections,
            phase: Cell::new(Phase::Serving),
            closed: CancellationToken::new(),
        });
        let serving = Rc::clone(&exit);
        let serve = Rc::new(move |stream, peer| serving.accepted(stream, peer));
        let closed = exit.closed.clone();
        // Tells the worker when accepting ends untold, by a panic too.
        let guard = broken.drop_guard();
        // Ends when the exit is retired, or with the worker.
        tokio::task::spawn_local(async move {
            if let Err(error) = net::accept_loop(listener.socket, closed, serve).await {
                tracing::error!(%error, "a listener failed");
            } else {
                guard.disarm();
            }
        });
        exit
    }

    /// The port it listens on.
    pub(super) fn number(&self) -> u16 {
        match self.entry {
            Entry::LocalPort { port, .. } | Entry::Door { port } => port,
        }
    }

    /// What a listener that is no service's public port stands for.
    pub(super) fn entry(listener: &OpenListener) -> Option<Entry> {
        match listener.purpose {
            Purpose::Service => None,
            Purpose::LocalPort(port) => Some(Entry::LocalPort {
                slot: listener.slot,
                port,
            }),
            Purpose::OutboundDoor => Some(Entry::Door {
                port: listener.address.port(),
            }),
        }
    }

    /// The port is no longer wanted: what is in flight finishes, the rest is
    /// cut at the deadline.
    pub(super) fn retire(self: Rc<Self>, deadline: Duration) {
        self.closed.cancel();
        // Ends by itself at the deadline.
        tokio::task::spawn_local(async move {
            for (phase, pause) in [(Phase::Closing, deadline), (Phase::Cut, Duration::ZERO)] {
                self.phase.set(phase);
                self.deadlines.wake_all();
                tokio::time::sleep(pause).await;
            }
        });
    }

    fn accepted(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let permit = self.connections.try_acquire(self.ceiling);
        let stream = Stream::accepted(stream);
        let exit = Rc::clone(self);
        // Ends with its connection, whose limits are all bounded.
        tokio::task::spawn_local(async move {
            match permit {
                Some(_permit) => exit.serve(stream, peer).await,
                None => net::answer_and_close(stream, &reply::raw(Kind::Overloaded, None)).await,
            }
        });
    }

    async fn serve(self: Rc<Self>, stream: Stream, peer: SocketAddr) {
        let watch = Watch::new(self.settings.timeouts, &self.deadlines);
        let mut io = ClientIo::new(stream, Rc::clone(&watch));
        let spoken = {
            let stalled = std::future::poll_fn(|context| watch.poll_stalled(context));
            tokio::select! {
                biased;
                spoken = io.spoken() => spoken,
                stalled = stalled => return end(End::Stalled(stalled), io.stream).await,
            }
        };
        let calling = Calling {
            peer: peer.ip(),
            tunnel: Rc::default(),
            exit: self,
            watch,
        };
        match spoken {
            Ok(Some(Spoken::Http1)) => calling.http1(io).await,
            Ok(Some(Spoken::Http2)) => calling.http2(io).await,
            // Closed, or broken, before it said anything.
            Ok(None) | Err(_) => {}
        }
    }
}

/// Leaves a connection as its end asks for.
async fn end(end: End, stream: Stream) {
    match end {
        End::Finished | End::Refused(_) => net::linger(stream).await,
        End::Stalled(Stalled::Head) => {
            net::answer_and_close(stream, &reply::raw(Kind::ClientTimeout, None)).await;
        }
        End::Stalled(Stalled::Idle) => {}
        End::Stalled(Stalled::Write) | End::Flooded | End::Cut => stream.reset_on_close(),
        End::Broken(error) => {
            tracing::debug!(%error, "a connection broke off");
            stream.reset_on_close();
        }
    }
}

/// A connection whose protocol is known.
struct Calling {
    exit: Rc<Exit>,
    peer: IpAddr,
    watch: Rc<Watch>,
    tunnel: CallTunnelSlot,
}

impl Calling {
    async fn http1(self, io: ClientIo) {
        let service = service_fn(|request| Box::pin(self.call(request)));
        let (limits, phase) = (self.exit.settings.parser, &self.exit.phase);
        let (ended, stream, leftover) =
            net::serve_http1(io, &self.watch, limits, phase, service).await;
        let tunnel = self.tunnel.take();
        match tunnel {
            Some(tunnel) if matches!(ended, End::Finished) => {
                let deadlines = &self.exit.deadlines;
                tunnel.run(stream, leftover, deadlines, phase).await;
            }
            _ => end(ended, stream).await,
        }
    }

    async fn http2(self, io: ClientIo) {
        self.watch.multiplexes();
        let calling = Rc::new(self);
        let calls = Rc::clone(&calling);
        let service = move |request| {
            let calling = Rc::clone(&calls);
            async move { calling.call(request).await }
        };
        let (limits, phase) = (calling.exit.settings.h2, &calling.exit.phase);
        let ended = net::serve_http2(io, &calling.watch, limits, phase, service).await;
        if let End::Broken(error) = ended {
            tracing::debug!(%error, "an HTTP/2 connection broke off");
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Response<CallBody>, Infallible> {
        self.watch.request_begun();
        let close = self.exit.phase.get() >= Phase::Announced;
        let ending = CallEnding {
            watch: Rc::clone(&self.watch),
            close,
            tunnel: Rc::clone(&self.tunnel),
        };
        let directory = self.exit.callers.borrow().clone();
        // The directory is made before the first listener is opened.
        let directory = directory.expect("listeners are opened after the directory is made");
        let door = Door::new(directory, self.exit.entry, self.peer);
        Ok(door.handle(request, ending).await)
    }
}
