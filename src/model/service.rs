//! A service as validated from its file (CONFIG.md "Service file").

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::auth::AuthPolicy;
use super::database::DatabaseSpec;
use super::health::{HealthCheckSpec, HealthSpec};
use super::name::ServiceName;
use crate::secret::Secret;

/// A local service: everything this process needs to front it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    pub name: ServiceName,
    pub version: Option<Arc<str>>,
    pub description: Option<Arc<str>>,
    /// Public port of the sidecar for this service, after `--port-offset`.
    pub port: u16,
    /// Addresses the port is bound on; `None` = the process setting.
    pub listen: Option<IpAddr>,
    pub upstream: UpstreamSpec,
    pub dependencies: Vec<DependencySpec>,
    pub health_check: HealthCheckSpec,
    pub health: HealthSpec,
    pub limits: Limits,
    /// Lower-case tokens of `Upgrade` that may pass.
    pub upgrades: Vec<Arc<str>>,
    pub tls: Option<TlsServerSpec>,
    pub auth: AuthPolicy,
    /// `None` = off: incoming trace headers pass untouched.
    pub tracing: Option<TracingSpec>,
    /// Only when the wing is on (POSTGRES.md §1).
    pub database: Option<DatabaseSpec>,
}

/// What is read of a service fronted elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    pub name: ServiceName,
    pub version: Option<Arc<str>>,
    pub port: Option<u16>,
    /// Where its sidecar is reached; empty = unknown address.
    pub addresses: Vec<Address>,
    /// Whether `https` is spoken to it.
    pub tls: bool,
    pub protocol: UpstreamProtocol,
    pub health_path: Option<Arc<str>>,
    /// The policy, as far as it could be compiled without its secrets.
    pub auth: Option<AuthPolicy>,
}

/// `http(s)://host:port` of a peer or dependency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub tls: bool,
    /// Host name, or IP literal without brackets.
    pub host: Arc<str>,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(formatter, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// The app behind the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSpec {
    pub target: UpstreamTarget,
    pub protocol: UpstreamProtocol,
    pub header_case: HeaderCase,
    pub connect_timeout: Duration,
    /// Until the complete response head.
    pub response_timeout: Duration,
    pub body_idle_timeout: Duration,
    pub pool_idle_timeout: Duration,
    /// Idle connections kept per worker.
    pub max_idle: usize,
    /// `Some` = TLS to the app.
    pub tls: Option<TlsClientSpec>,
}

/// Where the app listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamTarget {
    /// The derived default: `127.0.0.1:port`, then `[::1]:port`.
    Loopback {
        port: u16,
    },
    Tcp {
        host: Arc<str>,
        port: u16,
    },
    Unix {
        path: PathBuf,
    },
}

impl UpstreamTarget {
    /// Whether connecting leaves this machine's kernel: decides the default
    /// connect timeout (300 ms or 2 s).
    pub fn is_local(&self) -> bool {
        match self {
            Self::Loopback { .. } | Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                &**host == "localhost"
                    || host
                        .parse::<IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for UpstreamTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback { port } => write!(formatter, "127.0.0.1:{port}"),
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix { path } => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// What is spoken to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    Http1,
    H2c,
    /// HTTP/2 for requests that came as HTTP/2 gRPC, otherwise HTTP/1.1.
    Auto,
}

/// Spelling of header names toward an HTTP/1.1 app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderCase {
    Lower,
    Title,
}

/// One entry of `dependencies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencySpec {
    /// As the app names it: bare name, or `domain/name`.
    pub name: Arc<str>,
    /// The service of the tree it stands for, when there is one.
    pub service: Option<ServiceName>,
    /// Where it is reached; never empty.
    pub addresses: Vec<Address>,
    pub local_port: Option<u16>,
    pub required: bool,
    /// How its state is probed: with a sidecar and unless written otherwise, by
    /// that sidecar's `/health?scope=self`.
    pub health_check: HealthCheckSpec,
    /// Whether a sidecar of ours fronts it (`/health?scope=self`).
    pub has_sidecar: bool,
    pub protocol: UpstreamProtocol,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub retries: u32,
    /// Pause before the first retry.
    pub retry_delay: Duration,
    /// `None` = off.
    pub breaker: Option<BreakerSpec>,
    pub credential: Option<DependencyCredential>,
    pub tls: Option<TlsClientSpec>,
}

impl DependencySpec {
    /// Whether a request goes in HTTP/2: a call in gRPC cannot go otherwise.
    pub fn speaks_http2(&self, grpc: bool, upgrade: bool) -> bool {
        match self.protocol {
            UpstreamProtocol::H2c => !upgrade,
            UpstreamProtocol::Http1 | UpstreamProtocol::Auto => grpc && !upgrade,
        }
    }
}

/// Circuit breaker of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSpec {
    /// Consecutive failures that open it.
    pub failures: u32,
    pub open: Duration,
}

/// What is attached to a call toward a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DependencyCredential {
    /// Sent in `x-api-key`.
    ApiKey(Secret),
    /// Minted HS256 token (`iss`, `sub`, `serviceName` = caller, `aud` = target).
    Jwt { secret: Secret, lifetime: Duration },
}

/// Bounds of the public port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Names, values and separators of a request head; also the h2 header list.
    pub header_bytes: u32,
    pub header_count: u32,
    /// Path and query.
    pub uri_bytes: u32,
    /// `None` = unlimited.
    pub body_bytes: Option<u64>,
    /// Requests, per process.
    pub in_flight: u32,
    pub connections: u32,
    /// First byte and complete head.
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    /// A client that does not read.
    pub write_stall_timeout: Duration,
    pub upgrade_idle_timeout: Duration,
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_count: 100,
            uri_bytes: 16 * 1024,
            body_bytes: None,
            in_flight: 10_000,
            connections: 10_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_stall_timeout: Duration::from_secs(60),
            upgrade_idle_timeout: Duration::from_secs(3600),
            h2_streams: 128,
        }
    }
}

/// Server TLS. Files are re-read on change; the digests make a change of
/// content a change of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServerSpec {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    /// `clientCert: require`; with a CA and `false`, certificates are optional.
    pub require_client_cert: bool,
    pub min_version: TlsVersion,
    /// SHA-256 over the contents of the files.
    pub digest: [u8; 32],
}

/// Lowest TLS version accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Client TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsClientSpec {
    /// `None` = the system's roots.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Overrides the host for SNI and verification.
    pub server_name: Option<Arc<str>>,
    /// SHA-256 over the contents of the files.
    pub digest: [u8; 32],
}

/// `tracing`, when on.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingSpec {
    /// 0..=1.
    pub sampling_rate: f64,
    pub propagate: Vec<Propagation>,
    pub trust_parent: TrustParent,
}

// The rate is validated to be finite.
impl Eq for TracingSpec {}

/// A header format that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    W3c,
    House,
    /// `b3: …`
    B3,
    /// `X-B3-…`
    B3Multi,
}

/// Whose sampling decision is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustParent {
    /// Not written: authenticated callers, and loopback and private peers
    /// without forwarding headers.
    Auto,
    Always,
    Authenticated,
    Never,
}
