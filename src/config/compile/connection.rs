//! Where a service's database is, who logs in, and what its names are.

use super::postgres_url::{self, PostgresUrl};
use crate::config::process::{Defaults, Framework};
use crate::config::raw::{RawDatabase, RawIsolation, RawSecret, RawTlsMode};
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
        let mut connection = Self::default();
        let mut url = |written: Option<&Secret>, fault: fn(&'static str) -> Fault| {
            let text = written?.expose_str().filter(|text| !text.is_empty())?;
            match postgres_url::parse(text) {
                Ok(url) => Some(url),
                Err(message) => {
                    connection.faults.push(fault(message));
                    None
                }
            }
        };
        let secret = |written: &Option<RawSecret>| written.as_ref().map(|one| one.0.clone());
        let Framework { database: env, .. } = &defaults.framework;
        let process = &defaults.database;
        let own = url(secret(&raw.url).as_ref(), |message| {
            Fault::Key("database.url", message)
        });
        let named = url(env.url.as_ref(), |message| {
            Fault::Variable("DATABASE_URL", message)
        });
        let below = url(secret(&process.url).as_ref(), |message| {
            Fault::Key("database.url", message)
        });
        let (own, named, below) = (
            own.unwrap_or_default(),
            named.unwrap_or_default(),
            below.unwrap_or_default(),
        );
        let pieces = |host: Option<String>, port: Option<u16>| PostgresUrl {
            host,
            port,
            ..PostgresUrl::default()
        };
        let env_host = env.host.as_ref().map(|(_, host)| host.clone());
        let env_pieces = pieces(env_host, env.port.map(|(_, port)| port));
        let layers = [
            &own,
            &pieces(raw.host.clone(), raw.port),
            &named,
            &env_pieces,
            &below,
            &pieces(process.host.clone(), process.port),
        ];
        let place = layers.iter().find(|layer| layer.host.is_some());
        connection.host = place.and_then(|layer| layer.host.clone());
        connection.port = raw
            .port
            .or(place.and_then(|layer| layer.port))
            .unwrap_or(5432);
        let env_text =
            |value: &Option<(&'static str, String)>| value.as_ref().map(|(_, text)| text.clone());
        connection.own_database = raw.database.clone().or(own.database);
        connection.base_database = named
            .database
            .or(env_text(&env.database))
            .or(process.database.clone())
            .or(below.database);
        connection.user = raw
            .user
            .clone()
            .or(own.user)
            .or(named.user)
            .or(env_text(&env.user))
            .or(process.user.clone())
            .or(below.user);
        connection.password = secret(&raw.password)
            .or(own.password)
            .or(named.password)
            .or(env.password.as_ref().map(|(_, password)| password.clone()))
            .or(secret(&process.password))
            .or(below.password);
        connection.tls = own.tls.or(named.tls).or(below.tls);
        connection.ignored = [own.ignored, named.ignored, below.ignored].concat();
        connection
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
    })
}
