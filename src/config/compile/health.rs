//! `healthCheck`, `health`, `limits`, `upgrades`, `tracing`.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::names::is_exact_path;
use crate::config::raw::{
    RawHealth, RawHealthCheck, RawHealthDetails, RawLimits, RawPropagation, RawSize, RawTracing,
    RawTrustParent, Short,
};
use crate::model::{
    AppHealthCheck, HealthCheckSpec, HealthDetails, HealthSpec, Limits, ProbeSpec, Propagation,
    TracingSpec, TrustParent,
};

/// Compiles the `healthCheck` at `key`.
///
/// `sidecar` is where a dependency's sidecar answers for its health. Unless
/// another path is written, it is asked for its service's own state: without
/// `scope=self`, two services that need each other would each wait for the other.
pub(super) fn check(
    written: Option<&Short<RawHealthCheck>>,
    key: &str,
    sidecar: Option<&str>,
    context: &mut Context<'_>,
) -> HealthCheckSpec {
    let empty = RawHealthCheck::default();
    let (full, path, path_key) = match written {
        Some(Short::Off) => return HealthCheckSpec::Off,
        None | Some(Short::On) => (&empty, None, key.to_owned()),
        Some(Short::Text(text)) => (&empty, Some(text), key.to_owned()),
        Some(Short::Full(full)) => (full, full.path.as_ref(), format!("{key}.path")),
    };
    let probe = probe(full, key, context);
    let sidecar = sidecar.filter(|own| path.is_none_or(|path| path == own));
    if let Some(own) = sidecar {
        let path = Arc::from(format!("{own}?scope=self"));
        return HealthCheckSpec::Check(AppHealthCheck::Path(path), probe);
    }
    let Some(path) = path else {
        return HealthCheckSpec::Unset(probe);
    };
    if path == "grpc" {
        return HealthCheckSpec::Check(AppHealthCheck::Grpc, probe);
    }
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        context.report.error_hint(
            &path_key,
            "expected a path, `grpc` or false",
            "a path begins with /, such as /health",
        );
    }
    HealthCheckSpec::Check(AppHealthCheck::Path(Arc::from(path.as_str())), probe)
}

fn probe(full: &RawHealthCheck, key: &str, context: &mut Context<'_>) -> ProbeSpec {
    let defaults = ProbeSpec::default();
    let mut probe = ProbeSpec {
        interval: context.duration(&format!("{key}.interval"), full.interval, defaults.interval),
        timeout: context.duration(&format!("{key}.timeout"), full.timeout, defaults.timeout),
        unhealthy_threshold: context.count(
            &format!("{key}.unhealthyThreshold"),
            full.unhealthy_threshold,
            defaults.unhealthy_threshold,
        ),
        healthy_threshold: context.count(
            &format!("{key}.healthyThreshold"),
            full.healthy_threshold,
            defaults.healthy_threshold,
        ),
    };
    let framework = &context.defaults.framework.probe;
    probe.interval = framework.interval.unwrap_or(probe.interval);
    probe.timeout = framework.timeout.unwrap_or(probe.timeout);
    probe.unhealthy_threshold = framework
        .unhealthy_threshold
        .unwrap_or(probe.unhealthy_threshold);
    probe.healthy_threshold = framework
        .healthy_threshold
        .unwrap_or(probe.healthy_threshold);
    probe
}

/// Compiles `health`.
pub(super) fn health(written: Option<&RawHealth>, context: &mut Context<'_>) -> HealthSpec {
    let mut health = HealthSpec::default();
    let Some(written) = written else {
        return health;
    };
    match &written.path {
        Some(Short::Off) => health.path = None,
        Some(Short::Text(path)) => {
            if !is_exact_path(path) {
                context
                    .report
                    .error("health.path", "expected a path such as /health, or false");
            }
            health.path = Some(Arc::from(path.as_str()));
        }
        Some(Short::On | Short::Full(_)) | None => {}
    }
    health.details = match written.details {
        Some(RawHealthDetails::Public) => HealthDetails::Public,
        Some(RawHealthDetails::Restricted) => HealthDetails::Restricted,
        Some(RawHealthDetails::Auto) | None => HealthDetails::Auto,
    };
    if let Some(status) = written.degraded_status {
        if !(200..=599).contains(&status) {
            context
                .report
                .error("health.degradedStatus", "expected a status from 200 to 599");
        }
        health.degraded_status = status;
    }
    health.services = written.services.unwrap_or(false);
    health
}

/// More fields than this a map of headers does not hold.
const MAX_HEADER_COUNT: u32 = 10_000;

fn header_count(written: Option<u32>, default: u32, context: &mut Context<'_>) -> u32 {
    let count = context.count("limits.headerCount", written, default);
    if count > MAX_HEADER_COUNT {
        let text = format!("expected at most {MAX_HEADER_COUNT}");
        context.report.error("limits.headerCount", text);
    }
    count
}

/// Compiles `limits`.
pub(super) fn limits(written: Option<&RawLimits>, context: &mut Context<'_>) -> Limits {
    let standard = Limits::default();
    let Some(written) = written else {
        return standard;
    };
    let mut bytes = |key: &str, written: Option<RawSize>, default: u32| match written {
        None => default,
        // A request head has to fit into one buffer.
        Some(RawSize(Some(bytes))) if (1024..=16 << 20).contains(&bytes) => {
            u32::try_from(bytes).unwrap_or(default)
        }
        Some(_) => {
            context
                .report
                .error(key, "expected a size from 1KiB to 16MiB");
            default
        }
    };
    let header_bytes = bytes(
        "limits.headerBytes",
        written.header_bytes,
        standard.header_bytes,
    );
    let uri_bytes = bytes("limits.uriBytes", written.uri_bytes, standard.uri_bytes);
    let header_count = header_count(written.header_count, standard.header_count, context);
    let mut count = |key: &str, written, default| context.count(key, written, default);
    let in_flight = count("limits.inFlight", written.in_flight, standard.in_flight);
    let connections = count(
        "limits.connections",
        written.connections,
        standard.connections,
    );
    let h2_streams = count("limits.h2Streams", written.h2_streams, standard.h2_streams);
    let mut duration = |key: &str, written, default| context.duration(key, written, default);
    Limits {
        header_bytes,
        header_count,
        uri_bytes,
        body_bytes: written.body_bytes.and_then(|size| size.0),
        in_flight,
        connections,
        header_timeout: duration(
            "limits.headerTimeout",
            written.header_timeout,
            standard.header_timeout,
        ),
        idle_timeout: duration(
            "limits.idleTimeout",
            written.idle_timeout,
            standard.idle_timeout,
        ),
        write_stall_timeout: duration(
            "limits.writeStallTimeout",
            written.write_stall_timeout,
            standard.write_stall_timeout,
        ),
        upgrade_idle_timeout: duration(
            "limits.upgradeIdleTimeout",
            written.upgrade_idle_timeout,
            standard.upgrade_idle_timeout,
        ),
        h2_streams,
    }
}

/// Compiles `upgrades`.
pub(super) fn upgrades(
    written: Option<&Short<Vec<String>>>,
    context: &mut Context<'_>,
) -> Vec<Arc<str>> {
    let list = match written {
        None | Some(Short::On) => return vec![Arc::from("websocket")],
        Some(Short::Off) => return Vec::new(),
        Some(Short::Text(text)) => std::slice::from_ref(text),
        Some(Short::Full(list)) => list.as_slice(),
    };
    let mut tokens: Vec<Arc<str>> = Vec::new();
    for (index, text) in list.iter().enumerate() {
        let key = format!("upgrades[{index}]");
        let token = text.to_ascii_lowercase();
        // RFC 9110 §7.8: a protocol is a token, perhaps with a version.
        let is_token = !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte));
        if !is_token {
            context
                .report
                .error(&key, "expected a token such as websocket");
        } else if matches!(token.as_str(), "h2c" | "h2" | "tls" | "http") {
            context
                .report
                .error(&key, "changes of the HTTP version are never passed on");
        } else if !tokens.iter().any(|known| **known == token) {
            tokens.push(Arc::from(token));
        }
    }
    tokens
}

/// Compiles `tracing`; `None` = off.
pub(super) fn tracing(
    written: Option<&Short<RawTracing>>,
    context: &mut Context<'_>,
) -> Option<TracingSpec> {
    let process = &context.defaults.tracing;
    let framework = &context.defaults.framework;
    let empty = RawTracing::default();
    let (full, switched) = match written {
        Some(Short::Off) => (&empty, Some(false)),
        Some(Short::On) => (&empty, Some(true)),
        Some(Short::Full(full)) => (full, Some(full.enabled.unwrap_or(true))),
        Some(Short::Text(_)) => {
            context
                .report
                .error("tracing", "expected true, false or a mapping");
            (&empty, None)
        }
        None => (&empty, None),
    };
    if let Some(rate) = full.sampling_rate
        && !(0.0..=1.0).contains(&rate)
    {
        context
            .report
            .error("tracing.samplingRate", "expected a number from 0 to 1");
    }
    let enabled = framework.tracing != Some(false)
        && switched
            .or(framework.tracing)
            .or(process.enabled)
            .unwrap_or(false);
    let rate = full
        .sampling_rate
        .or(framework.tracing_rate)
        .or(process.sampling_rate)
        .unwrap_or(1.0);
    let propagate = full.propagate.as_ref().or(process.propagate.as_ref());
    let propagate = match propagate {
        Some(list) => propagation(list),
        None => vec![Propagation::W3c, Propagation::House],
    };
    enabled.then_some(TracingSpec {
        sampling_rate: rate.clamp(0.0, 1.0),
        propagate,
        trust_parent: match full.trust_parent.or(process.trust_parent) {
            Some(RawTrustParent::Always) => TrustParent::Always,
            Some(RawTrustParent::Authenticated) => TrustParent::Authenticated,
            Some(RawTrustParent::Never) => TrustParent::Never,
            Some(RawTrustParent::Auto) | None => TrustParent::Auto,
        },
    })
}

fn propagation(list: &[RawPropagation]) -> Vec<Propagation> {
    let mut formats = Vec::new();
    for format in list {
        let format = match format {
            RawPropagation::W3c => Propagation::W3c,
            RawPropagation::House => Propagation::House,
            RawPropagation::B3 => Propagation::B3,
            RawPropagation::B3multi => Propagation::B3Multi,
        };
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    formats
}

/// Whole milliseconds as written in `…Millis` keys.
pub(super) fn millis(written: Option<u64>, default: u64) -> Duration {
    Duration::from_millis(written.unwrap_or(default))
}
