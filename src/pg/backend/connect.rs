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

/// The address a session was made to; a cancel request must reach the same.
#[derive(Debug, Clone)]
pub(super) enum Peer {
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
        let mut failure = ConnectFailure::UnknownHost;
        for peer in within(deadline, Phase::Resolving, target.peers()).await? {
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
            let encrypting = target.encrypted(stream);
            let transport = within(deadline, Phase::Encrypting, encrypting).await?;
            let mut connection = Self::new(target, peer, transport);
            within(deadline, Phase::LoggingIn, login::log_in(&mut connection)).await?;
            return match (connection.state.standby, connection.state.read_only) {
                (true, _) => Err(ConnectFailure::Standby),
                (false, true) => Err(ConnectFailure::ReadOnly),
                (false, false) => Ok(connection),
            };
        }
        Err(failure)
    }

    fn new(target: &Arc<Target>, peer: Peer, transport: Transport) -> Self {
        Self {
            transport,
            input: BytesMut::new(),
            output: BytesMut::new(),
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
    /// Whether nobody can listen in: this machine only.
    pub(super) fn is_local(&self) -> bool {
        let is_loopback = || {
            self.host.parse::<IpAddr>().map_or_else(
                |_| self.host.eq_ignore_ascii_case("localhost"),
                |address| address.to_canonical().is_loopback(),
            )
        };
        self.host.starts_with('/') || is_loopback()
    }

    /// A raw, perhaps encrypted stream to an address already known.
    pub(super) async fn open(&self, peer: &Peer) -> Result<Transport, ConnectFailure> {
        let stream = peer.connect().await.map_err(ConnectFailure::io)?;
        self.encrypted(stream).await
    }

    async fn encrypted(&self, stream: Stream) -> Result<Transport, ConnectFailure> {
        match &self.tls {
            Some(tls) => tls::negotiate(stream, tls).await,
            None => Ok(Transport::Plain(stream)),
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
