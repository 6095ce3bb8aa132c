//! From what is written to the settings of the process.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::doors::{admin, clashes, door, outbound, sql};
use super::framework::Framework;
use super::{ProcessFlags, cpu};
use crate::config::address::{parse_address, parse_url};
use crate::config::compile::is_identifier;
use crate::config::raw::{
    RawAccessLog, RawDuration, RawExporterFull, RawLogFormat, RawLogLevel, RawOtlp, RawProcess,
    Short,
};
use crate::config::report::Report;
use crate::model::{
    AccessLog, DiscoverySettings, LogFormat, LogLevel, ProcessSettings, ReloadSettings,
    ShutdownSettings, SpanExporter, TlsClientSpec, TrustedProxies,
};

const NO_ADDRESS: &str = "expected an IP address such as 127.0.0.1 or ::, without a port";

/// Most data threads that may be asked for.
const MAX_WORKERS: usize = 256;

/// Where references of services may point by default.
const SECRETS_DIRS: [&str; 3] = ["/run/secrets", "/var/run/secrets", "/etc/outrigger"];

/// What the file's settings stand among.
pub(super) struct Around<'a> {
    pub(super) flags: &'a ProcessFlags,
    pub(super) framework: &'a Framework,
    pub(super) config_dir: Option<PathBuf>,
    /// Relative paths of the file start here.
    pub(super) folder: &'a Path,
}

/// Makes the settings; what is wrong goes to the report.
pub(super) fn compile(
    raw: &RawProcess,
    around: &Around<'_>,
    report: &mut Report,
) -> ProcessSettings {
    check_services_keys(raw, report);
    let (log_level, log_format) = log(raw);
    let settings = ProcessSettings {
        services_dir: services_dir(raw, around),
        config_dir: around.config_dir.clone(),
        listen: listen(raw, report),
        workers: workers(raw, report),
        observe: door(
            raw.observe.as_ref().and_then(|door| door.listen.as_deref()),
            ("observe.listen", Ipv4Addr::UNSPECIFIED, 9909),
            report,
        ),
        admin: admin(raw, report),
        outbound: outbound(raw, report),
        sql: sql(raw, report),
        discovery: discovery(raw, report),
        auth_required: raw
            .auth
            .as_ref()
            .and_then(|auth| auth.required)
            .unwrap_or(false),
        exporter: exporter(raw, around.folder, report),
        access_log: match raw.access_log {
            Some(RawAccessLog::Off) => AccessLog::Off,
            Some(RawAccessLog::All) => AccessLog::All,
            Some(RawAccessLog::Errors) | None => AccessLog::Errors,
        },
        log_level,
        log_format,
        trusted_proxies: trusted_proxies(raw, report),
        secrets_dirs: secrets_dirs(raw, around.folder),
        shutdown: shutdown(raw, report),
        reload: reload(raw, report),
        disabled: around.framework.disabled,
        local: local(around),
    };
    clashes(&settings, report);
    settings
}

fn log(raw: &RawProcess) -> (LogLevel, LogFormat) {
    let level = match raw.log.as_ref().and_then(|log| log.level) {
        Some(RawLogLevel::Error) => LogLevel::Error,
        Some(RawLogLevel::Warn) => LogLevel::Warn,
        Some(RawLogLevel::Info) | None => LogLevel::Info,
        Some(RawLogLevel::Debug) => LogLevel::Debug,
        Some(RawLogLevel::Trace) => LogLevel::Trace,
    };
    let format = match raw.log.as_ref().and_then(|log| log.format) {
        Some(RawLogFormat::Auto) | None => LogFormat::Auto,
        Some(RawLogFormat::Text) => LogFormat::Text,
        Some(RawLogFormat::Json) => LogFormat::Json,
    };
    (level, format)
}

/// What the process says for its services is checked once, here.
fn check_services_keys(raw: &RawProcess, report: &mut Report) {
    if let Some(database) = &raw.database {
        for (key, is_written) in [
            ("role", database.role.is_some()),
            ("rolePassword", database.role_password.is_some()),
            ("schema", database.schema.is_some()),
            ("reads", database.reads.is_some()),
            ("sharesWith", database.shares_with.is_some()),
            ("doorToken", database.door_token.is_some()),
        ] {
            if is_written {
                report.warn_hint(
                    &format!("database.{key}"),
                    "is not used: it is each service's own",
                    "write it into the file of the service",
                );
            }
        }
        if let Some(secret) = &database.role_secret
            && secret.0.len() < 32
        {
            report.error_hint(
                "database.roleSecret",
                "is shorter than 32 bytes",
                "make one with `openssl rand -base64 32`",
            );
        }
        if let Some(prefix) = &database.role_prefix
            && !is_identifier(prefix)
        {
            report.error(
                "database.rolePrefix",
                "expected letters, digits and _, beginning with a letter or _",
            );
        }
    }
    if let Some(rate) = raw
        .tracing
        .as_ref()
        .and_then(|tracing| tracing.sampling_rate)
        && !(0.0..=1.0).contains(&rate)
    {
        report.error("tracing.samplingRate", "expected a number from 0 to 1");
    }
}

fn services_dir(raw: &RawProcess, around: &Around<'_>) -> PathBuf {
    let named = raw
        .services_dir
        .clone()
        .or_else(|| around.framework.services_path.clone());
    let folder = match named {
        Some(named) => PathBuf::from(named),
        None if !Path::new("services").is_dir() && Path::new("src/services").is_dir() => {
            PathBuf::from("src/services")
        }
        None => PathBuf::from("services"),
    };
    std::path::absolute(&folder).unwrap_or(folder)
}

fn listen(raw: &RawProcess, report: &mut Report) -> Option<IpAddr> {
    let text = raw.listen.as_deref()?;
    let address = text.trim_start_matches('[').trim_end_matches(']').parse();
    if address.is_err() {
        report.error("listen", NO_ADDRESS);
    }
    address.ok()
}

fn workers(raw: &RawProcess, report: &mut Report) -> usize {
    match raw.workers.as_deref() {
        None | Some("auto") => cpu::automatic_workers(),
        Some(text) => match text.parse::<usize>() {
            Ok(number) if (1..=MAX_WORKERS).contains(&number) => number,
            _ => {
                report.error("workers", "expected auto or a number from 1 to 256");
                1
            }
        },
    }
}

fn discovery(raw: &RawProcess, report: &mut Report) -> DiscoverySettings {
    let written = raw.discovery.as_ref();
    let address = written
        .and_then(|discovery| discovery.address.clone())
        .unwrap_or_else(|| "127.0.0.1:{port}".to_owned());
    let probe = address
        .replace("{name}", "n")
        .replace("{domain}", "d")
        .replace("{port}", "1");
    if probe.contains(['{', '}']) {
        report.error(
            "discovery.address",
            "only {name}, {domain} and {port} are filled in",
        );
    } else if let Err(message) = parse_address(&probe) {
        report.error("discovery.address", message);
    }
    DiscoverySettings {
        address: Arc::from(address),
        refresh: duration(
            "discovery.refresh",
            written.and_then(|discovery| discovery.refresh),
            Duration::from_secs(5),
            report,
        ),
    }
}

/// A duration above zero.
fn duration(
    key: &str,
    written: Option<RawDuration>,
    default: Duration,
    report: &mut Report,
) -> Duration {
    match written {
        Some(RawDuration(duration)) if duration.is_zero() => {
            report.error(key, "must be above 0");
            default
        }
        Some(RawDuration(duration)) => duration,
        None => default,
    }
}

fn exporter(raw: &RawProcess, folder: &Path, report: &mut Report) -> SpanExporter {
    let key = "tracing.exporter";
    let written = raw
        .tracing
        .as_ref()
        .and_then(|tracing| tracing.exporter.as_ref());
    match written {
        None | Some(Short::Off) => SpanExporter::None,
        Some(Short::Text(word)) if word == "none" => SpanExporter::None,
        Some(Short::Text(word)) if word == "stdout" => SpanExporter::Stdout,
        Some(Short::Full(RawExporterFull { otlp: Some(otlp) })) => {
            otlp_exporter(otlp, folder, report)
        }
        Some(_) => {
            report.error(key, "expected none, stdout or {otlp: …}");
            SpanExporter::None
        }
    }
}

fn otlp_exporter(otlp: &RawOtlp, folder: &Path, report: &mut Report) -> SpanExporter {
    let key = "tracing.exporter.otlp";
    match otlp.endpoint.as_deref().map(parse_url) {
        Some(Ok(_)) => {}
        Some(Err(message)) => report.error(&format!("{key}.endpoint"), message),
        None => report.error(key, "needs `endpoint`"),
    }
    let mut headers = Vec::new();
    for (name, value) in otlp.headers.iter().flatten() {
        let valid = http::HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).is_ok()
            && http::HeaderValue::from_bytes(value.0.expose()).is_ok();
        if !valid {
            report.error(&format!("{key}.headers.{name}"), "is no header");
        }
        headers.push((Arc::from(name.to_ascii_lowercase()), value.0.clone()));
    }
    if otlp.queue == Some(0) {
        report.error(&format!("{key}.queue"), "must be at least 1");
    }
    if let Some(tls) = &otlp.tls
        && tls.cert.is_some() != tls.key.is_some()
    {
        report.error(&format!("{key}.tls"), "`cert` and `key` go together");
    }
    let path = |text: &Option<String>| text.as_ref().map(|text| folder.join(text));
    SpanExporter::Otlp {
        endpoint: otlp.endpoint.clone().unwrap_or_default(),
        headers,
        tls: otlp.tls.as_ref().map(|tls| TlsClientSpec {
            ca: path(&tls.ca),
            cert: path(&tls.cert),
            key: path(&tls.key),
            server_name: tls.server_name.as_deref().map(Arc::from),
            digest: [0; 32],
        }),
        queue: otlp.queue.unwrap_or(2048).clamp(1, 1 << 20) as usize,
        timeout: duration(
            &format!("{key}.timeout"),
            otlp.timeout,
            Duration::from_secs(5),
            report,
        ),
    }
}

fn trusted_proxies(raw: &RawProcess, report: &mut Report) -> TrustedProxies {
    let mut trusted = TrustedProxies::default();
    let written = raw.trusted_proxies.as_ref();
    for (index, text) in written.iter().flat_map(|list| &list.0).enumerate() {
        match text.as_str() {
            "loopback" => trusted.loopback = true,
            "private" => trusted.private = true,
            _ => {
                let network = text
                    .parse::<ipnet::IpNet>()
                    .or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from));
                match network {
                    Ok(network) => trusted.networks.push(network.trunc()),
                    Err(_) => report.error(
                        &format!("trustedProxies[{index}]"),
                        "expected a network such as 10.0.0.0/8, loopback or private",
                    ),
                }
            }
        }
    }
    trusted
}

fn secrets_dirs(raw: &RawProcess, folder: &Path) -> Vec<PathBuf> {
    match &raw.secrets_dirs {
        Some(list) => list.0.iter().map(|text| folder.join(text)).collect(),
        None => SECRETS_DIRS.map(PathBuf::from).to_vec(),
    }
}

fn shutdown(raw: &RawProcess, report: &mut Report) -> ShutdownSettings {
    let written = raw.shutdown.as_ref();
    let deadline = duration(
        "shutdown.deadline",
        written.and_then(|shutdown| shutdown.deadline),
        Duration::from_secs(25),
        report,
    );
    // Zero is fine: nothing needs to learn that we stop.
    let accept = written
        .and_then(|shutdown| shutdown.accept)
        .map_or(Duration::from_secs(5), |accept| accept.0);
    if accept >= deadline {
        report.error(
            "shutdown.accept",
            "must be shorter than `shutdown.deadline`",
        );
    }
    ShutdownSettings {
        deadline,
        accept,
        quit_endpoint: written
            .and_then(|shutdown| shutdown.quit_endpoint)
            .unwrap_or(false),
    }
}

fn reload(raw: &RawProcess, report: &mut Report) -> ReloadSettings {
    let written = raw.reload.as_ref();
    let settings = ReloadSettings {
        poll: duration(
            "reload.poll",
            written.and_then(|reload| reload.poll),
            Duration::from_secs(5),
            report,
        ),
        quiet: duration(
            "reload.quiet",
            written.and_then(|reload| reload.quiet),
            Duration::from_millis(50),
            report,
        ),
        max: duration(
            "reload.max",
            written.and_then(|reload| reload.max),
            Duration::from_millis(200),
            report,
        ),
    };
    if settings.max < settings.quiet {
        report.error("reload.max", "must not be shorter than `reload.quiet`");
    }
    settings
}

fn local(around: &Around<'_>) -> Option<Vec<Arc<str>>> {
    let names = if around.flags.service.is_empty() {
        around.framework.local.as_ref().map(|(_, names)| names)
    } else {
        Some(&around.flags.service)
    };
    names.map(|names| names.iter().map(|name| Arc::from(name.as_str())).collect())
}
