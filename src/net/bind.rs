//! Binding a port for all workers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Pending connections per socket; the kernel clamps it to `somaxconn`.
const BACKLOG: i32 = 4096;

/// One SO_REUSEPORT socket per worker on one address.
#[derive(Debug)]
pub struct BoundGroup {
    /// The real address, also when port 0 was asked for.
    pub address: SocketAddr,
    /// Listening and non-blocking, `count` of them.
    pub sockets: Vec<TcpListener>,
}

/// Why a port could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody, perhaps the app, listens there already.
    #[error("port {0} is in use")]
    InUse(u16),
    #[error("port {0} needs more rights (ports below 1024 need CAP_NET_BIND_SERVICE)")]
    Denied(u16),
    #[error("cannot listen on {address}")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Binds `count` sockets on `listen` (`None`: dual-stack `[::]`, or `0.0.0.0`
/// where the machine has no IPv6).
///
/// Another process of the same user may join a SO_REUSEPORT group without an
/// error and steal traffic, so the port is first proved free by one exclusive
/// bind.
pub fn bind_group(
    listen: Option<IpAddr>,
    port: u16,
    count: usize,
) -> Result<BoundGroup, BindError> {
    bind_any(listen, port, count, Proof::Exclusive)
}

/// As [`bind_group`], without the proof: for a port that this process itself
/// holds and is about to give up, so that it changes hands without a gap.
pub fn join_group(
    listen: Option<IpAddr>,
    port: u16,
    count: usize,
) -> Result<BoundGroup, BindError> {
    bind_any(listen, port, count, Proof::Known)
}

/// How it is known that nobody else holds the port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// By one exclusive bind.
    Exclusive,
    /// This process holds it.
    Known,
}

fn bind_any(
    listen: Option<IpAddr>,
    port: u16,
    count: usize,
    proof: Proof,
) -> Result<BoundGroup, BindError> {
    let Some(address) = listen else {
        let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        return match bind_at(every, count, proof) {
            Err(BindError::Other { source, .. }) if lacks_ipv6(&source) => bind_at(
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                count,
                proof,
            ),
            result => result,
        };
    };
    bind_at(SocketAddr::new(address, port), count, proof)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT: no IPv6 in the kernel; EADDRNOTAVAIL: disabled by sysctl.
    error.raw_os_error() == Some(97) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind_at(address: SocketAddr, count: usize, proof: Proof) -> Result<BoundGroup, BindError> {
    let attribute = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.port()),
        io::ErrorKind::PermissionDenied => BindError::Denied(address.port()),
        _ => BindError::Other { address, source },
    };
    if proof == Proof::Exclusive {
        drop(bound_socket(address, false).map_err(attribute)?);
    }
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = listening_socket(address, true).map_err(attribute)?;
        address = listener.local_addr().map_err(attribute)?;
        sockets.push(listener);
    }
    Ok(BoundGroup { address, sockets })
}

/// A listener that does not block, alone at its address, with room for as many
/// pending connections as a service's port has: a client that finds none waits
/// a second before it knocks again.
///
/// # Errors
/// What the system says, e.g. that the address is taken.
pub fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    listening_socket(address, false)
}

fn listening_socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bound_socket(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound_socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    // Only lets us bind while old connections are in TIME_WAIT; a listening
    // socket still conflicts.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

    #[test]
    fn a_second_group_on_one_port_is_refused() {
        let group = bind_group(LOOPBACK, 0, 2).expect("free port");
        assert_eq!(group.sockets.len(), 2);
        let port = group.address.port();
        assert!(
            matches!(bind_group(LOOPBACK, port, 2), Err(BindError::InUse(taken)) if taken == port)
        );
        assert!(matches!(
            bind_group(None, port, 1),
            Err(BindError::InUse(_))
        ));
    }

    #[test]
    fn a_port_of_our_own_can_change_hands() {
        let old = bind_group(LOOPBACK, 0, 2).expect("free port");
        let port = old.address.port();
        let new = join_group(LOOPBACK, port, 2).expect("our own port");
        assert_eq!(new.address, old.address);
        drop(old);
        assert!(std::net::TcpStream::connect(new.address).is_ok());
    }

    #[test]
    fn a_foreign_listener_is_seen() {
        let foreign = TcpListener::bind("127.0.0.1:0").expect("free port");
        let port = foreign.local_addr().expect("bound").port();
        assert!(matches!(
            bind_group(LOOPBACK, port, 1),
            Err(BindError::InUse(_))
        ));
        assert!(matches!(
            bind_group(None, port, 1),
            Err(BindError::InUse(_))
        ));
    }

    #[test]
    fn dual_stack_accepts_ipv4() {
        let group = bind_group(None, 0, 1).expect("free port");
        let stream = std::net::TcpStream::connect(("127.0.0.1", group.address.port()));
        assert!(stream.is_ok(), "{stream:?}");
    }
}
