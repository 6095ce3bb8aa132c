//! `database` (POSTGRES.md §1).

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Fault, claim, default_name, role};
use super::context::Context;
use super::health::millis;
use super::names::is_identifier;
use super::sharing::{List, neighbours};
use crate::config::address::is_loopback;
use crate::config::raw::{RawDatabase, RawDuration, RawProvision, RawReset, RawTlsMode};
use crate::config::source::Bounds;
use crate::model::{
    DatabaseIsolation, DatabaseNeighbour, DatabaseReset, DatabaseSpec, DatabaseTls, Provision,
};

/// Longest identifier; PostgreSQL cuts longer ones off with only a NOTICE.
const MAX_IDENTIFIER: usize = 63;

/// Compiles the block; `None` while the wing is off. `first_name` is the index
/// of the first of `reads` among the names looked up in the tree.
pub(super) fn compile(
    raw: &RawDatabase,
    first_name: usize,
    context: &mut Context<'_>,
) -> Option<DatabaseSpec> {
    let connection = Connection::new(raw, context.defaults);
    report_connection(raw, &connection, context);
    let host = find_host(&connection, context)?;
    let isolation = Connection::isolation(raw, context.defaults);
    let database = connection.database(isolation, context.name);
    let role = role(raw, context.name, context.defaults);
    let user = connection.user.clone();
    // Somebody else's password is none of the role's.
    let password = connection.password.clone().filter(|_| user.is_some());
    let user = user.or_else(|| own_role(raw, &role, context));
    needed(database.is_none(), user.is_none(), context);
    let (database, user) = (database.unwrap_or_default(), user.unwrap_or_default());
    let schema = raw.schema.clone().unwrap_or_else(|| match isolation {
        DatabaseIsolation::Isolated => "public".to_owned(),
        DatabaseIsolation::Shared => default_name(context.name),
    });
    check_names(&role, &schema, &database, isolation, context);
    let base = connection.base_database.unwrap_or_else(|| match isolation {
        DatabaseIsolation::Shared => database.clone(),
        // Every cluster has it (initdb).
        DatabaseIsolation::Isolated => "postgres".to_owned(),
    });
    let (reads, shares_with) = sharing(raw, first_name, context);
    let times = times(raw, context);
    let process = &context.defaults.database;
    let first = |own: Option<bool>, default: Option<bool>, standard: bool| {
        own.or(default).unwrap_or(standard)
    };
    Some(DatabaseSpec {
        isolation,
        migrations: first(raw.migrations, process.migrations, true),
        tls: tls(raw, &host, connection.tls, context),
        host: Arc::from(host),
        port: connection.port,
        base_database: Arc::from(base),
        database: Arc::from(database),
        schema: Arc::from(schema),
        role: Arc::from(role),
        role_password: raw.role_password.as_ref().map(|one| one.0.clone()),
        user: Arc::from(user),
        password,
        role_secret: process.role_secret.as_ref().map(|one| one.0.clone()),
        max: context.count("database.max", raw.max.or(process.max), 20),
        idle_timeout: times.idle,
        connection_timeout: times.connection,
        max_lifetime: times.max_lifetime,
        statement_timeout: times.statement,
        lock_timeout: times.lock,
        idle_in_transaction_timeout: times.idle_in_transaction,
        required: first(raw.required, process.required, true),
        provision: match raw.provision.or(process.provision) {
            Some(RawProvision::True) => Provision::Always,
            Some(RawProvision::False) => Provision::Never,
            Some(RawProvision::Auto) | None => Provision::Auto,
        },
        migrations_dir: migrations_dir(raw, context),
        migrate_on_reload: first(raw.migrate_on_reload, process.migrate_on_reload, false),
        reads,
        shares_with,
        door_token: door_token(raw, context),
        reset: match raw.reset.or(process.reset) {
            Some(RawReset::Dirty) => DatabaseReset::Dirty,
            Some(RawReset::Always) | None => DatabaseReset::Always,
        },
    })
}

/// Without an administrative login the service's own role is the login, if its
/// password is known: somebody else provisions.
fn own_role(raw: &RawDatabase, role: &str, context: &Context<'_>) -> Option<String> {
    let has_secret = context.defaults.database.role_secret.is_some();
    (raw.role_password.is_some() || has_secret).then(|| role.to_owned())
}

/// Whom it reads, and who reads it.
fn sharing(
    raw: &RawDatabase,
    first_name: usize,
    context: &mut Context<'_>,
) -> (Vec<DatabaseNeighbour>, Vec<DatabaseNeighbour>) {
    let own = claim(context.name, raw, context.defaults);
    let reads = List {
        key: "reads",
        counterpart: "sharesWith",
        written: raw.reads.as_ref(),
        first: first_name,
    };
    let shares_with = List {
        key: "sharesWith",
        counterpart: "reads",
        written: raw.shares_with.as_ref(),
        first: first_name + raw.reads.as_ref().map_or(0, |list| list.0.len()),
    };
    (
        neighbours(reads, own.as_ref(), context),
        neighbours(shares_with, own.as_ref(), context),
    )
}

/// What no layer gave.
fn needed(lacks_database: bool, lacks_user: bool, context: &mut Context<'_>) {
    if lacks_database {
        context.report.error_hint(
            "database",
            "no database is named",
            "set POSTGRES_DB, or `database.database`",
        );
    }
    if lacks_user && !context.tolerant {
        context.report.error_hint(
            "database",
            "no user is named",
            "set POSTGRES_USER, or `database.user`",
        );
    }
}

fn report_connection(raw: &RawDatabase, connection: &Connection, context: &mut Context<'_>) {
    for fault in &connection.faults {
        match fault {
            Fault::Key(key, message) => context.report.error(key, *message),
            Fault::Variable(name, message) => context.report.environment(name, *message),
        }
    }
    for name in &connection.ignored {
        context.report.warn(
            "database.url",
            format!("the parameter `{name}` of the URL is ignored"),
        );
    }
    if raw.url.is_some() && raw.host.is_some() {
        context
            .report
            .error("database.host", "is there beside `database.url`");
    }
    if raw.port == Some(0) {
        context
            .report
            .error("database.port", "expected a port from 1 to 65535");
    }
    let Some(host) = &connection.host else {
        return;
    };
    let is_host = host.starts_with('/')
        || crate::config::address::parse_address(host)
            .is_ok_and(|address| !address.is_url && address.port.is_none());
    if !is_host {
        context.report.error(
            "database",
            "the host is no host name, address or absolute path",
        );
    }
}

/// The host; without one the wing is off, said in one line.
fn find_host(connection: &Connection, context: &mut Context<'_>) -> Option<String> {
    if connection.host.is_none() {
        let places = context.report.places();
        let is_unknown = places.is_unknown("database.url") || places.is_unknown("database.host");
        if !is_unknown && connection.faults.is_empty() {
            context.notes.push(
                "database is off: neither the files nor the environment name a host or url"
                    .to_owned(),
            );
        }
    }
    connection.host.clone()
}

fn check_names(
    role: &str,
    schema: &str,
    database: &str,
    isolation: DatabaseIsolation,
    context: &mut Context<'_>,
) {
    let is_shared = isolation == DatabaseIsolation::Shared;
    for (key, name) in [("role", role), ("schema", schema), ("database", database)] {
        let full_key = format!("database.{key}");
        let hint = format!("set `database.{key}`");
        let shown = context.report.shown(&full_key, name);
        if name.len() > MAX_IDENTIFIER {
            context.report.error_hint(
                &full_key,
                format!("{shown} has more than {MAX_IDENTIFIER} bytes"),
                hint,
            );
            continue;
        }
        let is_theirs = name.starts_with("pg_")
            || matches!(name, "information_schema" | "template0" | "template1")
            || (key == "schema" && is_shared && name == "public")
            || (key == "role" && matches!(name, "postgres" | "public"))
            || (key == "database" && !is_shared && name == "postgres");
        if is_theirs {
            context
                .report
                .error_hint(&full_key, "this name belongs to PostgreSQL", hint);
        } else if key == "database" {
            // One that exists already is used as it is; it is always quoted.
            if name.contains(['\0', '"', '\n']) {
                context.report.error(&full_key, "is no name of a database");
            }
        } else if !is_identifier(name) && !name.starts_with(|first: char| first.is_ascii_digit()) {
            context.report.error_hint(
                &full_key,
                "expected a-z, 0-9 and _",
                "names are used without quotes elsewhere",
            );
        }
    }
}

struct Times {
    idle: Duration,
    connection: Duration,
    max_lifetime: Duration,
    statement: Duration,
    lock: Option<Duration>,
    idle_in_transaction: Duration,
}

fn times(raw: &RawDatabase, context: &mut Context<'_>) -> Times {
    let process = &context.defaults.database;
    let in_millis = |written: Option<u64>| {
        // Longer than a day says nothing more.
        written.map(|number| RawDuration(millis(Some(number.min(86_400_000)), 0)))
    };
    let idle = in_millis(raw.idle_timeout_millis.or(process.idle_timeout_millis));
    let connection = in_millis(
        raw.connection_timeout_millis
            .or(process.connection_timeout_millis),
    );
    let lock = raw.lock_timeout.or(process.lock_timeout);
    let max_lifetime = raw.max_lifetime.or(process.max_lifetime);
    let statement = raw.statement_timeout.or(process.statement_timeout);
    let idle_in_transaction = raw
        .idle_in_transaction_timeout
        .or(process.idle_in_transaction_timeout);
    let seconds = Duration::from_secs;
    let mut time = |key: &str, written, default| {
        context.duration(&format!("database.{key}"), written, default)
    };
    Times {
        idle: time("idleTimeoutMillis", idle, seconds(30)),
        connection: time("connectionTimeoutMillis", connection, seconds(2)),
        max_lifetime: time("maxLifetime", max_lifetime, seconds(1800)),
        statement: time("statementTimeout", statement, seconds(30)),
        lock: lock.map(|lock| time("lockTimeout", Some(lock), seconds(5))),
        idle_in_transaction: time("idleInTransactionTimeout", idle_in_transaction, seconds(60)),
    }
}

/// Below the service's folder, or below a folder that it may read anyway.
fn migrations_dir(raw: &RawDatabase, context: &mut Context<'_>) -> PathBuf {
    let process = context.defaults.database.migrations_dir.as_ref();
    let written = raw.migrations_dir.as_ref().or(process);
    let path = Path::new(written.map_or("migrations", String::as_str));
    let climbs = path
        .components()
        .any(|component| component == Component::ParentDir);
    let is_inside = path.is_relative()
        || match context.bounds {
            Bounds::Anywhere => true,
            Bounds::Below { folders, .. } => folders.iter().any(|folder| path.starts_with(folder)),
        };
    if climbs || !is_inside {
        context.report.error(
            "database.migrationsDir",
            "must lie below the service's folder or one of `secretsDirs`",
        );
    }
    context.folder.join(path)
}

fn door_token(raw: &RawDatabase, context: &mut Context<'_>) -> Option<crate::secret::Secret> {
    let token = raw.door_token.as_ref()?.0.clone();
    if token.len() < 16 {
        context
            .report
            .error("database.doorToken", "is shorter than 16 characters");
    }
    Some(token)
}

fn tls(
    raw: &RawDatabase,
    host: &str,
    from_url: Option<RawTlsMode>,
    context: &mut Context<'_>,
) -> DatabaseTls {
    let own = raw.tls.clone();
    let written = own
        .or_else(|| context.defaults.database.tls.clone())
        .unwrap_or_default();
    let is_here = host.starts_with('/') || is_loopback(host);
    let mode = written.mode.or(from_url);
    if mode == Some(RawTlsMode::Prefer) && !is_here {
        let key = match written.mode {
            Some(_) => "database.tls.mode",
            None => "database.url",
        };
        context.report.error_hint(
            key,
            "`prefer` and `allow` can be stripped by whoever is in between",
            "use verify-full, require or disable",
        );
    }
    if written.cert.is_some() != written.key.is_some() {
        context
            .report
            .error("database.tls", "`cert` and `key` go together");
    }
    let ca = context.file("database.tls.ca", written.ca.as_ref());
    let cert = context.file("database.tls.cert", written.cert.as_ref());
    let key = context.file("database.tls.key", written.key.as_ref());
    let digest = context.digest(&[ca.as_ref(), cert.as_ref(), key.as_ref()]);
    match mode {
        Some(RawTlsMode::Disable | RawTlsMode::Prefer) => DatabaseTls::Disable,
        Some(RawTlsMode::Require) => DatabaseTls::Require { cert, key, digest },
        None if is_here => DatabaseTls::Disable,
        Some(RawTlsMode::VerifyFull) | None => DatabaseTls::VerifyFull {
            ca,
            cert,
            key,
            digest,
        },
    }
}
