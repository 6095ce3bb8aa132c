//! References and their bounds (SPEC §12).

use super::*;
use crate::model::EffectiveValue;

fn described(case: &Case) -> String {
    let spec = spec(&case.compile(), "shop/cart");
    spec.description.as_deref().unwrap_or_default().to_owned()
}

fn describing(value: &str) -> Case {
    one(&format!(
        "port: 3001\nauth: none\ndescription: \"{value}\"\n"
    ))
}

#[test]
fn values_defaults_and_escapes() {
    for (written, expected) in [
        ("a ${env:A} b", "a 1 b"),
        ("${env:A}${env:A}", "11"),
        ("${env:NONE:-x}", "x"),
        ("${env:EMPTY:-x}", "x"),
        ("${env:NONE:-}", ""),
        ("${env:NONE:-a:-b}", "a:-b"),
        ("$${env:A}", "${env:A}"),
        ("$$${env:A}", "$${env:A}"),
        ("${file:own}", "line"),
        ("${file:./own}", "line"),
        ("{env:A} $A $", "{env:A} $A $"),
    ] {
        let case = describing(written).env("A", "1").env("EMPTY", "");
        let folder = case.folder.path().join("services/shop/cart");
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("own"), "line\n").expect("file");
        assert_eq!(described(&case), expected, "{written}");
    }
}

#[test]
fn what_is_missing_or_forbidden_is_said() {
    let refused = |written: &str| {
        let case = describing(written)
            .env("EMPTY", "")
            .env("POSTGRES_PASSWORD", "swordfish")
            .env("OUTRIGGER_ADMIN_TOKEN", "swordfish-swordfish");
        let folder = case.folder.path().to_path_buf();
        std::fs::write(folder.join("outside"), "swordfish").expect("file");
        let own = folder.join("services/shop/cart");
        std::fs::create_dir_all(own.join("folder")).expect("folder");
        std::os::unix::fs::symlink(folder.join("outside"), own.join("link")).expect("link");
        std::fs::write(own.join("empty"), "\n").expect("file");
        case.problems()
    };
    let texts: Vec<String> = [
        "${env:NONE}",
        "${env:EMPTY}",
        "${env:OUTRIGGER_ADMIN_TOKEN}",
        "${env:OUTRIGGER_NONE:-x}",
        "${env:POSTGRES_PASSWORD}",
        "${env:A-B}",
        "${NONE}",
        "${env:NONE",
        "${}",
        "${file:}",
        "${file:none}",
        "${file:empty}",
        "${file:folder}",
        "${file:../../../outside}",
        "${file:link}",
        "${file:/etc/hostname}",
        "${file:/proc/self/environ}",
    ]
    .into_iter()
    .map(refused)
    .collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    services/shop/cart/service.config.yaml:3:1: description: `NONE` is not set
    hint: set it in the environment of this process
    services/shop/cart/service.config.yaml:3:1: description: `EMPTY` is set but empty
    hint: set it in the environment of this process
    services/shop/cart/service.config.yaml:3:1: description: `OUTRIGGER_ADMIN_TOKEN` belongs to the process; a service's file cannot read it
    services/shop/cart/service.config.yaml:3:1: description: `OUTRIGGER_NONE` belongs to the process; a service's file cannot read it
    services/shop/cart/service.config.yaml:3:1: description: `POSTGRES_PASSWORD` can be read only inside `database`
    services/shop/cart/service.config.yaml:3:1: description: not the name of a variable: references are `${env:NAME}` and `${file:path}`
    hint: a literal `${` is written `$${`
    services/shop/cart/service.config.yaml:3:1: description: not a reference: references are `${env:NAME}` and `${file:path}`
    hint: write `${env:NONE}`
    services/shop/cart/service.config.yaml:3:1: description: a reference is not closed: references are `${env:NAME}` and `${file:path}`
    hint: a literal `${` is written `$${`
    services/shop/cart/service.config.yaml:3:1: description: not a reference: references are `${env:NAME}` and `${file:path}`
    hint: a literal `${` is written `$${`
    services/shop/cart/service.config.yaml:3:1: description: names no file: references are `${env:NAME}` and `${file:path}`
    hint: a literal `${` is written `$${`
    services/shop/cart/service.config.yaml:3:1: description: `FOLDER/services/shop/cart/none` does not exist
    services/shop/cart/service.config.yaml:3:1: description: `FOLDER/services/shop/cart/empty` is empty
    services/shop/cart/service.config.yaml:3:1: description: `FOLDER/services/shop/cart/folder` is no regular file
    services/shop/cart/service.config.yaml:3:1: description: `FOLDER/services/shop/cart/../../../outside` lies outside the folders a service may read
    hint: put it below the service's folder or one of `secretsDirs`
    services/shop/cart/service.config.yaml:3:1: description: `FOLDER/services/shop/cart/link` lies outside the folders a service may read
    hint: put it below the service's folder or one of `secretsDirs`
    services/shop/cart/service.config.yaml:3:1: description: `/etc/hostname` lies outside the folders a service may read
    hint: put it below the service's folder or one of `secretsDirs`
    services/shop/cart/service.config.yaml:3:1: description: `/proc/self/environ` lies outside the folders a service may read
    hint: put it below the service's folder or one of `secretsDirs`
    ");
}

#[test]
fn the_database_login_is_seen_only_by_the_database() {
    let case = one("\
port: 3001
auth: none
database: {url: '${env:DATABASE_URL}'}
")
    .env("DATABASE_URL", "postgres://a:swordfish@localhost/base");
    assert_eq!(case.problems(), "");
}

#[test]
fn resolved_values_are_never_printed() {
    let secret = "swordfish";
    for text in [
        "port: '${env:S}'",
        "auth: '${env:S}'",
        "auth: {strategy: '${env:S}'}",
        "auth: {jwt: {secret: '${env:S}'}}",
        "auth: {apiKey: {keys: [{id: '${env:S} ', key: '${env:S}'}]}}",
        "auth: {apiKey: {keys: [{id: a, sha256: '${env:S}'}]}}",
        "auth: {jwt: {publicKey: '${env:S}'}}",
        "auth: {jwt: {algorithms: ['${env:S}'], secret: '${env:S}'}}",
        "upstream: '${env:S}://x'",
        "upstream: {connectTimeout: '${env:S}'}",
        "limits: {headerBytes: '${env:S}'}",
        "dependencies: ['${env:S}']",
        "dependencies: ['${env:S}_']",
        "database: {url: '${env:S}'}",
        "database: {host: db, database: x, user: y, role: '${env:S}-', schema: '${env:S}-'}",
        "database: {host: db, database: x, user: y, reads: ['${env:S}']}",
        "tracing: {propagate: ['${env:S}']}",
        "tls: {cert: '${env:S}', key: '${env:S}'}",
        "listen: '${env:S}'",
        "name: '${env:S}'",
    ] {
        let case = one(&format!("{text}\n")).env("S", secret);
        let compiled = case.compile();
        let printed = format!("{}{:?}", texts(&compiled), effective(&compiled));
        assert!(!printed.contains(secret), "{text}\n{printed}");
    }
    let case = example(crate::config::examples::EVERYTHING);
    let compiled = case.compile();
    let printed = format!("{compiled:?}");
    for secret in ["swordfish", "s3cret", "k3y-k3y", "0ps-0ps"] {
        assert!(!printed.contains(secret), "{secret}");
    }
}

fn effective(compilation: &Compilation) -> Vec<EffectiveValue> {
    compilation
        .services
        .values()
        .flat_map(|compiled| match compiled {
            Compiled::Local(local) => local.effective.to_vec(),
            Compiled::Peer(_) => Vec::new(),
        })
        .collect()
}

#[test]
fn what_is_in_force_says_where_it_comes_from() {
    let text = "\
port: 3001
database: {url: 'postgres://u:p@db:5/base'}
dependencies: [{name: pay, address: 'pay:1', retries: 1, breaker: {failures: 3, open: 1s}}]
";
    let case = one(text)
        .env("SERVICE_CALL_RETRIES", "2")
        .env("CIRCUIT_BREAKER_THRESHOLD", "7")
        .env("SERVICE_AUTH_STRATEGY", "none")
        .env("POSTGRES_PORT", "6");
    let values = effective(&case.compile());
    let of = |key: &str| {
        let value = values.iter().find(|value| value.key == key);
        let value = value.unwrap_or_else(|| panic!("no {key}"));
        (value.value.as_str(), value.origin.as_str())
    };
    let file = "services/shop/cart/service.config.yaml";
    let url = format!("{file}:2:12");
    for (key, expected) in [
        ("auth.strategy", ("none", "env SERVICE_AUTH_STRATEGY")),
        ("database.host", ("db", &*url)),
        ("database.port", ("5", &*url)),
        ("database.database", ("base", &*url)),
        ("database.user", ("u", &*url)),
        ("database.password", ("***", &*url)),
        ("database.max", ("20", "default")),
        ("dependencies[0].retries", ("2", "env SERVICE_CALL_RETRIES")),
        (
            "dependencies[0].breaker.failures",
            ("7", "env CIRCUIT_BREAKER_THRESHOLD"),
        ),
        (
            "dependencies[0].breaker.open",
            ("1s", &*format!("{file}:3:81")),
        ),
    ] {
        assert_eq!(of(key), expected, "{key}");
    }
    let refused = one(text).env("SERVICE_CALL_RETRIES", "11").problems();
    assert!(
        refused.contains("SERVICE_CALL_RETRIES: must be at most 10"),
        "{refused}"
    );
}

#[test]
fn no_secrets_counts_references_as_present() {
    let text = "\
port: ${env:PORT}
auth:
  apiKey: {keys: [{id: a, sha256: '${file:/run/secrets/a}'}, {id: b, key: '${env:B}'}]}
limits: {idleTimeout: '${env:IDLE}'}
";
    let mut case = one(text);
    assert_eq!(
        case.compile()
            .problems
            .iter()
            .filter(|one| one.is_error())
            .count(),
        4
    );
    case.flags.no_secrets = true;
    assert_eq!(case.problems(), "");
    let mut case = one("port: 3001\nauth: jwt\n");
    case.flags.no_secrets = true;
    assert_eq!(case.problems(), "");
}

#[test]
fn a_changed_secret_changes_the_spec() {
    let case = one("port: 3001\nauth: {strategy: api-key, secretKey: '${file:key}'}\n");
    let folder = case.folder.path().join("services/shop/cart");
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("key"), "0123456789abcdef01234567").expect("file");
    let mut compiler = case.compiler();
    let first = compiler.compile(&case.tree());
    assert!(first.referenced.contains(&folder.join("key")));
    let again = compiler.compile(&case.tree());
    assert_eq!((first.compiled, again.compiled), (1, 0));
    std::fs::write(folder.join("key"), "0123456789abcdef01234568").expect("file");
    let changed = compiler.compile(&case.tree());
    assert_eq!(changed.compiled, 1);
    assert_ne!(spec(&first, "shop/cart"), spec(&changed, "shop/cart"));
    std::fs::remove_file(folder.join("key")).expect("file");
    let gone = compiler.compile(&case.tree());
    assert!(gone.problems.iter().any(Problem::is_error));
    assert!(gone.referenced.contains(&folder.join("key")));
}
