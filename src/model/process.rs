//! Settings of the process (CONFIG.md "Process settings"), validated.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::service::TlsClientSpec;
use crate::secret::Secret;

/// Everything that is set for the whole process, file, environment and flags merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Absolute.
    pub services_dir: PathBuf,
    /// Folder of the process config file, absolute, when there is a file.
    pub config_dir: Option<PathBuf>,
    /// `None` = `[::]` dual-stack, else `0.0.0.0`.
    pub listen: Option<IpAddr>,
    /// Data threads, at least 1.
    pub workers: usize,
    pub observe: DoorListen,
    pub admin: AdminSettings,
    pub outbound: OutboundSettings,
    pub sql: SqlSettings,
    pub discovery: DiscoverySettings,
    /// A service must say `strategy: none` itself to be open.
    pub auth_required: bool,
    pub exporter: SpanExporter,
    pub access_log: AccessLog,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub trusted_proxies: TrustedProxies,
    pub secrets_dirs: Vec<PathBuf>,
    pub shutdown: ShutdownSettings,
    pub reload: ReloadSettings,
    /// `MICROSERVICES=false`: fronts nothing and says so.
    pub disabled: bool,
    /// `SERVICES` / `SERVICE_NAME` / `--service`: names or keys of the local
    /// services; `None` = all.
    pub local: Option<Vec<Arc<str>>>,
}

/// Address of a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorListen {
    Off,
    At(SocketAddr),
}

/// `admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    pub listen: DoorListen,
    /// Required off loopback.
    pub token: Option<Secret>,
}

/// `outbound`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundSettings {
    pub listen: DoorListen,
    pub strict: bool,
    pub allow_origins: Vec<Arc<str>>,
}

/// `sql`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlSettings {
    pub listen: DoorListen,
    pub allow_origins: Vec<Arc<str>>,
    pub max_request_bytes: u64,
    pub max_response_bytes: u64,
}

/// `discovery`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Template with `{name}`, `{domain}`, `{port}`.
    pub address: Arc<str>,
    /// How often names are resolved again.
    pub refresh: Duration,
}

/// `tracing.exporter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanExporter {
    None,
    Stdout,
    Otlp {
        endpoint: String,
        /// Lower-case name, value.
        headers: Vec<(Arc<str>, Secret)>,
        tls: Option<TlsClientSpec>,
        /// Spans held at most.
        queue: usize,
        timeout: Duration,
    },
}

/// Which requests get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    /// Status ≥ 500 or made by the sidecar.
    Errors,
    All,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The configuration name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// `trustedProxies`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    /// The word `loopback`.
    pub loopback: bool,
    /// The word `private`: RFC 1918, RFC 4193, link-local, RFC 6598.
    pub private: bool,
}

impl TrustedProxies {
    /// Whether forwarding headers of this peer are believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.loopback && address.is_loopback())
            || (self.private && is_private(address))
            || self
                .networks
                .iter()
                .any(|network| network.contains(&address))
    }
}

/// Whether an address belongs to a private network (RFC 1918, RFC 4193, RFC
/// 3927, RFC 4291 §2.5.6, RFC 6598); loopback is not among them.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_link_local()
                || (v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]))
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// `shutdown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownSettings {
    pub deadline: Duration,
    pub accept: Duration,
    pub quit_endpoint: bool,
}

/// `reload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadSettings {
    pub poll: Duration,
    /// Events within this window are one change.
    pub quiet: Duration,
    /// The window never grows beyond this.
    pub max: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_proxies_see_through_mapped_addresses() {
        let trusted = TrustedProxies {
            networks: vec!["203.0.113.0/24".parse().expect("network")],
            loopback: false,
            private: true,
        };
        for (address, expected) in [
            ("203.0.113.9", true),
            ("::ffff:203.0.113.9", true),
            ("10.1.2.3", true),
            ("100.64.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("198.51.100.1", false),
        ] {
            assert_eq!(
                trusted.contains(address.parse().expect("address")),
                expected,
                "{address}"
            );
        }
    }
}
