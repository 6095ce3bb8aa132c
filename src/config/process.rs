//! Settings of the process.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::environment::Environment;
use super::problem::Problem;
use crate::model::{
    AccessLog, AdminSettings, DiscoverySettings, DoorListen, LogFormat, LogLevel, OutboundSettings,
    ProcessSettings, ReloadSettings, ShutdownSettings, SpanExporter, SqlSettings, TrustedProxies,
};

/// What the command line says; it wins over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessFlags {
    /// `--config`: the process file; `None` = `config/outrigger.yaml` if it exists.
    pub config: Option<PathBuf>,
    /// `--services`: the tree.
    pub services: Option<PathBuf>,
    /// `--service`: the local services; empty = not given.
    pub service: Vec<String>,
    /// `--port-offset`: added to every public port.
    pub port_offset: u16,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `check --no-secrets`: references count as present.
    pub no_secrets: bool,
}

/// The settings of the process and what its file says about services.
#[derive(Debug, Clone)]
pub struct LoadedProcess {
    pub settings: Arc<ProcessSettings>,
    /// Nothing here stops the process.
    pub warnings: Vec<Problem>,
    /// The process file and every file it names: a change of one of them is a
    /// reason to load again.
    pub referenced: BTreeSet<PathBuf>,
}

/// Loads the settings: flags over environment over file over defaults.
///
/// # Errors
/// Every problem that keeps the process from starting, and the warnings.
pub fn load_process(
    flags: &ProcessFlags,
    _environment: &Environment,
) -> Result<LoadedProcess, Vec<Problem>> {
    let services_dir = flags
        .services
        .clone()
        .unwrap_or_else(|| PathBuf::from("services"));
    let local = |port| DoorListen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let settings = ProcessSettings {
        services_dir: std::path::absolute(&services_dir).unwrap_or(services_dir),
        config_dir: None,
        listen: None,
        workers: 1,
        observe: DoorListen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9909)),
        admin: AdminSettings {
            listen: local(9900),
            token: None,
        },
        outbound: OutboundSettings {
            listen: local(9901),
            strict: true,
            allow_origins: Vec::new(),
        },
        sql: SqlSettings {
            listen: local(9902),
            allow_origins: Vec::new(),
            max_request_bytes: 10 << 20,
            max_response_bytes: 10 << 20,
        },
        discovery: DiscoverySettings {
            address: Arc::from("127.0.0.1:{port}"),
            refresh: Duration::from_secs(5),
        },
        auth_required: false,
        exporter: SpanExporter::None,
        access_log: AccessLog::Errors,
        log_level: LogLevel::Info,
        log_format: LogFormat::Auto,
        trusted_proxies: TrustedProxies::default(),
        secrets_dirs: ["/run/secrets", "/var/run/secrets", "/etc/outrigger"]
            .map(PathBuf::from)
            .to_vec(),
        shutdown: ShutdownSettings {
            deadline: Duration::from_secs(25),
            accept: Duration::from_secs(5),
            quit_endpoint: false,
        },
        reload: ReloadSettings {
            poll: Duration::from_secs(5),
            quiet: Duration::from_millis(50),
            max: Duration::from_millis(200),
        },
        disabled: false,
        local: None,
    };
    Ok(LoadedProcess {
        settings: Arc::new(settings),
        warnings: Vec::new(),
        referenced: BTreeSet::new(),
    })
}
