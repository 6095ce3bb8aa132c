//! The variables that count, for `explain --env`.

use std::collections::BTreeSet;

use super::environment::Environment;
use super::overlay;

/// The reference framework's variables (CONFIG.md).
const FRAMEWORK: [&str; 36] = [
    "AUTH_STRATEGY",
    "CIRCUIT_BREAKER_ENABLED",
    "CIRCUIT_BREAKER_THRESHOLD",
    "CIRCUIT_BREAKER_TIMEOUT",
    "DATABASE_ISOLATION",
    "DATABASE_URL",
    "DB_DATABASE",
    "DB_HOST",
    "DB_PASSWORD",
    "DB_PORT",
    "DB_USERNAME",
    "ENABLE_MICROSERVICES",
    "MICROSERVICES",
    "MICROSERVICES_TRACING",
    "MICROSERVICES_TRACING_RATE",
    "OUTRIGGER_CONFIG",
    "POSTGRES_DB",
    "POSTGRES_HOST",
    "POSTGRES_PASSWORD",
    "POSTGRES_PORT",
    "POSTGRES_USER",
    "SERVICES",
    "SERVICES_PATH",
    "SERVICE_API_KEY",
    "SERVICE_AUTH_STRATEGY",
    "SERVICE_CALL_RETRIES",
    "SERVICE_CALL_RETRY_DELAY",
    "SERVICE_CALL_TIMEOUT",
    "SERVICE_DEPENDENCIES",
    "SERVICE_HEALTHY_THRESHOLD",
    "SERVICE_HEALTH_CHECK_INTERVAL",
    "SERVICE_HEALTH_CHECK_TIMEOUT",
    "SERVICE_JWT_SECRET",
    "SERVICE_NAME",
    "SERVICE_PORT",
    "SERVICE_UNHEALTHY_THRESHOLD",
];

/// Every variable that is set and counts, then those that could be, with what
/// may be shown of their values.
pub fn variables(environment: &Environment) -> Vec<(String, String)> {
    let mut names: BTreeSet<String> = overlay::names();
    names.extend(FRAMEWORK.iter().map(|name| (*name).to_owned()));
    let (set, unset): (Vec<String>, Vec<String>) = names
        .into_iter()
        .partition(|name| environment.value(name).is_some());
    let shown = |name: &String| {
        let value = environment.value(name).unwrap_or_default();
        if is_secret(name) {
            "***".to_owned()
        } else {
            value.chars().take(200).collect()
        }
    };
    set.iter()
        .map(|name| (name.clone(), shown(name)))
        .chain(
            unset
                .iter()
                .map(|name| (name.clone(), "not set".to_owned())),
        )
        .collect()
}

/// Whether a variable of this name may hold a secret; URLs and headers may.
fn is_secret(name: &str) -> bool {
    ["KEY", "SECRET", "PASSWORD", "TOKEN", "URL", "HEADERS"]
        .iter()
        .any(|word| name.contains(word))
}
