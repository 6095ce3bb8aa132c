//! `upstream`, of a service and of a rule.

use std::path::PathBuf;
use std::time::Duration;

use super::context::Context;
use super::tls;
use crate::config::address::parse_address;
use crate::config::raw::{RawHeaderCase, RawProtocol, RawUpstream, Short};
use crate::model::{HeaderCase, TlsClientSpec, UpstreamProtocol, UpstreamSpec, UpstreamTarget};

/// Longest path of a Unix socket (`sun_path` without its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// What the app's derived port is above the public one (SPEC §1.2).
const DERIVED_OFFSET: u16 = 10_000;

/// Compiles the upstream at `key`; `port` is the public port it is derived from.
pub(super) fn compile(
    written: Option<&Short<RawUpstream>>,
    key: &str,
    port: Option<u16>,
    context: &mut Context<'_>,
) -> UpstreamSpec {
    let empty = RawUpstream::default();
    let (full, url, url_key) = match written {
        Some(Short::Full(full)) => (full, full.url.clone(), format!("{key}.url")),
        Some(Short::Text(text)) => (&empty, Some(text.clone()), key.to_owned()),
        Some(Short::On | Short::Off) => {
            context
                .report
                .error(key, "expected a port, host:port, URL or unix:/path");
            (&empty, None, key.to_owned())
        }
        None => (&empty, None, key.to_owned()),
    };
    let (target, is_https) = match url {
        Some(url) => named(&url, &url_key, context),
        None => (derived(port, context), false),
    };
    let tls = client_tls(full, is_https, key, context);
    let connect_default = if target.is_local() {
        Duration::from_millis(300)
    } else {
        Duration::from_secs(2)
    };
    let seconds = Duration::from_secs;
    let mut duration =
        |name: &str, written, default| context.duration(&format!("{key}.{name}"), written, default);
    UpstreamSpec {
        connect_timeout: duration("connectTimeout", full.connect_timeout, connect_default),
        response_timeout: duration("responseTimeout", full.response_timeout, seconds(30)),
        body_idle_timeout: duration("bodyIdleTimeout", full.body_idle_timeout, seconds(300)),
        pool_idle_timeout: duration("poolIdleTimeout", full.pool_idle_timeout, seconds(3)),
        target,
        protocol: protocol(full.protocol),
        header_case: match full.header_case {
            Some(RawHeaderCase::Title) => HeaderCase::Title,
            Some(RawHeaderCase::Lower) | None => HeaderCase::Lower,
        },
        max_idle: full.max_idle.unwrap_or(64) as usize,
        tls,
    }
}

/// The protocol, by default HTTP/1.1.
pub(super) fn protocol(written: Option<RawProtocol>) -> UpstreamProtocol {
    match written {
        Some(RawProtocol::H2c) => UpstreamProtocol::H2c,
        Some(RawProtocol::Auto) => UpstreamProtocol::Auto,
        Some(RawProtocol::Http1) | None => UpstreamProtocol::Http1,
    }
}

fn derived(port: Option<u16>, context: &mut Context<'_>) -> UpstreamTarget {
    let derived = port.map(|port| port.checked_add(DERIVED_OFFSET));
    if derived == Some(None) {
        context.report.error_hint(
            "port",
            "the app's port would be above 65535",
            "set `upstream`, or a `port` up to 55535",
        );
    }
    UpstreamTarget::Loopback {
        port: derived.flatten().unwrap_or(DERIVED_OFFSET),
    }
}

fn named(url: &str, key: &str, context: &mut Context<'_>) -> (UpstreamTarget, bool) {
    let placeholder = UpstreamTarget::Loopback {
        port: DERIVED_OFFSET,
    };
    if let Some(path) = url.strip_prefix("unix:") {
        // Also as a URL with an empty authority.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            context
                .report
                .error(key, "the path of a Unix socket must be absolute");
        } else if path.len() > MAX_SOCKET_PATH {
            context.report.error(
                key,
                format!("the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes"),
            );
        }
        return (
            UpstreamTarget::Unix {
                path: PathBuf::from(path),
            },
            false,
        );
    }
    if let Ok(number) = url.parse::<u32>() {
        return match u16::try_from(number) {
            Ok(port) if port > 0 => (UpstreamTarget::Loopback { port }, false),
            _ => {
                context.report.error(key, "expected a port from 1 to 65535");
                (placeholder, false)
            }
        };
    }
    let address = match parse_address(url) {
        Ok(address) => address,
        Err(message) => {
            context.report.error(key, message);
            return (placeholder, false);
        }
    };
    let Some(full) = address.with_port(None) else {
        context
            .report
            .error_hint(key, "the port is missing", "write host:port or a URL");
        return (placeholder, address.tls);
    };
    (
        UpstreamTarget::Tcp {
            host: full.host,
            port: full.port,
        },
        address.tls,
    )
}

fn client_tls(
    full: &RawUpstream,
    is_https: bool,
    key: &str,
    context: &mut Context<'_>,
) -> Option<TlsClientSpec> {
    if !is_https {
        if full.tls.is_some() {
            context.report.error_hint(
                &format!("{key}.tls"),
                "has no use without an https:// url",
                "write `url: https://host:port`",
            );
        }
        return None;
    }
    if full.protocol == Some(RawProtocol::H2c) {
        context.report.error(
            &format!("{key}.protocol"),
            "h2c is without TLS, but the url is https://",
        );
    }
    let written = full.tls.clone().unwrap_or_default();
    Some(tls::client(&written, &format!("{key}.tls"), context))
}
