//! A port of one worker: its accept loop and the connections that came by it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use http_body::Body;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::leaving::Host;
use super::listening::{Listening, Opened, refusal};
use super::secure::Peers;
use super::{keeping, leaving};
use crate::drain::Phase;
use crate::inbound::{
    ClientSide, ConnectionSettings, Door, Ending, Local, RecordedBody, Site, TunnelSlot,
    WorkerParts,
};
use crate::model::{Kind, ServiceName};
use crate::net::stream::Stream;
use crate::net::tls::{PeerCertificate, ServerTls};
use crate::net::{self, ClientIo, ClientRequest, End, Permit, Spoken, Watch};
use crate::telemetry::recorder::Recorder;

/// One listening socket of this worker.
pub(super) struct Port {
    site: Rc<Site>,
    parts: Rc<WorkerParts>,
    listening: Rc<Listening>,
    peers: Rc<Peers>,
}

/// A connection before its protocol is known.
pub(super) struct Arrival {
    pub(super) peer: SocketAddr,
    /// As they are when the connection is opened.
    opened: ConnectionSettings,
    pub(super) watch: Rc<Watch>,
    /// What it is under; `None` in plain text.
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) certificate: Option<Rc<PeerCertificate>>,
}

impl Port {
    /// Begins to accept. `broken` is cancelled should that fail.
    pub(super) fn open(
        site: Rc<Site>,
        parts: Rc<WorkerParts>,
        listener: Opened,
        broken: CancellationToken,
    ) -> Rc<Self> {
        let Opened {
            address, socket, ..
        } = listener;
        let port = Rc::new(Self {
            site,
            parts,
            listening: Listening::new(address),
            peers: Rc::default(),
        });
        port.judge_peers();
        let serving = Rc::clone(&port);
        let serve = move |stream, peer| serving.accepted(stream, peer);
        port.listening.accept(socket, broken, serve);
        port
    }

    pub(super) fn listening(&self) -> &Rc<Listening> {
        &self.listening
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn peers(&self) -> &Rc<Peers> {
        &self.peers
    }

    pub(super) fn phase(&self) -> Phase {
        self.listening.phase().get()
    }

    /// The worker's clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.parts.deadlines.clock().now_ms()
    }

    fn accepted(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let local = self.site.current();
        let ceiling = local.service.as_ready().map_or_else(
            || crate::model::Limits::default().connections,
            |ready| ready.spec.limits.connections,
        );
        let permit = local.service.connections.try_acquire(ceiling);
        let counted = self.listening.counted();
        let port = Rc::clone(self);
        // Ends with its connection, whose limits are all bounded.
        tokio::task::spawn_local(async move {
            match permit {
                Some(permit) => port.serve(stream, peer, permit).await,
                None => port.turn_away(stream, peer).await,
            }
            drop(counted);
        });
    }

    async fn turn_away(&self, stream: TcpStream, peer: SocketAddr) {
        let detail = "too many connections";
        let local = self.site.current();
        if local.tls().is_some() {
            // An answer would take a handshake, which costs more than is saved.
            let refusal = refusal(Kind::Overloaded, detail);
            let recorder = &local.recorder;
            return recorder.answered_unread(&refusal, peer.ip().to_canonical());
        }
        if let Some(_place) = self.listening.turn_away() {
            let stream = Stream::accepted(stream);
            leaving::answer_unread(self, Kind::Overloaded, detail, stream, peer.ip()).await;
        }
    }

    async fn serve(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, _permit: Permit) {
        self.listening.let_speak(&stream).await;
        let local = self.site.current();
        let opened = local.connection_settings();
        let arrival = Arrival {
            peer,
            opened,
            watch: Watch::new(opened.timeouts, &self.parts.deadlines),
            tls: None,
            certificate: None,
        };
        let tls = local.tls().cloned();
        drop(local);
        match tls {
            None => self.converse(Stream::accepted(stream), arrival, None).await,
            // Boxed: plain connections are not to be as large.
            Some(tls) => Box::pin(self.serve_secure(stream, arrival, tls)).await,
        }
    }

    /// Serves what the client speaks; `agreed` where that is settled already.
    pub(super) async fn converse(
        self: Rc<Self>,
        stream: Stream,
        arrival: Arrival,
        agreed: Option<Spoken>,
    ) {
        let Arrival {
            peer,
            opened,
            watch,
            tls,
            certificate,
        } = arrival;
        let mut io = ClientIo::new(stream, Rc::clone(&watch));
        let spoken = if agreed.is_some() {
            Ok(agreed)
        } else {
            let listening = &self.listening;
            let unheard = std::future::poll_fn(|context| listening.poll_unheard(&watch, context));
            tokio::select! {
                biased;
                spoken = io.spoken() => spoken,
                end = unheard => return leaving::leave(&*self, end, io.stream, peer.ip()).await,
            }
        };
        let serving = Serving {
            client: ClientSide::new(peer.ip(), tls.is_some(), certificate),
            tls,
            peer,
            tunnel: Rc::default(),
            port: self,
            opened,
            watch,
        };
        match spoken {
            Ok(Some(Spoken::Http1)) => serving.http1(io).await,
            Ok(Some(Spoken::Http2)) => Box::pin(serving.http2(io)).await,
            // Closed, or broken, before it said anything.
            Ok(None) | Err(_) => {}
        }
    }
}

impl Host for Port {
    fn recorder(&self) -> Option<Rc<Recorder>> {
        Some(Rc::clone(&self.site.current().recorder))
    }

    fn service(&self) -> Option<ServiceName> {
        Some(self.site.current().service.name.clone())
    }
}

/// A connection whose protocol is known.
struct Serving {
    port: Rc<Port>,
    client: ClientSide,
    tls: Option<Arc<ServerTls>>,
    peer: SocketAddr,
    /// As they were when the connection was opened.
    opened: ConnectionSettings,
    watch: Rc<Watch>,
    tunnel: TunnelSlot,
}

impl Serving {
    async fn http1(self, io: ClientIo) {
        let service = |request| self.request(request);
        let (limits, listening) = (self.opened.parser, &self.port.listening);
        let limits = (limits, &self.port.parts.spares);
        let (end, stream, leftover) =
            keeping::serve_http1(io, &self.watch, limits, listening, service).await;
        let tunnel = self.tunnel.take();
        match tunnel {
            Some(tunnel) if matches!(end, End::Finished) => {
                let deadlines = &self.port.parts.deadlines;
                // Boxed, as what is rare: every connection is as large as this.
                Box::pin(tunnel.run(stream, leftover, deadlines, listening.tunnels())).await;
            }
            // As most connections end.
            _ if matches!(end, End::Agreed) && !stream.holds_back() => {}
            _ => leaving::leave(&*self.port, end, stream, self.peer.ip()).await,
        }
    }

    async fn http2(self, io: ClientIo) {
        self.watch.multiplexes();
        let serving = Rc::new(self);
        let limits = serving.opened.h2;
        let requests = Rc::clone(&serving);
        let service = move |request| requests.request(request);
        let phase = serving.port.listening.phase();
        let served = net::serve_http2(io, &serving.watch, limits, phase, service);
        let mut served = std::pin::pin!(served);
        let mut looked_at = None;
        let end = std::future::poll_fn(|context| {
            let local = serving.port.site.current();
            // What holds for a whole connection ends it where it changed.
            let generation = Some(local.recorder.generation);
            if std::mem::replace(&mut looked_at, generation) != generation
                && serving.is_outdated(&local)
            {
                serving.watch.end_after_this();
            }
            drop(local);
            served.as_mut().poll(context)
        });
        leaving::left_http2(&*serving.port, end.await, serving.peer.ip());
    }

    /// Whether a connection opened now would be under other settings.
    fn is_outdated(&self, local: &Local) -> bool {
        local.connection_settings() != self.opened || !local.is_under(self.tls.as_ref())
    }

    /// Everything before the request itself is done at once: a future around
    /// the door's own would only be copied.
    fn request(
        &self,
        request: ClientRequest,
    ) -> impl Future<Output = Response<RecordedBody>> + use<> {
        let underway = self.watch.request_begun(request.body.is_end_stream());
        let local = self.port.site.current();
        let draining = self.port.phase() >= Phase::Announced;
        let close = draining || self.is_outdated(&local);
        if close {
            self.watch.end_after_this();
        }
        let ending = Ending {
            underway,
            close,
            tunnel: Rc::clone(&self.tunnel),
        };
        Door::new(local, self.client.clone(), draining).handle(request, ending)
    }
}
