//! The environment of the reference framework (CONFIG.md).

use std::time::Duration;

use super::environment::Environment;
use super::overlay::is_link_value;
use crate::config::raw::{RawIsolation, RawStrategy};
use crate::config::report::Report;
use crate::config::suggest;
use crate::secret::Secret;

/// What the reference framework's variables say, parsed; each `None` = unset.
#[derive(Debug, Default)]
pub(crate) struct Framework {
    /// `MICROSERVICES=false`.
    pub(crate) disabled: bool,
    /// `SERVICE_NAME`, else `SERVICES`.
    pub(crate) local: Option<(&'static str, Vec<String>)>,
    pub(crate) services_path: Option<String>,
    pub(crate) service_port: Option<u16>,
    pub(crate) api_key: Option<Secret>,
    pub(crate) jwt_secret: Option<Secret>,
    /// The variable and its strategy: for services that name none.
    pub(crate) strategy: Option<(&'static str, RawStrategy)>,
    pub(crate) tracing: Option<bool>,
    /// 0..=1.
    pub(crate) tracing_rate: Option<f64>,
    pub(crate) dependencies: Vec<String>,
    pub(crate) database: FrameworkDatabase,
    pub(crate) probe: FrameworkProbe,
    pub(crate) call: FrameworkCall,
}

/// `DATABASE_…`, `POSTGRES_…`, `DB_…`.
#[derive(Debug, Default)]
pub(crate) struct FrameworkDatabase {
    pub(crate) isolation: Option<RawIsolation>,
    pub(crate) url: Option<Secret>,
    pub(crate) host: Option<(&'static str, String)>,
    pub(crate) port: Option<(&'static str, u16)>,
    pub(crate) database: Option<(&'static str, String)>,
    pub(crate) user: Option<(&'static str, String)>,
    pub(crate) password: Option<(&'static str, Secret)>,
}

/// `SERVICE_HEALTH_CHECK_…`, `SERVICE_…_THRESHOLD`.
#[derive(Debug, Default)]
pub(crate) struct FrameworkProbe {
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) unhealthy_threshold: Option<u32>,
    pub(crate) healthy_threshold: Option<u32>,
}

/// `SERVICE_CALL_…`, `CIRCUIT_BREAKER_…`.
#[derive(Debug, Default)]
pub(crate) struct FrameworkCall {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) retry_delay: Option<Duration>,
    pub(crate) breaker_enabled: Option<bool>,
    pub(crate) breaker_threshold: Option<u32>,
    pub(crate) breaker_timeout: Option<Duration>,
}

/// Reads variables one by one.
struct Variables<'a> {
    environment: &'a Environment,
    report: &'a mut Report,
    notes: &'a mut Vec<String>,
}

impl Framework {
    /// Reads the variables; what cannot be understood is an error.
    pub(super) fn read(
        environment: &Environment,
        report: &mut Report,
        notes: &mut Vec<String>,
    ) -> Self {
        let mut variables = Variables {
            environment,
            report,
            notes,
        };
        let enabled = variables
            .truth("MICROSERVICES")
            .or_else(|| variables.truth("ENABLE_MICROSERVICES"));
        let local = ["SERVICE_NAME", "SERVICES"]
            .into_iter()
            .find_map(|name| Some((name, variables.list(name)?)));
        Self {
            disabled: enabled == Some(false),
            local,
            services_path: variables.text("SERVICES_PATH"),
            service_port: variables.port("SERVICE_PORT"),
            api_key: variables.text("SERVICE_API_KEY").map(Secret::new),
            jwt_secret: variables.text("SERVICE_JWT_SECRET").map(Secret::new),
            strategy: variables.strategy(),
            tracing: variables.truth("MICROSERVICES_TRACING"),
            tracing_rate: variables.rate("MICROSERVICES_TRACING_RATE"),
            dependencies: variables.list("SERVICE_DEPENDENCIES").unwrap_or_default(),
            database: variables.database(),
            probe: FrameworkProbe {
                interval: variables.millis("SERVICE_HEALTH_CHECK_INTERVAL"),
                timeout: variables.millis("SERVICE_HEALTH_CHECK_TIMEOUT"),
                unhealthy_threshold: variables.count("SERVICE_UNHEALTHY_THRESHOLD", 1),
                healthy_threshold: variables.count("SERVICE_HEALTHY_THRESHOLD", 1),
            },
            call: FrameworkCall {
                timeout: variables.millis("SERVICE_CALL_TIMEOUT"),
                retries: variables.count("SERVICE_CALL_RETRIES", 0),
                retry_delay: variables.millis("SERVICE_CALL_RETRY_DELAY"),
                breaker_enabled: variables.truth("CIRCUIT_BREAKER_ENABLED"),
                breaker_threshold: variables.count("CIRCUIT_BREAKER_THRESHOLD", 1),
                breaker_timeout: variables.millis("CIRCUIT_BREAKER_TIMEOUT"),
            },
        }
    }
}

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.environment.value(name).map(str::to_owned)
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let parts: Vec<String> = self
            .environment
            .value(name)?
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        (!parts.is_empty()).then_some(parts)
    }

    fn truth(&mut self, name: &str) -> Option<bool> {
        let text = self.environment.value(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.report.environment(name, "expected true or false");
                None
            }
        }
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        let text = self.environment.value(name)?;
        if is_link_value(text) {
            self.notes.push(format!(
                "ignored {name}: it is a service link of the container platform"
            ));
            return None;
        }
        match text.trim().parse() {
            Ok(port) if port > 0 => Some(port),
            _ => {
                self.report
                    .environment(name, "expected a port from 1 to 65535");
                None
            }
        }
    }

    fn count(&mut self, name: &str, least: u32) -> Option<u32> {
        let text = self.environment.value(name)?;
        match text.trim().parse() {
            Ok(number) if number >= least => Some(number),
            _ => {
                self.report
                    .environment(name, format!("expected a whole number from {least}"));
                None
            }
        }
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        let text = self.environment.value(name)?;
        match text.trim().parse::<u32>() {
            Ok(millis) if millis > 0 => Some(Duration::from_millis(millis.into())),
            _ => {
                self.report
                    .environment(name, "expected milliseconds, a whole number from 1");
                None
            }
        }
    }

    /// 0..1 is a ratio, above 1 to 100 a percentage.
    fn rate(&mut self, name: &str) -> Option<f64> {
        let text = self.environment.value(name)?;
        match text.trim().parse::<f64>() {
            Ok(rate) if (0.0..=1.0).contains(&rate) => Some(rate),
            Ok(rate) if rate > 1.0 && rate <= 100.0 => Some(rate / 100.0),
            _ => {
                self.report.environment(
                    name,
                    "expected a ratio from 0 to 1, or a percentage above 1 to 100",
                );
                None
            }
        }
    }

    fn strategy(&mut self) -> Option<(&'static str, RawStrategy)> {
        let (name, text) = ["SERVICE_AUTH_STRATEGY", "AUTH_STRATEGY"]
            .into_iter()
            .find_map(|name| Some((name, self.environment.value(name)?)))?;
        let found = RawStrategy::parse(text);
        if found.is_none() {
            let words = RawStrategy::ALL.iter().map(|(word, _)| *word);
            let guess = suggest::closest(text, words)
                .map(|word| format!("; did you mean `{word}`?"))
                .unwrap_or_default();
            self.report.environment(
                name,
                format!("expected none, api-key, jwt, custom or mtls{guess}"),
            );
        }
        Some((name, found?))
    }

    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        names
            .into_iter()
            .find_map(|name| Some((name, self.text(name)?)))
    }

    fn database(&mut self) -> FrameworkDatabase {
        let isolation = match self.environment.value("DATABASE_ISOLATION") {
            Some("shared") => Some(RawIsolation::Shared),
            Some("isolated") => Some(RawIsolation::Isolated),
            Some(_) => {
                self.report
                    .environment("DATABASE_ISOLATION", "expected shared or isolated");
                None
            }
            None => None,
        };
        let port = ["POSTGRES_PORT", "DB_PORT"]
            .into_iter()
            .find_map(|name| Some((name, self.port(name)?)));
        FrameworkDatabase {
            isolation,
            url: self.text("DATABASE_URL").map(Secret::new),
            host: self.first(["POSTGRES_HOST", "DB_HOST"]),
            port,
            database: self.first(["POSTGRES_DB", "DB_DATABASE"]),
            user: self.first(["POSTGRES_USER", "DB_USERNAME"]),
            password: self
                .first(["POSTGRES_PASSWORD", "DB_PASSWORD"])
                .map(|(name, text)| (name, Secret::new(text))),
        }
    }
}
