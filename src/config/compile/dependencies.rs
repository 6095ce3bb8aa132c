//! `dependencies`: names to addresses.

use std::sync::Arc;
use std::time::Duration;

use super::circle;
use super::context::{Context, Resolution};
use super::health;
use super::jwt::check_secret;
use super::outline::{Accepts, Neighbour};
use super::tls;
use crate::config::address::parse_address;
use crate::config::process::Defaults;
use crate::config::raw::{RawBreaker, RawCredential, RawDependency, RawService, Short};
use crate::model::{
    Address, BreakerSpec, DependencyCredential, DependencySpec, HealthCheckSpec, ServiceName,
    Strategy, UpstreamProtocol,
};

/// More retries than this only multiply an outage.
const MAX_RETRIES: u32 = 10;

/// Longest life of a minted token (SPEC §6).
const MAX_LIFETIME: Duration = Duration::from_secs(300);

/// Every name that compiling a service looks up in the tree: dependencies,
/// then `database.reads`, then `database.sharesWith`.
pub(in crate::config) fn names(
    raw: &RawService,
    defaults: &Defaults,
    only_local: bool,
) -> Vec<String> {
    let mut names: Vec<String> = written(raw, defaults, only_local)
        .iter()
        .map(|dependency| dependency.name.clone().unwrap_or_default())
        .collect();
    if let Some(database) = &raw.database {
        for list in [&database.reads, &database.shares_with] {
            names.extend(list.iter().flat_map(|list| list.0.iter().cloned()));
        }
    }
    names
}

/// The dependencies of the file, then those that only the environment names.
fn written(raw: &RawService, defaults: &Defaults, only_local: bool) -> Vec<RawDependency> {
    let named = |name: &str| RawDependency {
        name: Some(name.to_owned()),
        ..RawDependency::default()
    };
    let mut list: Vec<RawDependency> = raw
        .dependencies
        .iter()
        .flatten()
        .map(|dependency| match dependency {
            Short::Text(name) => named(name),
            Short::Full(full) => full.clone(),
            Short::On | Short::Off => RawDependency::default(),
        })
        .collect();
    if only_local {
        for name in &defaults.framework.dependencies {
            if !list.iter().any(|known| known.name.as_ref() == Some(name)) {
                list.push(named(name));
            }
        }
    }
    list
}

/// Compiles `dependencies`.
pub(super) fn compile(raw: &RawService, context: &mut Context<'_>) -> Vec<DependencySpec> {
    let list = written(raw, context.defaults, context.only_local);
    let mut specs: Vec<DependencySpec> = Vec::new();
    let ports = circle::ports(&list, context.settings);
    for (index, dependency) in list.iter().enumerate() {
        let key = format!("dependencies[{index}]");
        let Some(spec) = one(dependency, index, &key, context) else {
            continue;
        };
        let is_double = specs.iter().any(|known| {
            known.name == spec.name || (spec.service.is_some() && known.service == spec.service)
        });
        if is_double {
            context.report.error(&key, "is there twice");
        }
        circle::refuse(&spec, &key, &ports, context);
        specs.push(spec);
    }
    specs
}

fn one(
    raw: &RawDependency,
    index: usize,
    key: &str,
    context: &mut Context<'_>,
) -> Option<DependencySpec> {
    let Some(name) = raw.name.as_deref().filter(|name| !name.is_empty()) else {
        context.report.error(key, "needs `name`");
        return None;
    };
    let is_name = match name.split_once('/') {
        Some((domain, name)) => ServiceName::new(domain, name).is_ok(),
        None => ServiceName::is_valid_part(name),
    };
    if !is_name {
        context.report.error_hint(
            key,
            "is no service name",
            "names hold a-z, 0-9 and -; a URL goes into `address`",
        );
        return None;
    }
    let neighbour = neighbour(name, raw.address.is_some(), index, key, context);
    let addresses = addresses(raw, neighbour.as_deref(), key, context);
    let framework = &context.defaults.framework.call;
    let timeout = context.duration(&format!("{key}.timeout"), raw.timeout, seconds(30));
    let retries = framework.retries.or(raw.retries).unwrap_or(0);
    if retries > MAX_RETRIES {
        let message = format!("must be at most {MAX_RETRIES}");
        match framework.retries {
            Some(_) => context.report.environment("SERVICE_CALL_RETRIES", message),
            None => context.report.error(&format!("{key}.retries"), message),
        }
    }
    if raw.local_port == Some(0) {
        context.report.error(
            &format!("{key}.localPort"),
            "expected a port from 1 to 65535",
        );
    }
    let is_https = addresses.iter().any(|address| address.tls);
    if raw.tls.is_some() && !is_https {
        context
            .report
            .error(&format!("{key}.tls"), "has no use without an https address");
    }
    let credential = match &raw.credential {
        Some(written) => credential(written, &format!("{key}.credential"), context),
        None => implied_credential(name, neighbour.as_deref(), key, context),
    };
    Some(DependencySpec {
        name: Arc::from(name),
        service: neighbour.as_ref().map(|neighbour| neighbour.name.clone()),
        local_port: raw.local_port,
        required: raw.required.unwrap_or(false),
        health_check: probe(raw, neighbour.as_deref(), key, context),
        has_sidecar: neighbour.is_some(),
        protocol: neighbour
            .as_ref()
            .map_or(UpstreamProtocol::Http1, |neighbour| neighbour.protocol),
        timeout: framework.timeout.unwrap_or(timeout),
        connect_timeout: context.duration(
            &format!("{key}.connectTimeout"),
            raw.connect_timeout,
            seconds(2),
        ),
        retries,
        retry_delay: framework.retry_delay.unwrap_or(Duration::from_millis(100)),
        breaker: breaker(raw.breaker.as_ref(), &format!("{key}.breaker"), context),
        credential,
        tls: is_https.then(|| {
            let written = raw.tls.clone().unwrap_or_default();
            tls::client(&written, &format!("{key}.tls"), context)
        }),
        addresses,
    })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The service of the tree that a name stands for; reports when there must be
/// one and is none.
fn neighbour(
    name: &str,
    has_address: bool,
    index: usize,
    key: &str,
    context: &mut Context<'_>,
) -> Option<Arc<Neighbour>> {
    let shown = context.report.shown(key, name);
    match context.resolutions.get(index) {
        Some(Resolution::Known(neighbour)) if neighbour.name == *context.name => {
            context
                .report
                .error(key, "a service cannot depend on itself");
            None
        }
        Some(Resolution::Known(neighbour)) => Some(Arc::clone(neighbour)),
        Some(Resolution::Ambiguous(names)) if !has_address => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            context.report.error_hint(
                key,
                format!("several services are called {shown}"),
                format!("write {}", names.join(" or ")),
            );
            None
        }
        Some(Resolution::Unknown(likely)) if !has_address => {
            let hint = match likely {
                Some(likely) => format!("did you mean `{likely}`?"),
                None => "a service outside the tree needs `address`".to_owned(),
            };
            context
                .report
                .error_hint(key, format!("no service {shown} in the tree"), hint);
            None
        }
        _ => None,
    }
}

fn addresses(
    raw: &RawDependency,
    neighbour: Option<&Neighbour>,
    key: &str,
    context: &mut Context<'_>,
) -> Vec<Address> {
    let Some(list) = &raw.address else {
        let addresses = neighbour.map(|neighbour| neighbour.addresses.clone());
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            context.report.error_hint(
                key,
                "unknown address",
                "give the service a `port` in its own file, or set `address` here",
            );
        }
        return addresses.unwrap_or_default();
    };
    let key = format!("{key}.address");
    if list.0.is_empty() {
        context.report.error(&key, "is empty");
    }
    let fallback = neighbour
        .and_then(|neighbour| neighbour.addresses.first())
        .map(|address| address.port);
    let mut addresses = Vec::new();
    for text in &list.0 {
        match parse_address(text) {
            Err(message) => context.report.error(&key, message),
            Ok(address) => match address.with_port(fallback) {
                Some(full) if addresses.contains(&full) => {}
                Some(full) => addresses.push(full),
                None => context.report.error_hint(
                    &key,
                    "the port is missing",
                    "write host:port or a URL",
                ),
            },
        }
    }
    addresses
}

fn probe(
    raw: &RawDependency,
    neighbour: Option<&Neighbour>,
    key: &str,
    context: &mut Context<'_>,
) -> HealthCheckSpec {
    let sidecar = neighbour.and_then(|neighbour| neighbour.health_path.as_deref());
    health::check(
        raw.health_check.as_ref(),
        &format!("{key}.healthCheck"),
        sidecar,
        context,
    )
}

fn breaker(
    written: Option<&Short<RawBreaker>>,
    key: &str,
    context: &mut Context<'_>,
) -> Option<BreakerSpec> {
    let empty = RawBreaker::default();
    let (full, on) = match written {
        Some(Short::Off) => (&empty, false),
        Some(Short::Full(full)) => (full, true),
        Some(Short::On) | None => (&empty, true),
        Some(Short::Text(_)) => {
            context.report.error(key, "expected false or a mapping");
            (&empty, true)
        }
    };
    let framework = &context.defaults.framework.call;
    let failures = context.count(&format!("{key}.failures"), full.failures, 5);
    let open = context.duration(&format!("{key}.open"), full.open, seconds(60));
    framework
        .breaker_enabled
        .unwrap_or(on)
        .then(|| BreakerSpec {
            failures: framework.breaker_threshold.unwrap_or(failures),
            open: framework.breaker_timeout.unwrap_or(open),
        })
}

fn credential(
    written: &RawCredential,
    key: &str,
    context: &mut Context<'_>,
) -> Option<DependencyCredential> {
    match (&written.api_key, &written.jwt) {
        (Some(secret), None) => {
            let secret = secret.0.clone();
            if secret.is_empty() || http::HeaderValue::from_bytes(secret.expose()).is_err() {
                context
                    .report
                    .error(&format!("{key}.apiKey"), "cannot stand in a header");
            }
            Some(DependencyCredential::ApiKey(secret))
        }
        (None, Some(jwt)) => {
            let Some(secret) = &jwt.secret else {
                context
                    .report
                    .error(&format!("{key}.jwt"), "needs `secret`");
                return None;
            };
            check_secret(&secret.0, &format!("{key}.jwt.secret"), context);
            let name = format!("{key}.jwt.lifetime");
            let lifetime = context.duration(&name, jwt.lifetime, seconds(60));
            if lifetime > MAX_LIFETIME {
                context.report.error(&name, "must be at most 5m");
            }
            Some(DependencyCredential::Jwt {
                secret: secret.0.clone(),
                lifetime,
            })
        }
        _ => {
            context
                .report
                .error(key, "needs exactly one of `apiKey` and `jwt`");
            None
        }
    }
}

/// What the environment's shared secrets give a caller that names no
/// credential of its own.
fn implied_credential(
    name: &str,
    neighbour: Option<&Neighbour>,
    key: &str,
    context: &mut Context<'_>,
) -> Option<DependencyCredential> {
    let Accepts {
        strategies,
        all,
        environment_key,
        environment_secret,
    } = &neighbour?.accepts;
    let framework = &context.defaults.framework;
    let usable = strategies.iter().find_map(|strategy| match strategy {
        Strategy::ApiKey if *environment_key => {
            framework.api_key.clone().map(DependencyCredential::ApiKey)
        }
        Strategy::Jwt if *environment_secret => {
            let secret = framework.jwt_secret.clone()?;
            Some(DependencyCredential::Jwt {
                secret,
                lifetime: seconds(60),
            })
        }
        _ => None,
    });
    let asks = strategies
        .iter()
        .any(|strategy| matches!(strategy, Strategy::ApiKey | Strategy::Jwt));
    if asks && (*all || usable.is_none()) && !context.tolerant {
        let names: Vec<&str> = strategies.iter().map(|one| one.as_str()).collect();
        let shown = context.report.shown(key, name);
        context.report.warn_hint(
            key,
            format!(
                "{shown} asks for {}, but no credential is set",
                names.join(", ")
            ),
            "set `credential`, unless the app sends its own",
        );
    }
    usable.filter(|_| !all)
}
