//! Where the sockets of listeners come from.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpListener;

use super::Worker;
use super::listening::Opened;
use crate::net::{self, ListenerId, ListenerSocket, OpenListener};

impl Worker {
    /// The socket of a listener. Without one the port would be dead, and nobody
    /// would know: the worker ends.
    pub(super) fn equip(&self, listener: OpenListener) -> Option<Opened> {
        let OpenListener {
            id,
            slot,
            purpose,
            address,
            socket,
        } = listener;
        let socket = match socket {
            ListenerSocket::Bound(socket) => TcpListener::from_std(socket).map(Rc::new),
            // A worker that was late may never have had it.
            ListenerSocket::Of(old) => match self.hand_over(old) {
                Some(socket) => Ok(socket),
                None => bind_own(address),
            },
        };
        match socket {
            Ok(socket) => Some(Opened {
                id,
                slot,
                purpose,
                address,
                socket,
            }),
            Err(error) => {
                tracing::error!(%address, %error, "a listener failed");
                self.broken.cancel();
                None
            }
        }
    }

    /// The socket of a listener, which accepts no more.
    fn hand_over(&self, id: ListenerId) -> Option<Rc<TcpListener>> {
        let port = self.ports.get(&id).map(|port| port.listening());
        let exit = || self.exits.get(&id).map(|exit| exit.listening());
        let mut retiring = self.retiring.iter();
        let retiring = || retiring.find(|one| one.id == id).map(|one| &one.listening);
        port.or_else(exit).or_else(retiring)?.hand_over()
    }
}

/// One socket more at an address of this process.
fn bind_own(address: SocketAddr) -> io::Result<Rc<TcpListener>> {
    let group = net::join_group(Some(address.ip()), address.port(), 1);
    let mut group = group.map_err(io::Error::other)?;
    let socket = group.sockets.pop().ok_or(io::ErrorKind::NotFound)?;
    TcpListener::from_std(socket).map(Rc::new)
}
