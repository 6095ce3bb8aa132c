//! A port of one worker: its accept loop and the connections that came by it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connections::{AcceptGuard, Connections, Counted};
use super::secure::Peers;
use crate::drain::Phase;
use crate::inbound::{
    ClientSide, ConnectionSettings, Door, Ending, RecordedBody, Site, TunnelSlot, WorkerParts,
};
use crate::model::Kind;
use crate::net::stream::Stream;
use crate::net::tls::{PeerCertificate, ServerTls};
use crate::net::{self, ClientIo, End, OpenListener, Permit, Spoken, Stalled, Watch};
use crate::reply;
use crate::telemetry::record::RecordedFailure;

/// Connections over the limit that are being answered at one time; more are
/// closed without an answer.
const MAX_TURNED_AWAY: usize = 256;

/// One listening socket of this worker.
pub(super) struct Port {
    site: Rc<Site>,
    parts: Rc<WorkerParts>,
    address: SocketAddr,
    connections: Rc<Connections>,
    phase: Cell<Phase>,
    closed: CancellationToken,
    accepting: RefCell<Option<JoinHandle<()>>>,
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
        listener: OpenListener,
        broken: CancellationToken,
    ) -> Rc<Self> {
        let OpenListener {
            address, socket, ..
        } = listener;
        let port = Rc::new(Self {
            site,
            parts,
            address,
            connections: Rc::default(),
            phase: Cell::new(Phase::Serving),
            closed: CancellationToken::new(),
            accepting: RefCell::new(None),
            peers: Rc::default(),
        });
        port.judge_peers();
        let serving = Rc::clone(&port);
        let serve = Rc::new(move |stream, peer| serving.accepted(stream, peer));
        let closed = port.closed.clone();
        let guard = AcceptGuard {
            closed: closed.clone(),
            broken,
        };
        let accepting = tokio::task::spawn_local(async move {
            if let Err(error) = net::accept_loop(socket, closed, serve).await {
                tracing::error!(%error, "a listener failed");
            }
            drop(guard);
        });
        *port.accepting.borrow_mut() = Some(accepting);
        port
    }

    /// The number clients connect to.
    pub(super) fn number(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn peers(&self) -> &Rc<Peers> {
        &self.peers
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The worker's clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.parts.deadlines.clock().now_ms()
    }

    /// Resolves when it has no connection.
    pub(super) async fn emptied(&self) {
        self.connections.emptied().await;
    }

    /// Whether nothing comes or goes here any more.
    pub(super) fn is_over(&self) -> bool {
        self.closed.is_cancelled() && self.connections.open.get() == 0
    }

    pub(super) fn advance(&self, phase: Phase) {
        self.phase.set(self.phase.get().max(phase));
    }

    /// Closes the socket once its accept queue is served.
    pub(super) async fn stop_accepting(&self) {
        self.closed.cancel();
        let accepting = self.accepting.borrow_mut().take();
        if let Some(accepting) = accepting {
            // A panic there has been reported by the hook.
            let _ = accepting.await;
        }
    }

    fn accepted(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let local = self.site.current();
        let ceiling = local.service.as_ready().map_or_else(
            || crate::model::Limits::default().connections,
            |ready| ready.spec.limits.connections,
        );
        let permit = local.service.connections.try_acquire(ceiling);
        let counted = Counted::new(&self.connections);
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
        let answered = &self.connections.turned_away;
        if answered.get() >= MAX_TURNED_AWAY {
            return;
        }
        answered.set(answered.get() + 1);
        let stream = Stream::accepted(stream);
        self.answer_unread(Kind::Overloaded, detail, stream, peer)
            .await;
        answered.set(answered.get().saturating_sub(1));
    }

    /// Answers a connection on which no request became complete, and closes it.
    async fn answer_unread(
        &self,
        kind: Kind,
        detail: &'static str,
        stream: Stream,
        peer: SocketAddr,
    ) {
        let local = self.site.current();
        let recorder = &local.recorder;
        recorder.answered_unread(&refusal(kind, detail), peer.ip().to_canonical());
        net::answer_and_close(stream, &reply::raw(kind, Some(&local.service.name))).await;
    }

    async fn serve(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, _permit: Permit) {
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
            let stalled = std::future::poll_fn(|context| self.poll_unheard(&watch, context));
            tokio::select! {
                biased;
                spoken = io.spoken() => spoken,
                end = stalled => return self.end(end, io.stream, peer).await,
            }
        };
        let serving = Serving {
            client: ClientSide {
                peer: peer.ip(),
                tls: tls.is_some(),
                certificate,
            },
            tls,
            peer,
            tunnel: Rc::default(),
            port: self,
            opened,
            watch,
        };
        match spoken {
            Ok(Some(Spoken::Http1)) => serving.http1(io).await,
            Ok(Some(Spoken::Http2)) => serving.http2(io).await,
            // Closed, or broken, before it said anything.
            Ok(None) | Err(_) => {}
        }
    }

    /// Ready when a client that has not said what it speaks is to be let go.
    fn poll_unheard(&self, watch: &Watch, context: &mut Context<'_>) -> Poll<End> {
        // Registers for the call that announces a drain, too.
        if let Poll::Ready(stalled) = watch.poll_stalled(context) {
            return Poll::Ready(End::Stalled(stalled));
        }
        match self.phase.get() {
            Phase::Cut => Poll::Ready(End::Cut),
            Phase::Closing | Phase::EndingTunnels if !watch.heard() => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    }

    /// Leaves the connection as its end asks for.
    async fn end(&self, end: End, stream: Stream, peer: SocketAddr) {
        match end {
            End::Finished => net::linger(stream).await,
            End::Refused(status) => {
                let local = self.site.current();
                let mut refusal = refusal(Kind::BadRequest, "refused by the parser");
                refusal.status = status;
                local
                    .recorder
                    .parser_refused(&refusal, peer.ip().to_canonical());
                net::linger(stream).await;
            }
            End::Stalled(Stalled::Head) => {
                let detail = "no complete request head in time";
                self.answer_unread(Kind::ClientTimeout, detail, stream, peer)
                    .await;
            }
            End::Stalled(Stalled::Idle) => {}
            End::Stalled(Stalled::Write) | End::Flooded | End::Cut => stream.reset_on_close(),
            End::Broken(error) => {
                tracing::debug!(%error, "a connection broke off");
                stream.reset_on_close();
            }
        }
    }
}

fn refusal(kind: Kind, detail: &'static str) -> RecordedFailure {
    let facts = reply::facts(kind);
    RecordedFailure {
        cause: facts.cause,
        level: facts.level,
        status: facts.status,
        detail: detail.into(),
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
        let service = service_fn(|request| Box::pin(self.request(request)));
        let (limits, phase) = (self.opened.parser, &self.port.phase);
        let (end, stream, leftover) =
            net::serve_http1(io, &self.watch, limits, phase, service).await;
        let tunnel = self.tunnel.take();
        match tunnel {
            Some(tunnel) if matches!(end, End::Finished) => {
                let deadlines = &self.port.parts.deadlines;
                tunnel
                    .run(stream, leftover, deadlines, &self.port.phase)
                    .await;
            }
            _ => self.port.end(end, stream, self.peer).await,
        }
    }

    async fn http2(self, io: ClientIo) {
        self.watch.multiplexes();
        let serving = Rc::new(self);
        let limits = serving.opened.h2;
        let requests = Rc::clone(&serving);
        let service = move |request| {
            let serving = Rc::clone(&requests);
            async move { serving.request(request).await }
        };
        let phase = &serving.port.phase;
        let end = net::serve_http2(io, &serving.watch, limits, phase, service).await;
        match end {
            End::Broken(error) => tracing::debug!(%error, "an HTTP/2 connection broke off"),
            End::Flooded => {
                let recorder = &serving.port.site.current().recorder;
                let refusal = refusal(Kind::BadRequest, "a flood of HTTP/2 frames");
                recorder.answered_unread(&refusal, serving.peer.ip().to_canonical());
            }
            End::Finished | End::Refused(_) | End::Stalled(_) | End::Cut => {}
        }
    }

    async fn request(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<RecordedBody>, Infallible> {
        self.watch.request_begun();
        let local = self.port.site.current();
        let draining = self.port.phase.get() >= Phase::Announced;
        let same = local.connection_settings() == self.opened && local.is_under(self.tls.as_ref());
        let close = draining || !same;
        if close {
            self.watch.end_after_this();
        }
        let ending = Ending {
            watch: Rc::clone(&self.watch),
            close,
            tunnel: Rc::clone(&self.tunnel),
        };
        Ok(Door::new(local, self.client.clone(), draining)
            .handle(request, ending)
            .await)
    }
}
