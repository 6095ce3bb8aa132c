//! From a name to a session.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::cancel::CancelToken;
use super::state::State;
use super::transport::Transport;
use super::{Connection, login, tls};
use crate::model::DatabaseReset;
use crate::net::stream::Stream;
use crate::pg::failure::{ConnectFailure, Phase};
use crate::pg::prepare::Login;

/// Where to connect, as whom, and with which settings.
pub struct Target {
    /// Name, IP literal, or folder of a Unix socket.
    pub host: Arc<str>,
    pub port: u16,
    pub database: Arc<str>,
    pub login: Login,
    /// Startup parameters besides user and database.
    pub settings: Vec<(&'static str, String)>,
    pub tls: Option<TargetTls>,
    /// For everything from the name to the first `ReadyForQuery`.
    pub timeout: Duration,
    pub reset: DatabaseReset,
}

/// TLS toward a target.
pub struct TargetTls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
    /// Whether the certificate is checked.
    pub verified: bool,
}

/// How a password may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pg) struct Passwords {
    /// As it is.
    pub(in crate::pg) cleartext: bool,
    /// Its MD5 digest, which whoever listens in could take for the password.
    pub(in crate::pg) md5: bool,
}

/// The address a session was made to; a cancel request must reach the same.
#[derive(Debug, Clone)]
pub(in crate::pg) enum Peer {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Connection {
    /// Opens a session that takes writes.
    ///
    /// # Errors
    /// [`ConnectFailure`], with what was waited for when time ran out.
    pub async fn connect(target: &Arc<Target>) -> Result<Self, ConnectFailure> {
        let deadline = Instant::now() + target.timeout;
        let (peer, transport) = target.dial(deadline).await?;
        let mut connection = Self::new(target, peer, transport);
        within(deadline, Phase::LoggingIn, login::log_in(&mut connection)).await?;
        match (connection.state.standby, connection.state.read_only) {
            (true, _) => Err(ConnectFailure::Standby),
            (false, true) => Err(ConnectFailure::ReadOnly),
            (false, false) => Ok(connection),
        }
    }

    fn new(target: &Arc<Target>, peer: Peer, transport: Transport) -> Self {
        Self {
            transport,
            input: BytesMut::new(),
            output: BytesMut::new(),
            swollen: false,
            begun: None,
            unreset: false,
            state: State::opening(target.reset),
            cancel: CancelToken {
                target: Arc::clone(target),
                peer,
                process_id: 0,
                secret_key: 0,
            },
            target: Arc::clone(target),
        }
    }
}

/// Names what was waited for when time runs out.
async fn within<T>(
    deadline: Instant,
    phase: Phase,
    step: impl Future<Output = Result<T, ConnectFailure>>,
) -> Result<T, ConnectFailure> {
    match timeout_at(deadline, step).await {
        Ok(done) => done,
        Err(_) => Err(ConnectFailure::Timeout(phase)),
    }
}

impl Target {
    /// Connects, encrypts where that is asked for, and says nothing yet.
    ///
    /// # Errors
    /// [`ConnectFailure`], with what was waited for when time ran out.
    pub(in crate::pg) async fn dial(
        &self,
        deadline: Instant,
    ) -> Result<(Peer, Transport), ConnectFailure> {
        let mut failure = ConnectFailure::UnknownHost;
        for peer in within(deadline, Phase::Resolving, self.peers()).await? {
            let connecting = async { peer.connect().await.map_err(ConnectFailure::io) };
            let stream = match within(deadline, Phase::Connecting, connecting).await {
                Ok(stream) => stream,
                Err(timeout @ ConnectFailure::Timeout(_)) => return Err(timeout),
                // Another address of the same name may answer.
                Err(other) => {
                    failure = other;
                    continue;
                }
            };
            let encrypting = self.encrypted(stream);
            let transport = within(deadline, Phase::Encrypting, encrypting).await?;
            return Ok((peer, transport));
        }
        Err(failure)
    }

    /// Asks whether there is a server, without a session: it has to say a byte.
    ///
    /// # Errors
    /// [`ConnectFailure`].
    pub(in crate::pg) async fn knock(&self) -> Result<(), ConnectFailure> {
        let deadline = Instant::now() + self.timeout;
        let (_, transport) = self.dial(deadline).await?;
        let Transport::Left(mut stream) = transport else {
            return Ok(());
        };
        within(deadline, Phase::LoggingIn, tls::ask(&mut stream)).await?;
        Ok(())
    }

    /// Which ways of sending a password are safe.
    pub(in crate::pg) fn passwords(&self) -> Passwords {
        let verified = self.tls.as_ref().is_some_and(|tls| tls.verified);
        Passwords {
            cleartext: verified,
            md5: verified || self.is_local(),
        }
    }

    /// Whether nobody can listen in: this machine only.
    pub(in crate::pg) fn is_local(&self) -> bool {
        let is_loopback = || {
            self.host.parse::<IpAddr>().map_or_else(
                |_| self.host.eq_ignore_ascii_case("localhost"),
                |address| address.to_canonical().is_loopback(),
            )
        };
        self.host.starts_with('/') || is_loopback()
    }

    /// A raw, perhaps encrypted stream to an address already known.
    pub(in crate::pg) async fn open(&self, peer: &Peer) -> Result<Transport, ConnectFailure> {
        let stream = peer.connect().await.map_err(ConnectFailure::io)?;
        self.encrypted(stream).await
    }

    async fn encrypted(&self, stream: Stream) -> Result<Transport, ConnectFailure> {
        match &self.tls {
            Some(tls) => tls::negotiate(stream, tls).await,
            None => Ok(Transport::Left(stream)),
        }
    }

    /// Names are looked up anew each time: after a failover they may mean
    /// another server.
    async fn peers(&self) -> Result<Vec<Peer>, ConnectFailure> {
        if self.host.starts_with('/') {
            let socket = format!("{}/.s.PGSQL.{}", self.host, self.port);
            return Ok(vec![Peer::Unix(PathBuf::from(socket))]);
        }
        let host = self.host.trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![Peer::Tcp(SocketAddr::new(address, self.port))]);
        }
        let found = lookup_host((host, self.port)).await;
        let peers: Vec<Peer> = found
            .map_err(|_| ConnectFailure::UnknownHost)?
            .map(Peer::Tcp)
            .collect();
        match peers.is_empty() {
            true => Err(ConnectFailure::UnknownHost),
            false => Ok(peers),
        }
    }
}

impl Peer {
    async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).await.map(Stream::dialled),
            Self::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    }
}
