//! Every metric there is: name, type, labels, meaning. `docs/metrics.md` is
//! generated from this table and a test holds the two together.

use std::fmt::Write as _;

/// Type of a metric in the exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
}

impl FamilyKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric family. Label order is the order of values when collecting.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: FamilyKind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(pub(super) const $constant: Family = Family {
            name: $name,
            kind: FamilyKind::$kind,
            labels: &$labels,
            help: $help,
        };)*
        /// All of them, in the order of the documentation.
        pub(super) const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    HTTP_REQUESTS = Counter "outrigger_http_requests_total" ["service", "direction", "peer", "method", "code"],
        "Requests that ended, by the status sent to the caller. Unknown methods are `_OTHER`; `peer` is set on outbound calls.";
    HTTP_REQUEST_DURATION = Histogram "outrigger_http_request_duration_seconds" ["service", "direction", "peer"],
        "From the complete request head to the end of the response body.";
    HTTP_OVERHEAD = Histogram "outrigger_http_overhead_seconds" ["service", "direction", "peer"],
        "Duration minus the time spent on the upstream: the cost of the sidecar itself.";
    HTTP_REQUESTS_IN_FLIGHT = Gauge "outrigger_http_requests_in_flight" ["service", "direction", "peer"],
        "Requests being served, tunnels included.";
    PROXY_ERRORS = Counter "outrigger_proxy_errors_total" ["service", "cause"],
        "Answers made by the sidecar instead of the app, by cause; requests the parser refused are `bad_request`.";
    AUTH_DECISIONS = Counter "outrigger_auth_decisions_total" ["service", "strategy", "result", "reason"],
        "Authentication and authorization decisions.";
    JWKS_FETCHES = Counter "outrigger_jwks_fetches_total" ["service", "result"],
        "Fetches of a service's key set, by result: `good` or `failed`.";
    JWKS_KEYS = Gauge "outrigger_jwks_keys" ["service"],
        "Usable keys in force; 0 while tokens cannot be judged.";
    JWKS_LAST_SUCCESS = Gauge "outrigger_jwks_last_success_timestamp_seconds" ["service"],
        "Unix time of the last good fetch; 0 before the first.";
    TLS_HANDSHAKES = Counter "outrigger_tls_handshakes_total" ["service", "result"],
        "TLS handshakes of clients on the public port: `done`, or why there is no connection.";
    TLS_CERTIFICATE_EXPIRY = Gauge "outrigger_tls_certificate_expiry_timestamp_seconds" ["service", "certificate"],
        "Unix time at which a certificate in force expires (of a chain, the first to); `certificate` is its key in the service's file.";
    RETRIES = Counter "outrigger_retries_total" ["service", "reason"],
        "Attempts after the first.";
    CIRCUIT_STATE = Gauge "outrigger_circuit_state" ["service", "peer"],
        "Circuit breaker of a dependency: 0 closed, 1 half-open, 2 open.";
    HEALTH_STATUS = Gauge "outrigger_health_status" ["target", "kind"],
        "Last result of a monitor: 1 up, 0 down or stale.";
    CONFIG_RELOADS = Counter "outrigger_config_reloads_total" ["result"],
        "Changes of configuration, by what became of them.";
    CONFIG_GENERATION = Gauge "outrigger_config_generation" [],
        "Generation in force on all workers.";
    CONFIG_LAST_SUCCESS = Gauge "outrigger_config_last_success_timestamp_seconds" [],
        "Unix time of the last change that was applied without a problem.";
    CONFIG_STALE = Gauge "outrigger_config_stale" ["service"],
        "1 while a service runs on its last good version because the present one was refused.";
    CONFIG_GENERATIONS_ALIVE = Gauge "outrigger_config_generations_alive" [],
        "Snapshots still held by the process.";
    CONFIG_INFO = Gauge "outrigger_config_info" ["hash"],
        "Always 1; `hash` is the digest of the configuration in force.";
    CONFIG_SERVICES_COMPILED = Counter "outrigger_config_services_compiled_total" [],
        "Service files compiled; unchanged ones are reused and not counted.";
    CONFIG_SERVICES_BUILT = Counter "outrigger_config_services_built_total" [],
        "Services made ready to run; unchanged ones are reused and not counted.";
    DB_POOL_TOTAL = Gauge "outrigger_db_pool_total_connections" ["service"],
        "Open database connections, those being closed included.";
    DB_POOL_IDLE = Gauge "outrigger_db_pool_idle_connections" ["service"],
        "Database connections that wait for somebody to use them.";
    DB_POOL_ACTIVE = Gauge "outrigger_db_pool_active_connections" ["service"],
        "Database connections lent out, being reset or being opened.";
    DB_POOL_WAITING = Gauge "outrigger_db_pool_waiting_requests" ["service"],
        "Requests that wait for a database connection.";
    DB_POOL_MAX = Gauge "outrigger_db_pool_max" ["service"],
        "Database connections there may be at once.";
    DB_POOL_WAIT = Histogram "outrigger_db_pool_wait_seconds" ["service"],
        "From asking for a database connection to having one.";
    DB_POOL_TIMEOUTS = Counter "outrigger_db_pool_timeouts_total" ["service"],
        "Requests that waited for a database connection in vain.";
    DB_POOL_CONNECT_ERRORS = Counter "outrigger_db_pool_connect_errors_total" ["service", "reason"],
        "Database connections that could not be made, by reason.";
    DB_MIGRATIONS_APPLIED = Gauge "outrigger_db_migrations_applied" ["service"],
        "Migrations the database has.";
    DB_MIGRATIONS_AHEAD = Gauge "outrigger_db_migrations_ahead" ["service"],
        "Migrations the database has that are newer than every file.";
    DB_MIGRATIONS_RUN = Counter "outrigger_db_migrations_run_total" ["service"],
        "Migrations run by this process.";
    DB_MIGRATIONS_FAILURES = Counter "outrigger_db_migrations_failures_total" ["service"],
        "Times that migrations failed or were refused.";
    TASK_PANICS = Counter "outrigger_task_panics_total" ["task"],
        "Panics that were caught, by task.";
    LOG_LINES_DROPPED = Counter "outrigger_log_lines_dropped_total" [],
        "Log lines lost because standard output was closed, full or too slow.";
    SPANS_DROPPED = Counter "outrigger_spans_dropped_total" [],
        "Spans lost because the queue was full or the collector did not take them.";
    BUILD_INFO = Gauge "outrigger_build_info" ["version"],
        "Always 1; the version of this binary.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [],
        "User and system CPU time.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [],
        "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [],
        "Soft limit of open file descriptors.";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" [],
        "Virtual memory size.";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [],
        "Resident memory size.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" [],
        "Unix time at which the process started.";
    PROCESS_THREADS = Gauge "process_threads" [],
        "Threads of the process.";
}

/// `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Served at `/metrics` on the observe and admin ports in the Prometheus text format.\n\
         `service` is `domain/name`. Labels come from configuration only; a removed service's\n\
         series disappear. This file is generated from `src/telemetry/metrics/families.rs`.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in ALL {
        let labels = if family.labels.is_empty() {
            "–".to_owned()
        } else {
            format!("`{}`", family.labels.join("`, `"))
        };
        writeln!(
            text,
            "| `{}` | {} | {labels} | {} |",
            family.name,
            family.kind.as_str(),
            family.help
        )
        .expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let wanted = markdown();
        if std::fs::read_to_string(path).ok().as_deref() == Some(wanted.as_str()) {
            return;
        }
        std::fs::write(path, wanted).expect("docs/ is writable");
        panic!("docs/metrics.md was out of date and has been rewritten: commit it");
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in ALL {
            assert_eq!(
                family.kind == FamilyKind::Counter,
                family.name.ends_with("_total"),
                "{}",
                family.name
            );
        }
    }
}
