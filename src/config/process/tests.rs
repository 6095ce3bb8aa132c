//! Settings from file, environment and flags.

use super::*;
use crate::model::{AccessLog, DoorListen, LogLevel, SpanExporter};

fn load(file: &str, environment: &[(&str, &str)]) -> Result<LoadedProcess, Vec<Problem>> {
    load_with(file, environment, ProcessFlags::default())
}

fn load_with(
    file: &str,
    environment: &[(&str, &str)],
    flags: ProcessFlags,
) -> Result<LoadedProcess, Vec<Problem>> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("outrigger.yaml");
    std::fs::write(&path, file).expect("file");
    let flags = ProcessFlags {
        config: Some(path),
        ..flags
    };
    load_process(
        &flags,
        &Environment::from_pairs(environment.iter().copied()),
    )
}

/// Problems as printed, without the folder.
fn texts(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| {
            let text = problem.to_string();
            match text.find("outrigger.yaml") {
                Some(at) => text.get(at..).unwrap_or_default().to_owned(),
                None => text,
            }
        })
        .collect();
    texts.join("\n")
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    match load(file, environment) {
        Ok(loaded) => panic!("{:?}", loaded.settings),
        Err(problems) => texts(&problems),
    }
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let level = |file: &str, environment: &[(&str, &str)], flag: Option<&str>| {
        let flags = ProcessFlags {
            log_level: flag.map(str::to_owned),
            ..ProcessFlags::default()
        };
        let loaded = load_with(file, environment, flags).expect("settings");
        loaded.settings.log_level
    };
    let file = "log: {level: warn}";
    let environment = [("OUTRIGGER_LOG_LEVEL", "debug")];
    assert_eq!(level("", &[], None), LogLevel::Info);
    assert_eq!(level(file, &[], None), LogLevel::Warn);
    assert_eq!(level(file, &environment, None), LogLevel::Debug);
    assert_eq!(level(file, &environment, Some("error")), LogLevel::Error);
}

#[test]
fn every_kind_of_value_comes_from_the_environment() {
    let loaded = load(
        "",
        &[
            ("OUTRIGGER_ACCESS_LOG", "off"),
            ("OUTRIGGER_WORKERS", "2"),
            ("OUTRIGGER_OBSERVE_LISTEN", "off"),
            ("OUTRIGGER_ADMIN_LISTEN", "9999"),
            ("OUTRIGGER_TRUSTED_PROXIES", "10.0.0.0/8, private"),
            ("OUTRIGGER_SHUTDOWN_DEADLINE", "10s"),
            ("OUTRIGGER_SHUTDOWN_QUIT_ENDPOINT", "true"),
            (
                "OUTRIGGER_TRACING_EXPORTER_OTLP_ENDPOINT",
                "http://otel:4318",
            ),
            ("OUTRIGGER_TRACING_EXPORTER_OTLP_HEADERS", "x-a=b,x-c=d"),
            ("OUTRIGGER_SQL_MAX_REQUEST", "1MiB"),
            ("OUTRIGGER_ADMIN_TOKEN", "${env:TOKEN}"),
            ("TOKEN", "swordfish-swordfish"),
        ],
    )
    .unwrap_or_else(|problems| panic!("{}", texts(&problems)));
    let settings = &loaded.settings;
    assert_eq!(settings.access_log, AccessLog::Off);
    assert_eq!(settings.workers, 2);
    assert_eq!(settings.observe, DoorListen::Off);
    assert!(matches!(settings.admin.listen, DoorListen::At(at) if at.port() == 9999));
    assert!(settings.trusted_proxies.private);
    assert_eq!(settings.trusted_proxies.networks.len(), 1);
    assert_eq!(settings.shutdown.deadline.as_secs(), 10);
    assert!(settings.shutdown.quit_endpoint);
    assert_eq!(settings.sql.max_request_bytes, 1 << 20);
    let token = settings.admin.token.as_ref().expect("a token");
    assert!(token.matches(b"swordfish-swordfish"));
    assert!(matches!(
        &settings.exporter,
        SpanExporter::Otlp { headers, .. } if headers.len() == 2
    ));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn mistakes_are_said_at_once() {
    insta::assert_snapshot!(refused("\
listen: everywhere
workers: many
observe: {listen: 'x:y'}
admin: {listen: '0.0.0.0:9900'}
discovery: {address: '{nam}:{port}', refresh: 0s}
database: {roleSecret: short, rolePrefix: 'A-'}
tracing: {samplingRate: 7, exporter: {otlp: {endpoint: otel}}}
trustedProxies: [everyone]
shutdown: {deadline: 5s, accept: 5s}
reload: {quiet: 1s}
sql: {maxRequest: 0}
", &[]), @r"
outrigger.yaml:6:12: database.roleSecret: is shorter than 32 bytes
hint: make one with `openssl rand -base64 32`
outrigger.yaml:6:31: database.rolePrefix: expected letters, digits and _, beginning with a letter or _
outrigger.yaml:7:11: tracing.samplingRate: expected a number from 0 to 1
outrigger.yaml:1:1: listen: expected an IP address such as 127.0.0.1 or ::, without a port
outrigger.yaml:2:1: workers: expected auto or a number from 1 to 256
outrigger.yaml:3:11: observe.listen: expected address:port, a port, or off
outrigger.yaml:4:9: admin.listen: another address than loopback needs `admin.token`
hint: set `admin.token` (or `OUTRIGGER_ADMIN_TOKEN`), or listen on 127.0.0.1
outrigger.yaml:11:7: sql.maxRequest: expected a size above 0
outrigger.yaml:5:13: discovery.address: only {name}, {domain} and {port} are filled in
outrigger.yaml:5:38: discovery.refresh: must be above 0
outrigger.yaml:7:46: tracing.exporter.otlp.endpoint: expected an http:// or https:// URL
outrigger.yaml:8:18: trustedProxies[0]: expected a network such as 10.0.0.0/8, loopback or private
outrigger.yaml:9:26: shutdown.accept: must be shorter than `shutdown.deadline`
outrigger.yaml:10:1: reload.max: must not be shorter than `reload.quiet`
");
    insta::assert_snapshot!(refused("servicesDirs: x\nadmin: {tokn: x}\n", &[]), @r"
    outrigger.yaml:1:1: unknown key `servicesDirs`
    hint: did you mean `servicesDir`?
    outrigger.yaml:2:9: admin: unknown key `tokn`
    hint: did you mean `token`?
    ");
    insta::assert_snapshot!(refused("log: {level: loud}", &[]), @r"outrigger.yaml:1:7: log.level: `loud` is not one of error, warn, info, debug, trace");
    insta::assert_snapshot!(refused("admin: {token: '${env:NONE}'}", &[]), @r"
outrigger.yaml:1:9: admin.token: `NONE` is not set
hint: set it in the environment of this process
");
    insta::assert_snapshot!(refused("a: [", &[]), @r"outrigger.yaml:2:1: cannot be read: while parsing a node, did not find expected node content");
}

#[test]
fn the_framework_variables_are_checked() {
    insta::assert_snapshot!(refused("", &[
        ("MICROSERVICES", "maybe"),
        ("SERVICE_PORT", "0"),
        ("AUTH_STRATEGY", "apikey"),
        ("MICROSERVICES_TRACING_RATE", "101"),
        ("DATABASE_ISOLATION", "some"),
        ("SERVICE_HEALTH_CHECK_INTERVAL", "5s"),
        ("SERVICE_CALL_RETRIES", "-1"),
        ("CIRCUIT_BREAKER_THRESHOLD", "0"),
        ("POSTGRES_PORT", "none"),
    ]), @r"
    MICROSERVICES: expected true or false
    SERVICE_PORT: expected a port from 1 to 65535
    AUTH_STRATEGY: expected none, api-key, jwt, custom or mtls; did you mean `api-key`?
    MICROSERVICES_TRACING_RATE: expected a ratio from 0 to 1, or a percentage above 1 to 100
    DATABASE_ISOLATION: expected shared or isolated
    POSTGRES_PORT: expected a port from 1 to 65535
    SERVICE_HEALTH_CHECK_INTERVAL: expected milliseconds, a whole number from 1
    SERVICE_CALL_RETRIES: expected a whole number from 0
    CIRCUIT_BREAKER_THRESHOLD: expected a whole number from 1
    ");
}

#[test]
fn rates_are_ratios_or_percentages() {
    for (text, rate) in [
        ("0", 0.0),
        ("0.25", 0.25),
        ("1", 1.0),
        ("2", 0.02),
        ("100", 1.0),
    ] {
        let loaded = load("", &[("MICROSERVICES_TRACING_RATE", text)]).expect("settings");
        assert_eq!(loaded.defaults.framework.tracing_rate, Some(rate), "{text}");
    }
    for text in ["-1", "101", "x", "nan", "inf"] {
        assert!(
            load("", &[("MICROSERVICES_TRACING_RATE", text)]).is_err(),
            "{text}"
        );
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let loaded = load(
        "",
        &[
            ("MICROSERVICES", ""),
            ("SERVICES", ""),
            ("SERVICE_PORT", ""),
            ("OUTRIGGER_WORKERS", ""),
        ],
    )
    .expect("settings");
    assert!(!loaded.settings.disabled);
    assert_eq!(loaded.settings.local, None);
}

#[test]
fn unknown_variables_warn_and_service_links_are_noted() {
    let loaded = load(
        "",
        &[
            ("OUTRIGGER_ADMIN_LISTN", "1"),
            ("OUTRIGGER_PORT", "tcp://10.0.0.1:80"),
            ("OUTRIGGER_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("OUTRIGGER_SERVICE_HOST", "10.0.0.1"),
            ("DB_PORT", "tcp://10.0.0.2:5432"),
            ("POSTGRES_PORT", "tcp://10.0.0.2:5432"),
        ],
    )
    .expect("settings");
    insta::assert_snapshot!(texts(&loaded.warnings), @r"
    OUTRIGGER_ADMIN_LISTN: unknown variable
    hint: did you mean `OUTRIGGER_ADMIN_LISTEN`?
    ");
    assert_eq!(loaded.notes.len(), 3);
    assert!(loaded.defaults.framework.database.port.is_none());
}

#[test]
fn a_file_of_comments_is_as_good_as_none() {
    for text in ["", "\n \n", "# workers: 2\n", "\n  # a\n#b\n"] {
        let loaded = load(text, &[]).unwrap_or_else(|problems| panic!("{text:?}: {problems:?}"));
        assert!(!loaded.settings.auth_required && loaded.warnings.is_empty());
    }
}

#[test]
fn a_named_file_must_exist() {
    let flags = ProcessFlags {
        config: Some(PathBuf::from("/nowhere/outrigger.yaml")),
        ..ProcessFlags::default()
    };
    let problems = load_process(&flags, &Environment::default()).expect_err("no file");
    insta::assert_snapshot!(texts(&problems), @r"outrigger.yaml: does not exist");
    let named = Environment::from_pairs([("OUTRIGGER_CONFIG", "/nowhere/outrigger.yaml")]);
    assert!(load_process(&ProcessFlags::default(), &named).is_err());
}

#[test]
fn doors_in_each_other_s_way_are_told() {
    insta::assert_snapshot!(refused("\
admin: {listen: '127.0.0.1:9909'}
outbound: {listen: '127.0.0.1:9909'}
", &[]), @r"
outrigger.yaml:1:9: admin.listen: is the port of `observe.listen`
hint: give each door a port of its own, or close one with `off`
outrigger.yaml:2:12: outbound.listen: is the port of `observe.listen`
hint: give each door a port of its own, or close one with `off`
");
    let apart = "admin: {listen: '127.0.0.1:0'}\nobserve: {listen: '127.0.0.1:0'}\n\
                 outbound: {listen: off}\nsql: {listen: '127.0.0.2:9901'}\n";
    assert_eq!(texts(&load(apart, &[]).expect("settings").warnings), "");
}

#[test]
fn what_services_say_themselves_is_not_used_here() {
    let text = "database: {role: a, schema: b, doorToken: 0123456789abcdef, max: 3}\n\
                sql: {listen: '0.0.0.0:9902'}\n";
    insta::assert_snapshot!(texts(&load(text, &[]).expect("settings").warnings), @r"
outrigger.yaml:1:12: database.role: is not used: it is each service's own
hint: write it into the file of the service
outrigger.yaml:1:21: database.schema: is not used: it is each service's own
hint: write it into the file of the service
outrigger.yaml:1:32: database.doorToken: is not used: it is each service's own
hint: write it into the file of the service
outrigger.yaml:2:7: sql.listen: whoever reaches this address can ask the databases of services
hint: give each service a `database.doorToken`, or listen on 127.0.0.1
");
    insta::assert_snapshot!(refused("\
tracing: {exporter: {otlp: {endpoint: 'http://c:4318', queue: 0, tls: {cert: a}}}}
", &[]), @r"
outrigger.yaml:1:56: tracing.exporter.otlp.queue: must be at least 1
outrigger.yaml:1:66: tracing.exporter.otlp.tls: `cert` and `key` go together
");
}
