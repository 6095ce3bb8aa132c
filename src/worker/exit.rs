//! A port that apps call others through: its connections.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::Response;
use http_body::Body;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::leaving::Host;
use super::listening::{Listening, Opened};
use super::{keeping, leaving};
use crate::drain::Phase;
use crate::inbound::ConnectionSettings;
use crate::model::{Kind, Limits, ServiceName};
use crate::net::deadline::Deadlines;
use crate::net::http1::Spares;
use crate::net::stream::Stream;
use crate::net::{self, ClientIo, ClientRequest, End, Permits, Purpose, Spoken, Watch};
use crate::outbound::{CallBody, CallEnding, CallTunnelSlot, Directory, Door, Entry};
use crate::telemetry::recorder::Recorder;

/// The directory in force; replaced with each generation.
pub(super) type Callers = Rc<RefCell<Option<Rc<Directory>>>>;

/// What the exits of a worker share.
#[derive(Clone)]
pub(super) struct ExitParts {
    pub(super) callers: Callers,
    pub(super) deadlines: Deadlines,
    /// What heads are read with. Always empty: a call's goes on with its last
    /// attempt.
    pub(super) spares: Rc<Spares>,
    /// Calls in flight, of the whole process.
    pub(super) calls: Permits,
}

/// One listening socket of this worker.
pub(super) struct Exit {
    entry: Entry,
    parts: ExitParts,
    /// Goes before the directory in force once the port is given up.
    kept: RefCell<Option<Rc<Directory>>>,
    listening: Rc<Listening>,
    settings: ConnectionSettings,
    connections: Permits,
    ceiling: u32,
}

impl Exit {
    /// Begins to accept. `broken` is cancelled should that fail.
    pub(super) fn open(
        listener: Opened,
        entry: Entry,
        parts: ExitParts,
        broken: CancellationToken,
    ) -> Rc<Self> {
        let limits = Limits::default();
        let exit = Rc::new(Self {
            entry,
            parts,
            kept: RefCell::default(),
            listening: Listening::new(listener.address),
            settings: ConnectionSettings::of(&limits),
            connections: Permits::default(),
            ceiling: limits.connections,
        });
        let serving = Rc::clone(&exit);
        let serve = move |stream, peer| serving.accepted(stream, peer);
        exit.listening.accept(listener.socket, broken, serve);
        exit
    }

    /// What a listener that is no service's public port stands for.
    pub(super) fn entry(listener: &Opened) -> Option<Entry> {
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

    pub(super) fn listening(&self) -> &Rc<Listening> {
        &self.listening
    }

    /// Leads where it led: the directory in force knows the port no longer.
    pub(super) fn keep(&self, directory: Option<Rc<Directory>>) {
        self.kept.replace(directory);
    }

    fn directory(&self) -> Option<Rc<Directory>> {
        let kept = self.kept.borrow().clone();
        kept.or_else(|| self.parts.callers.borrow().clone())
    }

    fn accepted(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let permit = self.connections.try_acquire(self.ceiling);
        let counted = self.listening.counted();
        let exit = Rc::clone(self);
        // Ends with its connection, whose limits are all bounded.
        tokio::task::spawn_local(async move {
            match permit {
                Some(_permit) => exit.serve(stream, peer.ip()).await,
                None => exit.turn_away(Stream::accepted(stream), peer.ip()).await,
            }
            drop(counted);
        });
    }

    async fn turn_away(&self, stream: Stream, peer: IpAddr) {
        if let Some(_place) = self.listening.turn_away() {
            let detail = "too many connections";
            leaving::answer_unread(self, Kind::Overloaded, detail, stream, peer).await;
        }
    }

    async fn serve(self: Rc<Self>, stream: TcpStream, peer: IpAddr) {
        self.listening.let_speak(&stream).await;
        let watch = Watch::new(self.settings.timeouts, &self.parts.deadlines);
        let mut io = ClientIo::new(Stream::accepted(stream), Rc::clone(&watch));
        let spoken = {
            let unheard =
                std::future::poll_fn(|context| self.listening.poll_unheard(&watch, context));
            tokio::select! {
                biased;
                spoken = io.spoken() => spoken,
                end = unheard => return leaving::leave(&*self, end, io.stream, peer).await,
            }
        };
        let calling = Calling {
            peer,
            tunnel: Rc::default(),
            exit: self,
            watch,
        };
        match spoken {
            Ok(Some(Spoken::Http1)) => calling.http1(io).await,
            Ok(Some(Spoken::Http2)) => Box::pin(calling.http2(io)).await,
            // Closed, or broken, before it said anything.
            Ok(None) | Err(_) => {}
        }
    }
}

impl Host for Exit {
    fn recorder(&self) -> Option<Rc<Recorder>> {
        self.directory()?.unnamed(self.entry)
    }

    fn service(&self) -> Option<ServiceName> {
        None
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
        let service = |request| self.call(request);
        let (limits, listening) = (self.exit.settings.parser, &self.exit.listening);
        let limits = (limits, &*self.exit.parts.spares);
        let (ended, stream, leftover) =
            keeping::serve_http1(io, &self.watch, limits, listening, service).await;
        let tunnel = self.tunnel.take();
        match tunnel {
            Some(tunnel) if matches!(ended, End::Finished) => {
                let deadlines = &self.exit.parts.deadlines;
                // Boxed, as what is rare: every connection is as large as this.
                Box::pin(tunnel.run(stream, leftover, deadlines, listening.tunnels())).await;
            }
            // As most connections end.
            _ if matches!(ended, End::Agreed) && !stream.holds_back() => {}
            _ => leaving::leave(&*self.exit, ended, stream, self.peer).await,
        }
    }

    async fn http2(self, io: ClientIo) {
        self.watch.multiplexes();
        let calling = Rc::new(self);
        let calls = Rc::clone(&calling);
        let service = move |request| calls.call(request);
        let exit = &calling.exit;
        let (limits, phase) = (exit.settings.h2, exit.listening.phase());
        let end = net::serve_http2(io, &calling.watch, limits, phase, service).await;
        leaving::left_http2(&**exit, end, calling.peer);
    }

    fn call(&self, request: ClientRequest) -> impl Future<Output = Response<CallBody>> + use<> {
        let underway = self.watch.request_begun(request.body.is_end_stream());
        let close = self.exit.listening.phase().get() >= Phase::Announced;
        let ending = CallEnding {
            underway,
            close,
            tunnel: Rc::clone(&self.tunnel),
            in_flight: self.exit.parts.calls.acquire(),
        };
        // The directory is made before the first listener is opened.
        let directory = self.exit.directory();
        let directory = directory.expect("listeners are opened after the directory is made");
        let door = Door::new(directory, self.exit.entry, self.peer);
        door.handle(request, ending)
    }
}
