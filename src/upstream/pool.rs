//! Connections to one upstream, owned by one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};

use super::connection::Connection;
use super::error::UpstreamError;
use super::h2;
use super::resolve::Resolver;
use super::spares::Spares;
use super::traffic::Traffic;
use crate::model::{Kind, UpstreamSpec, UpstreamTarget};
use crate::net::deadline::{Deadline, Deadlines};
use crate::net::stream::Stream;
use crate::net::tls::{ClientTls, TlsError, Wire};

/// An upstream as resolved at snapshot build; shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    spec: UpstreamSpec,
    resolver: Option<Resolver>,
    tls: Option<Tls>,
    traffic: Traffic,
}

/// TLS, and whom the certificate is to be for.
#[derive(Debug)]
struct Tls {
    client: Arc<ClientTls>,
    host: Arc<str>,
}

/// The connections of one worker to one upstream. Not `Send`: no locks.
pub struct Pool {
    upstream: Arc<Upstream>,
    client_idle_timeout: Cell<Duration>,
    deadlines: Deadlines,
    /// Least recently used first.
    idle: RefCell<Vec<Connection>>,
    spares: Spares,
    http2: h2::Connections,
    purging: Cell<bool>,
    retired: Cell<bool>,
}

impl Upstream {
    /// Resolves what can be resolved without asking anybody; reads the files of
    /// its TLS, and then blocks.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn new(spec: UpstreamSpec) -> Result<Self, TlsError> {
        let host = match &spec.target {
            UpstreamTarget::Tcp { host, .. } => Arc::clone(host),
            UpstreamTarget::Loopback { .. } | UpstreamTarget::Unix { .. } => Arc::from("localhost"),
        };
        let client = spec.tls.as_ref().map(ClientTls::build).transpose()?;
        Ok(Self::with_tls(spec, client, host))
    }

    /// One of several addresses of the peer that is called `host`.
    pub(super) fn with_tls(
        spec: UpstreamSpec,
        client: Option<Arc<ClientTls>>,
        host: Arc<str>,
    ) -> Self {
        Self {
            resolver: Resolver::new(&spec.target),
            tls: client.map(|client| Tls { client, host }),
            traffic: Traffic::default(),
            spec,
        }
    }

    /// Takes over what is known of the same target.
    ///
    /// # Errors
    /// As [`Upstream::new`].
    pub fn succeeding(spec: UpstreamSpec, predecessor: Option<&Self>) -> Result<Self, TlsError> {
        let mut made = Self::new(spec)?;
        if let Some(old) = predecessor
            && old.spec.target == made.spec.target
        {
            made.resolver.clone_from(&old.resolver);
        }
        Ok(made)
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// When the certificate that is shown there expires.
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        self.tls.as_ref()?.client.expires()
    }

    /// The validated settings.
    pub fn spec(&self) -> &UpstreamSpec {
        &self.spec
    }

    /// Where requests say how they fared.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What a request of our own names as its host.
    pub(super) fn authority(&self) -> String {
        match &self.spec.target {
            UpstreamTarget::Unix { .. } => "localhost".to_owned(),
            target @ (UpstreamTarget::Loopback { .. } | UpstreamTarget::Tcp { .. }) => {
                target.to_string()
            }
        }
    }

    /// A new stream to the first address that answers; the caller limits the time.
    pub(super) async fn dial(&self, wire: Wire) -> Result<(Stream, Arc<str>), UpstreamError> {
        if let UpstreamTarget::Unix { path } = &self.spec.target {
            let stream = UnixStream::connect(path).await;
            let stream = stream.map_err(|error| UpstreamError::refused(&error, self.label()))?;
            return Ok((Stream::Unix(stream), self.label()));
        }
        let Some(resolver) = &self.resolver else {
            return Err(UpstreamError::connecting(
                Kind::AppUnavailable,
                "no address",
            ));
        };
        let mut last = UpstreamError::connecting(Kind::Dns, "no address");
        for address in resolver.addresses().await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let label = Arc::from(address.to_string());
                    let Some(tls) = &self.tls else {
                        return Ok((Stream::dialled(stream), label));
                    };
                    match tls.connect(stream, wire).await {
                        Ok(stream) => return Ok((stream, label)),
                        Err(error) => last = insecure(&error, label),
                    }
                }
                // The first refusal says more than that of a fallback address.
                Err(error) if last.address.is_none() => {
                    last = UpstreamError::refused(&error, Arc::from(address.to_string()));
                }
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Whether nobody listens there any more: every address refuses. Whatever
    /// else goes wrong is no proof.
    pub async fn refuses(&self) -> bool {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if let UpstreamTarget::Unix { path } = &self.spec.target {
            let outcome = UnixStream::connect(path).await;
            return outcome
                .is_err_and(|error| refused(&error) || error.kind() == io::ErrorKind::NotFound);
        }
        let Some(resolver) = &self.resolver else {
            return false;
        };
        let Ok(addresses) = resolver.addresses().await else {
            return false;
        };
        for address in &addresses {
            match TcpStream::connect(address).await {
                Err(error) if refused(&error) => {}
                _ => return false,
            }
        }
        !addresses.is_empty()
    }

    /// What the end of the connect timeout means.
    fn unreached(&self) -> UpstreamError {
        let unknown = self.resolver.as_ref().is_some_and(Resolver::is_unknown);
        let (kind, detail) = match unknown {
            true => (Kind::Dns, "no look-up in time"),
            false => (Kind::ConnectTimeout, "no connection in time"),
        };
        let mut error = UpstreamError::connecting(kind, detail);
        error.address = Some(self.label());
        error
    }

    fn label(&self) -> Arc<str> {
        Arc::from(self.spec.target.to_string())
    }
}

impl Pool {
    /// An empty pool. `client_idle_timeout` bounds a client that stalls in the
    /// middle of its body.
    pub fn new(
        upstream: Arc<Upstream>,
        client_idle_timeout: Duration,
        deadlines: Deadlines,
    ) -> Rc<Self> {
        Rc::new(Self {
            upstream,
            client_idle_timeout: Cell::new(client_idle_timeout),
            deadlines,
            idle: RefCell::new(Vec::new()),
            spares: Spares::default(),
            http2: h2::Connections::default(),
            purging: Cell::new(false),
            retired: Cell::new(false),
        })
    }

    /// What it connects to.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(super) fn client_idle_timeout(&self) -> Duration {
        self.client_idle_timeout.get()
    }

    /// A new configuration keeps the pool but not this.
    pub fn set_client_idle_timeout(&self, timeout: Duration) {
        self.client_idle_timeout.set(timeout);
    }

    /// Idle connections now.
    pub fn idle_connections(&self) -> usize {
        self.idle.borrow().len()
    }

    /// No idle HTTP/1.1 connection is kept from now on.
    pub fn keep_none(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }

    /// No connection is kept from now on; those in use are closed after their response.
    pub fn retire(&self) {
        self.keep_none();
        self.http2.retire();
    }

    /// A place for one more stream on an HTTP/2 connection.
    ///
    /// # Errors
    /// No connection could be made.
    pub async fn room(&self) -> Result<h2::Room, UpstreamError> {
        self.http2.room(self).await
    }

    /// A disarmed deadline of this worker.
    pub(super) fn deadline(&self) -> Deadline {
        self.deadlines.add()
    }

    /// The most recently used connection that is still open and silent.
    pub fn take_idle(&self) -> Option<Connection> {
        let oldest_ms = self.oldest_usable_ms();
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connection) = idle.pop() {
            if connection.idle_since_ms < oldest_ms {
                // Everything below it is older still.
                idle.clear();
            } else if connection.stream.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// A new connection, within the connect timeout over all addresses.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<Connection, UpstreamError> {
        self.connect_for(Wire::Http1).await
    }

    /// The same for what is going to be spoken on it.
    pub(super) async fn connect_for(&self, wire: Wire) -> Result<Connection, UpstreamError> {
        let began = Instant::now();
        let deadline = self.deadlines.add();
        deadline.arm(self.upstream.spec.connect_timeout);
        let expired = std::future::poll_fn(|context| deadline.poll_expired(context));
        let outcome = tokio::select! {
            biased;
            outcome = self.upstream.dial(wire) => outcome,
            () = expired => Err(self.upstream.unreached()),
        };
        let opened_in = began.elapsed();
        let (stream, address) = outcome.map_err(|mut error| {
            error.connect = Some(opened_in);
            error
        })?;
        deadline.disarm();
        if !stream.may_be_kept() {
            let detail = "too many open files";
            return Err(UpstreamError::connecting(Kind::Overloaded, detail));
        }
        Ok(Connection {
            stream,
            buffer: BytesMut::new(),
            deadline,
            requests: 0,
            address,
            opened_in,
            idle_since_ms: 0,
        })
    }

    /// Memory of exchanges that are over.
    pub(super) fn spares(&self) -> &Spares {
        &self.spares
    }

    /// Takes a connection back after a clean response, and its buffer for
    /// others if that is of the usual size.
    pub(super) fn put_back(self: &Rc<Self>, mut connection: Connection, spare: bool) {
        if self.retired.get() || self.upstream.spec.max_idle == 0 {
            return;
        }
        connection.deadline.disarm();
        connection.requests = connection.requests.saturating_add(1);
        connection.idle_since_ms = self.deadlines.clock().now_ms();
        // An idle connection costs no read buffer.
        let buffer = std::mem::take(&mut connection.buffer);
        if spare {
            self.spares.keep_buffer(buffer);
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.upstream.spec.max_idle {
            idle.remove(0);
        }
        idle.push(connection);
        drop(idle);
        if !self.purging.replace(true) {
            let pool = Rc::downgrade(self);
            // Ends when the pool is empty or gone.
            tokio::task::spawn_local(purge(pool, self.upstream.spec.pool_idle_timeout));
        }
    }

    fn oldest_usable_ms(&self) -> u64 {
        let limit = self.upstream.spec.pool_idle_timeout.as_millis();
        let limit_ms = u64::try_from(limit).unwrap_or(u64::MAX);
        self.deadlines.clock().now_ms().saturating_sub(limit_ms)
    }

    /// Closes what was idle too long; whether anything is left.
    fn purge_expired(&self) -> bool {
        let oldest_ms = self.oldest_usable_ms();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| connection.idle_since_ms >= oldest_ms);
        !idle.is_empty()
    }
}

async fn purge(pool: Weak<Pool>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.purge_expired() {
            pool.spares.clear();
            pool.purging.set(false);
            return;
        }
    }
}

impl Tls {
    /// Boxed: dialling in plain text is not to be as large.
    async fn connect(&self, stream: TcpStream, wire: Wire) -> io::Result<Stream> {
        Stream::prepare(&stream);
        Box::pin(self.client.connect(stream, &self.host, wire)).await
    }
}

/// There is somebody, but no TLS with whom it should be.
fn insecure(error: &io::Error, address: Arc<str>) -> UpstreamError {
    let mut failed = UpstreamError::connecting(Kind::UpstreamTls, error.to_string());
    failed.address = Some(address);
    failed
}
