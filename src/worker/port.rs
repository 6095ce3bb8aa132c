//! A port of one worker: its accept loop and the connections that came by it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::drain::Phase;
use crate::inbound::{
    ClientSide, ConnectionSettings, Door, Ending, RecordedBody, Site, TunnelSlot, WorkerParts,
};
use crate::model::Kind;
use crate::net::deadline::Deadlines;
use crate::net::stream::Stream;
use crate::net::{self, ClientIo, End, Permit, Spoken, Stalled, Watch};
use crate::reply;

/// All client connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Cell<usize>,
    changed: Notify,
}

/// Counts one connection for as long as it lives.
struct Counted(Rc<Connections>);

/// One listening socket of this worker.
pub(super) struct Port {
    site: Rc<Site>,
    parts: Rc<WorkerParts>,
    connections: Rc<Connections>,
    phase: Cell<Phase>,
    closed: CancellationToken,
    accepting: RefCell<Option<JoinHandle<()>>>,
}

impl Connections {
    /// Resolves when there is none.
    pub(super) async fn emptied(&self) {
        while self.open.get() > 0 {
            self.changed.notified().await;
        }
    }
}

impl Counted {
    fn new(connections: &Rc<Connections>) -> Self {
        connections.open.set(connections.open.get() + 1);
        Self(Rc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.changed.notify_one();
    }
}

impl Port {
    /// Begins to accept.
    pub(super) fn open(
        site: Rc<Site>,
        parts: Rc<WorkerParts>,
        connections: Rc<Connections>,
        socket: TcpListener,
    ) -> Rc<Self> {
        let port = Rc::new(Self {
            site,
            parts,
            connections,
            phase: Cell::new(Phase::Serving),
            closed: CancellationToken::new(),
            accepting: RefCell::new(None),
        });
        let serving = Rc::clone(&port);
        let serve = Rc::new(move |stream, peer| serving.accepted(stream, peer));
        let closed = port.closed.clone();
        let accepting = tokio::task::spawn_local(async move {
            if let Err(error) = net::accept_loop(socket, closed, serve).await {
                tracing::error!(%error, "a listener failed");
            }
        });
        *port.accepting.borrow_mut() = Some(accepting);
        port
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

    /// The port is no longer wanted: accept what is queued, let what is in
    /// flight finish, cut the rest at the deadline.
    pub(super) fn retire(self: Rc<Self>, deadline: Duration, deadlines: &Deadlines) {
        let deadlines = deadlines.clone();
        // Ends by itself at the deadline.
        tokio::task::spawn_local(async move {
            self.stop_accepting().await;
            self.advance(Phase::Closing);
            deadlines.wake_all();
            tokio::time::sleep(deadline).await;
            self.advance(Phase::Cut);
            deadlines.wake_all();
        });
    }

    fn accepted(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let local = self.site.current();
        let ceiling = local.service.as_ready().map_or_else(
            || crate::model::Limits::default().connections,
            |ready| ready.spec.limits.connections,
        );
        let permit = local.service.connections.try_acquire(ceiling);
        let stream = Stream::accepted(stream);
        let counted = Counted::new(&self.connections);
        let port = Rc::clone(self);
        // Ends with its connection, whose limits are all bounded.
        tokio::task::spawn_local(async move {
            match permit {
                Some(permit) => port.serve(stream, peer, permit).await,
                None => port.turn_away(stream).await,
            }
            drop(counted);
        });
    }

    async fn turn_away(&self, stream: Stream) {
        let local = self.site.current();
        let facts = reply::facts(Kind::Overloaded);
        local.recorder.shard.proxy_error(facts.cause);
        net::answer_and_close(
            stream,
            &reply::raw(Kind::Overloaded, Some(&local.service.name)),
        )
        .await;
    }

    async fn serve(self: Rc<Self>, stream: Stream, peer: SocketAddr, _permit: Permit) {
        let opened = self.site.current().connection_settings();
        let watch = Watch::new(opened.timeouts, &self.parts.deadlines);
        let mut io = ClientIo::new(stream, Rc::clone(&watch));
        let spoken = {
            let stalled = std::future::poll_fn(|context| watch.poll_stalled(context));
            tokio::select! {
                biased;
                spoken = io.spoken() => spoken,
                stalled = stalled => return self.end(End::Stalled(stalled), io.stream).await,
            }
        };
        let serving = Serving {
            client: ClientSide {
                peer: peer.ip(),
                tls: false,
            },
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

    /// Leaves the connection as its end asks for.
    async fn end(&self, end: End, stream: Stream) {
        match end {
            End::Finished => net::linger(stream).await,
            End::Refused(status) => {
                self.site.current().recorder.shard.parser_refused(status);
                net::linger(stream).await;
            }
            End::Stalled(Stalled::Head) => {
                let local = self.site.current();
                let facts = reply::facts(Kind::ClientTimeout);
                local.recorder.shard.proxy_error(facts.cause);
                let answer = reply::raw(Kind::ClientTimeout, Some(&local.service.name));
                net::answer_and_close(stream, &answer).await;
            }
            End::Stalled(Stalled::Idle) => {}
            End::Stalled(Stalled::Write) | End::Cut => stream.reset_on_close(),
            End::Broken(error) => {
                tracing::debug!(%error, "a connection broke off");
                stream.reset_on_close();
            }
        }
    }
}

/// A connection whose protocol is known.
struct Serving {
    port: Rc<Port>,
    client: ClientSide,
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
            _ => self.port.end(end, stream).await,
        }
    }

    async fn http2(self, io: ClientIo) {
        self.watch.multiplexes();
        let serving = Rc::new(self);
        let limits = serving.opened.h2;
        let requests = Rc::clone(&serving);
        let service = service_fn(move |request| {
            let serving = Rc::clone(&requests);
            Box::pin(async move { serving.request(request).await })
        });
        let phase = &serving.port.phase;
        let end = net::serve_http2(io, &serving.watch, limits, phase, service).await;
        if let End::Broken(error) = end {
            tracing::debug!(%error, "an HTTP/2 connection broke off");
        }
    }

    async fn request(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<RecordedBody>, Infallible> {
        self.watch.request_begun();
        let local = self.port.site.current();
        let draining = self.port.phase.get() >= Phase::Announced;
        let close = draining || local.connection_settings() != self.opened;
        if close {
            self.watch.end_after_this();
        }
        let ending = Ending {
            watch: Rc::clone(&self.watch),
            close,
            tunnel: Rc::clone(&self.tunnel),
        };
        Ok(Door::new(local, self.client, draining)
            .handle(request, ending)
            .await)
    }
}
