//! A whole service file.

use std::net::IpAddr;
use std::sync::Arc;

use super::context::Context;
use super::{auth, database, dependencies, health, tls, upstream};
use crate::config::raw::RawService;
use crate::model::{ServiceSpec, UpstreamTarget};

/// Compiles a local service; `None` after errors, all of which are reported.
pub(in crate::config) fn service(
    raw: &RawService,
    context: &mut Context<'_>,
) -> Option<ServiceSpec> {
    identity(raw, context);
    let port = port(raw, context);
    let listen = listen(raw, context);
    addresses(raw, context);
    let upstream = upstream::compile(raw.upstream.as_ref(), "upstream", context.port, context);
    if let Some(port) = port {
        not_itself(&upstream.target, port, listen, context);
    }
    let dependencies = dependencies::compile(raw, context);
    let looked_up = context.resolutions.len();
    let of_database = raw.database.as_ref().map_or(0, |database| {
        [&database.reads, &database.shares_with]
            .iter()
            .filter_map(|list| list.as_ref())
            .map(|list| list.0.len())
            .sum()
    });
    let tls = raw
        .tls
        .as_ref()
        .map(|written| tls::server(written, context));
    let has_client_ca = raw.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let auth = auth::compile(raw.auth.as_ref(), has_client_ca, context);
    let spec = ServiceSpec {
        name: context.name.clone(),
        version: raw.version.as_deref().map(Arc::from),
        description: raw.description.as_deref().map(Arc::from),
        port: port.unwrap_or_default(),
        listen,
        upstream,
        dependencies,
        health_check: health::check(raw.health_check.as_ref(), "healthCheck", None, context),
        health: health::health(raw.health.as_ref(), context),
        limits: health::limits(raw.limits.as_ref(), context),
        upgrades: health::upgrades(raw.upgrades.as_ref(), context),
        tls: tls.flatten(),
        auth,
        tracing: health::tracing(raw.tracing.as_ref(), context),
        database: raw
            .database
            .as_ref()
            .and_then(|block| database::compile(block, looked_up - of_database, context)),
    };
    (!context.report.has_errors()).then_some(spec)
}

/// The folder is the identity; what else a file says is a warning.
fn identity(raw: &RawService, context: &mut Context<'_>) {
    let name = context.name;
    for (key, written, folder) in [
        ("name", &raw.name, name.name()),
        ("domain", &raw.domain, name.domain()),
    ] {
        if written.as_deref().is_some_and(|written| written != folder) {
            context.report.warn(
                key,
                format!("differs from the folder's name, which counts: `{folder}`"),
            );
        }
    }
}

/// The public port, after the offset.
fn port(raw: &RawService, context: &mut Context<'_>) -> Option<u16> {
    if raw.port == Some(0) {
        context
            .report
            .error("port", "expected a port from 1 to 65535");
        return None;
    }
    let Some(port) = context.port else {
        context.report.error_hint(
            "port",
            "is missing, and cannot be given while some services are fronted elsewhere",
            "write the port that the other sidecars use for this service",
        );
        return None;
    };
    let moved = port.checked_add(context.defaults.port_offset);
    if moved.is_none() {
        context
            .report
            .error("port", "is above 65535 after `--port-offset`");
    }
    moved
}

fn listen(raw: &RawService, context: &mut Context<'_>) -> Option<IpAddr> {
    let text = raw.listen.as_deref()?;
    let parsed = text.trim_start_matches('[').trim_end_matches(']').parse();
    if parsed.is_err() {
        context.report.error(
            "listen",
            "expected an IP address such as 127.0.0.1 or ::, without a port",
        );
    }
    parsed.ok()
}

/// `address` is for others, but a mistake in it is this file's.
fn addresses(raw: &RawService, context: &mut Context<'_>) {
    for text in raw.address.iter().flat_map(|list| &list.0) {
        if let Err(message) = crate::config::address::parse_address(text) {
            context.report.error("address", message);
        }
    }
}

/// A sidecar that forwards to itself would call itself until something breaks.
fn not_itself(
    target: &UpstreamTarget,
    port: u16,
    listen: Option<IpAddr>,
    context: &mut Context<'_>,
) {
    let hears_loopback = listen
        .or(context.settings.listen)
        .is_none_or(|address| address.is_unspecified() || address.is_loopback());
    let app_port = match target {
        UpstreamTarget::Loopback { port } => *port,
        UpstreamTarget::Tcp { port, .. } if target.is_local() => *port,
        UpstreamTarget::Tcp { .. } | UpstreamTarget::Unix { .. } => return,
    };
    if app_port == port && hears_loopback {
        context.report.error_hint(
            "upstream",
            format!("port {port} of this machine is the sidecar itself"),
            "let the app listen on another port and name it here",
        );
    }
}
