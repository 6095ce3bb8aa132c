//! TLS on a port: handshakes, and what becomes of connections whose certificate
//! is no longer good.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use slab::Slab;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::port::{Arrival, Port};
use crate::drain::Phase;
use crate::net::tls::{HandshakeFailure, PeerCertificate, Secured, ServerTls};
use crate::net::{self, End, Watch};
use crate::telemetry::metrics::Handshake;

/// Failed handshakes told of one by one per second, worker and port; more are
/// counted only.
const LINES_PER_SECOND: u32 = 20;

/// The certificates of a port's open connections.
#[derive(Default)]
pub(super) struct Peers {
    open: RefCell<Slab<Rc<Peer>>>,
    /// Whose authorities all of them satisfy.
    judged_by: RefCell<Option<Arc<ServerTls>>>,
    lines: Lines,
}

/// One connection's certificate.
struct Peer {
    certificate: Rc<PeerCertificate>,
    /// It is no longer good.
    ended: CancellationToken,
}

/// Keeps a certificate listed while its connection lives.
struct Registered<'a> {
    peers: &'a Peers,
    key: usize,
    peer: Rc<Peer>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.peers.open.borrow_mut().remove(self.key);
    }
}

impl Peers {
    fn register(&self, certificate: &Rc<PeerCertificate>) -> Registered<'_> {
        let peer = Rc::new(Peer {
            certificate: Rc::clone(certificate),
            ended: CancellationToken::new(),
        });
        Registered {
            peers: self,
            key: self.open.borrow_mut().insert(Rc::clone(&peer)),
            peer,
        }
    }
}

/// How many lines were written in the present second.
#[derive(Default)]
struct Lines {
    second: Cell<u64>,
    written: Cell<u32>,
    left_out: Cell<u32>,
}

impl Lines {
    /// How many were left out before, if one more may be written.
    fn admit(&self, second: u64) -> Option<u32> {
        if self.second.replace(second) != second {
            self.written.set(0);
        }
        if self.written.get() >= LINES_PER_SECOND {
            self.left_out.set(self.left_out.get().saturating_add(1));
            return None;
        }
        self.written.set(self.written.get() + 1);
        Some(self.left_out.take())
    }
}

impl Port {
    /// Serves a connection under TLS from its first byte. The time for the
    /// handshake is part of that for the first head.
    pub(super) async fn serve_secure(
        self: Rc<Self>,
        stream: TcpStream,
        mut arrival: Arrival,
        tls: Arc<ServerTls>,
    ) {
        let watch = Rc::clone(&arrival.watch);
        if !self.speaks(&stream, &watch).await {
            return;
        }
        let late = poll_fn(|context| {
            let stalled = watch.poll_stalled(context).is_ready();
            match stalled || self.phase() == Phase::Cut {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let outcome = tokio::select! {
            biased;
            outcome = tls.accept(stream) => outcome,
            () = late => Err(HandshakeFailure {
                how: Handshake::Timeout,
                detail: "no complete handshake in time".to_owned(),
                stream: None,
            }),
        };
        let Secured {
            stream,
            spoken,
            certificate,
        } = match outcome {
            Ok(secured) => secured,
            Err(failure) => return self.handshake_failed(failure, arrival.peer).await,
        };
        self.count(Handshake::Done);
        let Some(certificate) = certificate.map(Rc::new) else {
            arrival.tls = Some(tls);
            return self.converse(stream, arrival, spoken).await;
        };
        if !self.still_admits(&certificate, &tls) {
            return;
        }
        arrival.tls = Some(tls);
        arrival.certificate = Some(Rc::clone(&certificate));
        let peers = Rc::clone(self.peers());
        let registered = peers.register(&certificate);
        tokio::select! {
            biased;
            () = registered.peer.ended.cancelled() => {}
            () = self.converse(stream, arrival, spoken) => {}
        }
    }

    /// Waits for a client's first byte. `false` where it has not come as the port
    /// closes: nobody is waited for who has asked for nothing.
    async fn speaks(&self, stream: &TcpStream, watch: &Watch) -> bool {
        let mut byte = [0];
        let unheard = poll_fn(|context| self.listening().poll_unheard(watch, context));
        tokio::select! {
            biased;
            // One that is broken shows that in the handshake, as one that is late.
            _ = stream.peek(&mut byte) => true,
            end = unheard => !matches!(end, End::Finished),
        }
    }

    /// Whether a certificate accepted under `tls` is good under what is in
    /// force since the handshake began.
    fn still_admits(&self, certificate: &PeerCertificate, tls: &ServerTls) -> bool {
        let judge = self.peers().judged_by.borrow().clone();
        judge.is_none_or(|judge| {
            !judge.judges_clients() || judge.has_authorities_of(tls) || judge.admits(certificate)
        })
    }

    /// Ends connections whose certificates the authorities in force do not
    /// vouch for. To be called with each new version of the service.
    pub(super) fn judge_peers(&self) {
        let local = self.site().current();
        let Some(tls) = local.tls() else {
            return;
        };
        let before = self.peers().judged_by.replace(Some(Arc::clone(tls)));
        // Without a `clientCa` nothing rests on certificates any more.
        if !tls.judges_clients() || before.is_none_or(|before| before.has_authorities_of(tls)) {
            return;
        }
        let peers = self.peers().open.borrow();
        let open: Vec<Rc<Peer>> = peers.iter().map(|(_, peer)| Rc::clone(peer)).collect();
        let (tls, service) = (Arc::clone(tls), local.service.name.shared_key());
        // Ends by itself: one signature check for each certificate.
        tokio::task::spawn_local(async move {
            let ended = judge(&open, &tls).await;
            if ended > 0 {
                let service = &*service;
                tracing::info!(
                    service,
                    connections = ended,
                    "connections ended: no authority in force vouches for their certificates"
                );
            }
        });
    }

    /// Counts and tells; lets the client read the alert.
    async fn handshake_failed(&self, failure: HandshakeFailure, peer: SocketAddr) {
        let HandshakeFailure {
            how,
            detail,
            stream,
        } = failure;
        self.count(how);
        let local = self.site().current();
        let service = local.service.name.key();
        let peer = peer.ip().to_canonical();
        if how == Handshake::Closed {
            // Probes of the port do nothing else.
            tracing::debug!(service, %peer, detail, "tls handshake not finished");
        } else if let Some(left_out) = self.peers().lines.admit(self.now_ms() / 1000) {
            let reason = how.as_str();
            tracing::info!(service, %peer, reason, detail, left_out, "tls handshake failed");
        }
        if let Some(stream) = stream {
            net::linger(stream).await;
        }
    }

    fn count(&self, how: Handshake) {
        self.site().current().recorder.shard.handshake(how);
    }
}

/// How many were ended. Connections with one certificate are judged once.
async fn judge(open: &[Rc<Peer>], tls: &ServerTls) -> usize {
    let mut judged = HashMap::new();
    let mut ended = 0;
    for peer in open {
        let chain = peer.certificate.chain();
        let good = match judged.get(chain) {
            Some(good) => *good,
            None => {
                // Others of this worker are served between two of them.
                tokio::task::yield_now().await;
                let good = tls.admits(&peer.certificate);
                judged.insert(chain, good);
                good
            }
        };
        if !good {
            peer.ended.cancel();
            ended += 1;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_counted_not_told() {
        let lines = Lines::default();
        let told = (0..LINES_PER_SECOND + 5).filter_map(|_| lines.admit(7));
        assert_eq!(told.count(), LINES_PER_SECOND as usize);
        assert_eq!(lines.admit(8), Some(5));
        assert_eq!(lines.admit(8), Some(0));
    }
}
