//! Every value in force, with where it came from; nothing secret in it.

mod policy;

use std::fmt::Display;
use std::time::Duration;

use crate::config::process::Defaults;
use crate::config::source::Places;
use crate::model::{
    AppHealthCheck, AuthPolicy, DatabaseIsolation, DatabaseSpec, DatabaseTls, DependencyCredential,
    DependencySpec, EffectiveValue, HeaderCase, HealthCheckSpec, HealthDetails, JwksSource,
    JwtKeys, JwtPolicy, Limits, ProbeSpec, Provision, Requirement, ServiceSpec, TracingSpec,
    TrustParent, UpstreamProtocol, UpstreamSpec,
};

/// What stands for a secret or a resolved reference.
const MASK: &str = "***";

/// What `database.url` says, where it is not said by itself.
const URL_PARTS: [&str; 5] = [
    "database.host",
    "database.port",
    "database.database",
    "database.user",
    "database.password",
];

/// The effective values of a service, in order of key.
pub(in crate::config) fn effective(
    spec: &ServiceSpec,
    places: &Places,
    defaults: &Defaults,
) -> Vec<EffectiveValue> {
    let mut list = List {
        values: Vec::new(),
        places,
        defaults,
    };
    list.service(spec);
    list.upstream(&spec.upstream);
    list.check("healthCheck", &spec.health_check);
    list.limits(&spec.limits);
    list.auth(&spec.auth);
    list.tracing(spec.tracing.as_ref());
    for (index, dependency) in spec.dependencies.iter().enumerate() {
        list.dependency(index, dependency);
    }
    if let Some(database) = &spec.database {
        list.database(database);
    }
    let mut values = list.values;
    values.sort_by(|left, right| left.key.cmp(&right.key));
    values
}

struct List<'a> {
    values: Vec<EffectiveValue>,
    places: &'a Places,
    defaults: &'a Defaults,
}

impl List<'_> {
    fn add(&mut self, key: &str, value: impl Display) {
        self.add_from(key, value, None);
    }

    /// Adds a value that a variable sets when `variable` is given.
    fn add_from(&mut self, key: &str, value: impl Display, variable: Option<&str>) {
        let value = if self.places.is_resolved(key) || self.is_short_and_resolved(key) {
            MASK.to_owned()
        } else {
            value.to_string()
        };
        self.values.push(EffectiveValue {
            key: key.to_owned(),
            value,
            origin: self.origin(key, variable),
        });
    }

    /// Adds a secret.
    fn add_secret(&mut self, key: &str, variable: Option<&str>) {
        self.add_from(key, MASK, variable);
    }

    fn add_time(&mut self, key: &str, time: Duration) {
        self.add(key, show(time));
    }

    fn origin(&self, key: &str, variable: Option<&str>) -> String {
        if let Some(place) = self.places.exact(key) {
            return place.to_string();
        }
        if let Some(place) = short_form(key).and_then(|short| self.places.exact(short)) {
            let is_block = short_form(key).is_some_and(|short| self.has_children(short));
            if !is_block {
                return place.to_string();
            }
        }
        let by_url = URL_PARTS.contains(&key);
        if let (true, Some(place)) = (by_url, self.places.exact("database.url")) {
            return place.to_string();
        }
        if let Some(name) = variable {
            return format!("env {name}");
        }
        let is_shared = key.starts_with("database.") || key.starts_with("tracing.");
        match self.defaults.places.exact(key) {
            Some(place) if is_shared || key == "listen" => place.to_string(),
            _ => match self.defaults.places.exact("database.url") {
                Some(place) if by_url => place.to_string(),
                _ => "default".to_owned(),
            },
        }
    }

    fn has_children(&self, key: &str) -> bool {
        self.places.has_below(key)
    }

    fn is_short_and_resolved(&self, key: &str) -> bool {
        short_form(key)
            .is_some_and(|short| !self.has_children(short) && self.places.is_resolved(short))
    }

    fn service(&mut self, spec: &ServiceSpec) {
        let framework = &self.defaults.framework;
        let by_variable = framework
            .service_port
            .is_some_and(|port| port.checked_add(self.defaults.port_offset) == Some(spec.port));
        if by_variable {
            self.values.push(EffectiveValue {
                key: "port".to_owned(),
                value: spec.port.to_string(),
                origin: "env SERVICE_PORT".to_owned(),
            });
        } else {
            self.add("port", spec.port);
        }
        if let Some(version) = &spec.version {
            self.add("version", version);
        }
        if let Some(description) = &spec.description {
            self.add("description", description);
        }
        match spec.listen {
            Some(address) => self.add("listen", address),
            None => self.add("listen", "process setting"),
        }
        let path = spec.health.path.as_deref().unwrap_or("off");
        self.add("health.path", path);
        self.add(
            "health.details",
            match spec.health.details {
                HealthDetails::Auto => "auto",
                HealthDetails::Public => "public",
                HealthDetails::Restricted => "restricted",
            },
        );
        self.add("health.degradedStatus", spec.health.degraded_status);
        self.add("health.services", spec.health.services);
        self.add("upgrades", spec.upgrades.join(", "));
        if let Some(tls) = &spec.tls {
            self.add("tls.cert", tls.cert.display());
            self.add("tls.key", tls.key.display());
            if let Some(ca) = &tls.client_ca {
                self.add("tls.clientCa", ca.display());
            }
        }
    }

    fn upstream(&mut self, upstream: &UpstreamSpec) {
        let scheme = if upstream.tls.is_some() {
            "https://"
        } else {
            ""
        };
        self.add("upstream.url", format_args!("{scheme}{}", upstream.target));
        self.add("upstream.protocol", protocol(upstream.protocol));
        self.add(
            "upstream.headerCase",
            match upstream.header_case {
                HeaderCase::Lower => "lower",
                HeaderCase::Title => "title",
            },
        );
        self.add_time("upstream.connectTimeout", upstream.connect_timeout);
        self.add_time("upstream.responseTimeout", upstream.response_timeout);
        self.add_time("upstream.bodyIdleTimeout", upstream.body_idle_timeout);
        self.add_time("upstream.poolIdleTimeout", upstream.pool_idle_timeout);
        self.add("upstream.maxIdle", upstream.max_idle);
    }

    fn check(&mut self, key: &str, check: &HealthCheckSpec) {
        let path = match check {
            HealthCheckSpec::Off => "off",
            HealthCheckSpec::Unset(_) => "any answer below 500",
            HealthCheckSpec::Check(AppHealthCheck::Grpc, _) => "grpc",
            HealthCheckSpec::Check(AppHealthCheck::Path(path), _) => path,
        };
        self.add(&format!("{key}.path"), path);
        let Some(ProbeSpec {
            interval,
            timeout,
            unhealthy_threshold,
            healthy_threshold,
        }) = check.probe()
        else {
            return;
        };
        let probe = &self.defaults.framework.probe;
        let interval_from = probe.interval.map(|_| "SERVICE_HEALTH_CHECK_INTERVAL");
        let timeout_from = probe.timeout.map(|_| "SERVICE_HEALTH_CHECK_TIMEOUT");
        let down_from = probe
            .unhealthy_threshold
            .map(|_| "SERVICE_UNHEALTHY_THRESHOLD");
        let up_from = probe.healthy_threshold.map(|_| "SERVICE_HEALTHY_THRESHOLD");
        self.over(&format!("{key}.interval"), show(*interval), interval_from);
        self.over(&format!("{key}.timeout"), show(*timeout), timeout_from);
        self.over(
            &format!("{key}.unhealthyThreshold"),
            unhealthy_threshold,
            down_from,
        );
        self.over(
            &format!("{key}.healthyThreshold"),
            healthy_threshold,
            up_from,
        );
    }

    /// Adds a value that a variable sets whatever the file says.
    fn over(&mut self, key: &str, value: impl Display, variable: Option<&str>) {
        match variable {
            Some(name) => self.values.push(EffectiveValue {
                key: key.to_owned(),
                value: value.to_string(),
                origin: format!("env {name}"),
            }),
            None => self.add(key, value),
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.add("limits.headerBytes", limits.header_bytes);
        self.add("limits.headerCount", limits.header_count);
        self.add("limits.uriBytes", limits.uri_bytes);
        match limits.body_bytes {
            Some(bytes) => self.add("limits.bodyBytes", bytes),
            None => self.add("limits.bodyBytes", "unlimited"),
        }
        self.add("limits.inFlight", limits.in_flight);
        self.add("limits.connections", limits.connections);
        self.add_time("limits.headerTimeout", limits.header_timeout);
        self.add_time("limits.idleTimeout", limits.idle_timeout);
        self.add_time("limits.writeStallTimeout", limits.write_stall_timeout);
        self.add_time("limits.upgradeIdleTimeout", limits.upgrade_idle_timeout);
        self.add("limits.h2Streams", limits.h2_streams);
    }

    fn tracing(&mut self, tracing: Option<&TracingSpec>) {
        let framework = &self.defaults.framework;
        let switch = framework.tracing.map(|_| "MICROSERVICES_TRACING");
        let rate = framework.tracing_rate.map(|_| "MICROSERVICES_TRACING_RATE");
        if framework.tracing == Some(false) {
            self.over("tracing.enabled", false, switch);
        } else {
            self.add_from("tracing.enabled", tracing.is_some(), switch);
        }
        let Some(tracing) = tracing else {
            return;
        };
        self.add_from("tracing.samplingRate", tracing.sampling_rate, rate);
        let formats: Vec<&str> = tracing
            .propagate
            .iter()
            .map(|format| match format {
                crate::model::Propagation::W3c => "w3c",
                crate::model::Propagation::House => "house",
                crate::model::Propagation::B3 => "b3",
                crate::model::Propagation::B3Multi => "b3multi",
            })
            .collect();
        self.add("tracing.propagate", formats.join(", "));
        self.add(
            "tracing.trustParent",
            match tracing.trust_parent {
                TrustParent::Auto => "auto",
                TrustParent::Always => "always",
                TrustParent::Authenticated => "authenticated",
                TrustParent::Never => "never",
            },
        );
    }
}

/// The short form a full key may have been written in.
fn short_form(key: &str) -> Option<&str> {
    match key {
        _ if key.starts_with("dependencies[") => key.strip_suffix(".name"),
        "upstream.url" => Some("upstream"),
        "auth.strategy" => Some("auth"),
        "healthCheck.path" => Some("healthCheck"),
        "tracing.enabled" => Some("tracing"),
        _ => None,
    }
}

fn protocol(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Http1 => "http1",
        UpstreamProtocol::H2c => "h2c",
        UpstreamProtocol::Auto => "auto",
    }
}

/// A duration as it would be written.
fn show(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}
