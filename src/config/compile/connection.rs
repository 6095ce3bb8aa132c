//! Where a service's database is, who logs in, and what its names are.

use super::postgres_url::{self, PostgresUrl};
use crate::config::process::{Defaults, FrameworkDatabase};
use crate::config::raw::{OneOrMany, RawDatabase, RawIsolation, RawTlsMode};
use crate::model::{DatabaseIsolation, ServiceName};
use crate::secret::Secret;

/// The names a service takes in a cluster; no two services may share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct DatabaseClaim {
    /// `host:port`.
    pub(in crate::config) cluster: String,
    pub(in crate::config) role: String,
    pub(in crate::config) database: String,
    /// `None` when the whole database is its own.
    pub(in crate::config) schema: Option<String>,
    /// Names of services whose tables it wants to read, as written.
    pub(in crate::config) reads: Vec<String>,
    /// Names of services that may read its own, as written.
    pub(in crate::config) shares_with: Vec<String>,
}

/// The parts that a block names one by one.
macro_rules! pieces {
    ($block:expr) => {
        PostgresUrl {
            host: $block.host.clone(),
            port: $block.port,
            database: $block.database.clone(),
            user: $block.user.clone(),
            password: $block.password.as_ref().map(|one| one.0.clone()),
            ..PostgresUrl::default()
        }
    };
}

/// Where the database is and who logs in, from every layer.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) host: Option<String>,
    pub(super) port: u16,
    /// Named in the service's own file: used as it is.
    pub(super) own_database: Option<String>,
    /// `POSTGRES_DB`: what provisioning starts from.
    pub(super) base_database: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) tls: Option<RawTlsMode>,
    pub(super) faults: Vec<Fault>,
    pub(super) ignored: Vec<String>,
}

/// What is wrong with a URL, and where it stands.
#[derive(Debug)]
pub(super) enum Fault {
    Key(&'static str, &'static str),
    Variable(&'static str, &'static str),
}

impl Connection {
    /// The service's file over the environment over the process's file. A host
    /// brings its own port; every other part may come from a lower layer.
    pub(super) fn new(raw: &RawDatabase, defaults: &Defaults) -> Self {
        let mut faults = Vec::new();
        let own = over(
            pieces!(raw),
            parse(raw.url.as_ref().map(|url| &url.0), &mut faults, |message| {
                Fault::Key("database.url", message)
            }),
        );
        let env = &defaults.framework.database;
        let named = over(
            parse(env.url.as_ref(), &mut faults, |message| {
                Fault::Variable("DATABASE_URL", message)
            }),
            variables(env),
        );
        let process = &defaults.database;
        let below = over(
            pieces!(process),
            parse(
                process.url.as_ref().map(|url| &url.0),
                &mut faults,
                |message| Fault::Key("database.url", message),
            ),
        );
        let own_database = own.database.clone();
        let base_database = named.database.clone().or_else(|| below.database.clone());
        let all = over(own, over(named, below));
        Self {
            host: all.host,
            port: all.port.unwrap_or(5432),
            own_database,
            base_database,
            user: all.user,
            password: all.password,
            tls: all.tls,
            faults,
            ignored: all.ignored,
        }
    }

    /// The file over the environment over the process's file.
    pub(super) fn isolation(raw: &RawDatabase, defaults: &Defaults) -> DatabaseIsolation {
        let written = raw
            .isolation
            .or(defaults.framework.database.isolation)
            .or(defaults.database.isolation);
        match written {
            Some(RawIsolation::Isolated) => DatabaseIsolation::Isolated,
            Some(RawIsolation::Shared) | None => DatabaseIsolation::Shared,
        }
    }

    /// The service's database, if it can be named.
    pub(super) fn database(
        &self,
        isolation: DatabaseIsolation,
        name: &ServiceName,
    ) -> Option<String> {
        match (&self.own_database, &self.base_database, isolation) {
            (Some(own), ..) => Some(own.clone()),
            (None, Some(base), DatabaseIsolation::Shared) => Some(base.clone()),
            (None, Some(base), DatabaseIsolation::Isolated) => {
                Some(format!("{base}_{}", underscored(name.name())))
            }
            (None, None, _) => None,
        }
    }
}

/// A URL's parts; none of them without a URL or after a fault.
fn parse(
    written: Option<&Secret>,
    faults: &mut Vec<Fault>,
    fault: fn(&'static str) -> Fault,
) -> PostgresUrl {
    let text = written
        .and_then(Secret::expose_str)
        .filter(|text| !text.is_empty());
    match text.map(postgres_url::parse) {
        None => PostgresUrl::default(),
        Some(Ok(url)) => url,
        Some(Err(message)) => {
            faults.push(fault(message));
            PostgresUrl::default()
        }
    }
}

fn variables(env: &FrameworkDatabase) -> PostgresUrl {
    let text =
        |value: &Option<(&'static str, String)>| value.as_ref().map(|(_, text)| text.clone());
    PostgresUrl {
        host: text(&env.host),
        port: env.port.map(|(_, port)| port),
        database: text(&env.database),
        user: text(&env.user),
        password: env.password.as_ref().map(|(_, password)| password.clone()),
        ..PostgresUrl::default()
    }
}

/// The upper layer where it says something, else the lower one.
fn over(upper: PostgresUrl, lower: PostgresUrl) -> PostgresUrl {
    let (host, port) = match upper.host {
        Some(host) => (Some(host), upper.port),
        None => (lower.host, upper.port.or(lower.port)),
    };
    PostgresUrl {
        host,
        port,
        database: upper.database.or(lower.database),
        user: upper.user.or(lower.user),
        password: upper.password.or(lower.password),
        tls: upper.tls.or(lower.tls),
        ignored: [upper.ignored, lower.ignored].concat(),
    }
}

/// `-` is no letter of an unquoted identifier.
fn underscored(text: &str) -> String {
    text.replace('-', "_")
}

/// `<domain>_<service>`.
pub(super) fn default_name(name: &ServiceName) -> String {
    format!(
        "{}_{}",
        underscored(name.domain()),
        underscored(name.name())
    )
}

/// The service's login role.
pub(super) fn role(raw: &RawDatabase, name: &ServiceName, defaults: &Defaults) -> String {
    raw.role.clone().unwrap_or_else(|| {
        let prefix = defaults.database.role_prefix.as_deref().unwrap_or_default();
        format!("{prefix}{}", default_name(name))
    })
}

fn names(written: Option<&OneOrMany>) -> Vec<String> {
    written.map_or_else(Vec::new, |list| list.0.clone())
}

/// The names the block takes; `None` while the wing is off for it.
pub(in crate::config) fn claim(
    name: &ServiceName,
    raw: &RawDatabase,
    defaults: &Defaults,
) -> Option<DatabaseClaim> {
    let connection = Connection::new(raw, defaults);
    let isolation = Connection::isolation(raw, defaults);
    Some(DatabaseClaim {
        database: connection.database(isolation, name)?,
        cluster: format!("{}:{}", connection.host?, connection.port),
        role: role(raw, name, defaults),
        schema: (isolation == DatabaseIsolation::Shared)
            .then(|| raw.schema.clone().unwrap_or_else(|| default_name(name))),
        reads: names(raw.reads.as_ref()),
        shares_with: names(raw.shares_with.as_ref()),
    })
}
