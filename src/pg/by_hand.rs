//! What a person or a Job asks for at the command line: the steps of a start,
//! one by one.

use std::sync::Arc;

use super::migrate::{self, Event, Job, MigrateError};
use super::prepare::{Access, PrepareError, access};
use super::provision::{ProvisionError, Wanted, can_log_in, may_create_roles, role_login};
use super::{Login, names};
use crate::drain::DrainWatcher;
use crate::model::{DatabaseIsolation, DatabaseSpec, DatabaseTls, Provision, ServiceName};

pub use super::migrate::{Line, Resolution};

/// The database of one service and whom to tell what is done.
pub struct ByHand<'a> {
    pub service: &'a ServiceName,
    pub spec: &'a DatabaseSpec,
    /// Announced: the migration under way is cancelled and rolled back.
    pub drain: DrainWatcher,
    /// Takes lines for a person.
    pub say: &'a (dyn Fn(&str) + Send + Sync),
}

/// Why it was not done. Texts for operators: no secrets.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// There was nobody to talk to, or no login.
    #[error("{0}")]
    Unreachable(String),
    /// Files, SQL, or what is there already.
    #[error("{0}")]
    Failed(String),
}

impl From<PrepareError> for ByHandError {
    fn from(error: PrepareError) -> Self {
        if error.is_unreachable() {
            Self::Unreachable(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<MigrateError> for ByHandError {
    fn from(error: MigrateError) -> Self {
        PrepareError::from(error).into()
    }
}

impl ByHand<'_> {
    /// Makes role, schema and database where they are missing.
    ///
    /// # Errors
    /// [`ByHandError`]; also when the login may not.
    pub async fn provision(&self) -> Result<(), ByHandError> {
        let spec = DatabaseSpec {
            provision: Provision::Always,
            ..self.spec.clone()
        };
        let waiting = |holder: &str| self.say(&format!("waiting for {holder}"));
        let access = access(self.service, &spec, &waiting).await?;
        self.tell_of(&access);
        if access.changes == 0 {
            self.say("nothing is missing");
        }
        Ok(())
    }

    /// Provisions where that is asked for, and runs what has not been run.
    ///
    /// # Errors
    /// [`ByHandError`].
    pub async fn up(&self) -> Result<(), ByHandError> {
        let login = self.enter().await?;
        let outcome = migrate::up(&self.job(&login, &|event| self.tell(event))).await?;
        for (versions, what) in [
            (
                &outcome.ahead,
                "the database has versions newer than every file",
            ),
            (&outcome.missing, "files of applied versions are gone"),
        ] {
            if !versions.is_empty() {
                self.say(&format!("warning: {what}: {versions:?}"));
            }
        }
        let (ran, applied) = (outcome.ran, outcome.applied.len());
        self.say(&format!(
            "up to date: {ran} run now, {applied} applied in all"
        ));
        Ok(())
    }

    /// Every version of files and database; changes nothing.
    ///
    /// # Errors
    /// [`ByHandError`]; also when it is not provisioned yet.
    pub async fn status(&self) -> Result<Vec<Line>, ByHandError> {
        let login = self.login().await?;
        Ok(migrate::status(&self.job(&login, &|_| {})).await?)
    }

    /// Counts every file up to `version` as applied.
    ///
    /// # Errors
    /// [`ByHandError`]; nothing is changed then.
    pub async fn baseline(&self, version: i64) -> Result<(), ByHandError> {
        let login = self.enter().await?;
        let tell = |event: Event<'_>| self.tell(event);
        let job = self.job(&login, &tell);
        let adopted = migrate::baseline(&job, version).await?;
        self.say(&format!("{adopted} files count as applied"));
        Ok(())
    }

    /// Decides about a file that was begun without a transaction.
    ///
    /// # Errors
    /// [`ByHandError`]; nothing is changed then.
    pub async fn resolve(&self, version: i64, how: Resolution) -> Result<(), ByHandError> {
        let login = self.enter().await?;
        let tell = |event: Event<'_>| self.tell(event);
        let job = self.job(&login, &tell);
        migrate::resolve(&job, version, how).await?;
        self.say(match how {
            Resolution::Applied => "counts as applied",
            Resolution::Retry => "runs again next time",
        });
        Ok(())
    }

    /// What the service logs in with; changes nothing.
    ///
    /// # Errors
    /// [`ByHandError`]; also when it is not provisioned yet.
    pub async fn login(&self) -> Result<Login, ByHandError> {
        let (spec, waiting) = (self.spec, |_: &str| {});
        if spec.user == spec.role || spec.provision == Provision::Never {
            return Ok(access(self.service, spec, &waiting).await?.login);
        }
        let wanted = Wanted::new(self.service, spec);
        let found = can_log_in(&wanted).await;
        if found.map_err(PrepareError::Session)? {
            return Ok(role_login(spec).0);
        }
        let may = may_create_roles(&wanted).await;
        let may = may.map_err(|error| PrepareError::Provision(ProvisionError::Session(error)))?;
        if may || spec.provision == Provision::Always {
            let role = &spec.role;
            return Err(ByHandError::Unreachable(format!(
                "the role `{role}` cannot log in: run `outrigger migrate provision`"
            )));
        }
        Ok(Login {
            user: Arc::clone(&spec.user),
            password: spec.password.clone(),
        })
    }

    async fn enter(&self) -> Result<Login, ByHandError> {
        let waiting = |holder: &str| self.say(&format!("waiting for {holder}"));
        let access = access(self.service, self.spec, &waiting).await?;
        self.tell_of(&access);
        Ok(access.login)
    }

    fn tell_of(&self, access: &Access) {
        if access.changes > 0 {
            let (role, count) = (&access.login.user, access.changes);
            self.say(&format!("role `{role}` is ready ({count} statements)"));
        }
        if access.derived_from_admin {
            self.say(
                "warning: its password is derived from the administrative one; set `roleSecret`",
            );
        }
        if let Some(sql) = &access.missing {
            self.say(&format!(
                "warning: no role of its own: `{}` may not create roles. Missing:\n{sql}",
                access.login.user
            ));
        }
    }

    fn job<'a>(
        &'a self,
        login: &'a Login,
        report: &'a (dyn Fn(Event<'_>) + Send + Sync),
    ) -> Job<'a> {
        Job {
            service: self.service,
            spec: self.spec,
            login,
            drain: self.drain.clone(),
            report,
        }
    }

    fn tell(&self, event: Event<'_>) {
        match event {
            Event::Waits { holder } => self.say(&format!("waiting for {holder}")),
            Event::Begins { name, number, of } => self.say(&format!("{name} ({number} of {of})")),
            Event::Done { name, millis } => self.say(&format!("{name} applied in {millis} ms")),
        }
    }

    fn say(&self, line: &str) {
        (self.say)(line);
    }
}

/// `postgres://…` for ordinary drivers, with the password in it.
pub fn url(spec: &DatabaseSpec, login: &Login) -> String {
    let mut place = String::new();
    let mut parameters = Vec::new();
    if spec.host.starts_with('/') {
        parameters.push(("host", encode(&spec.host)));
        if spec.port != 5432 {
            parameters.push(("port", spec.port.to_string()));
        }
    } else {
        place = super::session::place(spec);
    }
    let mode = match &spec.tls {
        DatabaseTls::Disable => "disable",
        DatabaseTls::Require { .. } => "require",
        DatabaseTls::VerifyFull { .. } => "verify-full",
    };
    parameters.push(("sslmode", mode.to_owned()));
    let (ca, cert, key) = match &spec.tls {
        DatabaseTls::Disable => (&None, &None, &None),
        DatabaseTls::Require { cert, key, .. } => (&None, cert, key),
        DatabaseTls::VerifyFull { ca, cert, key, .. } => (ca, cert, key),
    };
    for (name, path) in [("sslrootcert", ca), ("sslcert", cert), ("sslkey", key)] {
        let path = path.as_ref().map(|path| encode(&path.to_string_lossy()));
        parameters.extend(path.map(|path| (name, path)));
    }
    // A role of its own has its path from the catalog.
    if login.user != spec.role && spec.isolation == DatabaseIsolation::Shared {
        let path = format!("-c search_path={}", names::search_path(spec));
        parameters.push(("options", encode(&path)));
    }
    let password = login
        .password
        .as_ref()
        .and_then(|password| password.expose_str());
    let password = password.map_or(String::new(), |text| format!(":{}", encode(text)));
    let parameters: Vec<String> = parameters
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(
        "postgres://{}{password}@{place}/{}?{}",
        encode(&login.user),
        encode(&spec.database),
        parameters.join("&")
    )
}

/// Percent-encoding of everything but unreserved characters (RFC 3986 §2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
