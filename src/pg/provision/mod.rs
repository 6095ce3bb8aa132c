//! Provisioning: a role, and a schema or a database, for each service
//! (POSTGRES.md §2).
//!
//! Look at what is there ([`facts`]), list what is missing ([`steps`]); an empty
//! list needs no lock. Else take the lock, look again, and run the list: what
//! two processes do at once is done once.

mod facts;
mod password;
mod refusal;
mod steps;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::Login;
use super::migrate::lock::{self, LockError};
use super::names::{self, MARK, identifier, literal, provision_lock};
use super::session::{Session, SessionError, Target};
use crate::model::{DatabaseIsolation, DatabaseSpec, ServiceName};
use crate::secret::Secret;
use facts::{Cluster, Inside};
pub(super) use password::{Source, role_login};
pub(super) use refusal::Refusal;
use steps::Step;

/// Somebody else changed the same rows of a catalog: looked at again so often.
const ATTEMPTS: usize = 5;
/// Looks at most: what a server does not let us take is not taken by asking on.
const ROUNDS: usize = 3;

/// Why a service has no place of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProvisionError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{error}, in `{statement}`")]
    Step {
        /// Without the password's verifier.
        statement: String,
        error: SessionError,
    },
}

/// What a service needs.
pub(super) struct Wanted<'a> {
    service: &'a ServiceName,
    spec: &'a DatabaseSpec,
    mark: String,
    password: Option<Secret>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The role is there and can log in; so many statements were needed.
    Done { changes: usize },
    /// The login may not create roles; with the SQL that somebody else must
    /// run, if any is missing.
    MayNot { missing: Option<String> },
}

impl<'a> Wanted<'a> {
    pub(super) fn new(service: &'a ServiceName, spec: &'a DatabaseSpec) -> Self {
        Self {
            service,
            spec,
            mark: names::mark(service),
            password: role_login(spec).0.password,
        }
    }

    fn is_shared(&self) -> bool {
        self.spec.isolation == DatabaseIsolation::Shared
    }

    /// Refuses what carries no comment or another service's.
    fn is_marked(&self, what: String, mark: Option<&str>, adopt: String) -> Result<(), Refusal> {
        let owner = match mark {
            Some(mark) if mark == self.mark => return Ok(()),
            Some(mark) => match mark.strip_prefix(MARK) {
                Some(other) => format!("the service `{other}`"),
                None => "somebody else: its comment is not ours".to_owned(),
            },
            None => "somebody else: it has no comment of ours".to_owned(),
        };
        Err(Refusal::foreign(what, owner, adopt))
    }

    /// What the role's sessions begin with.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let spec = self.spec;
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let idle = millis(spec.idle_in_transaction_timeout);
        let mut settings = vec![
            ("search_path", spec.schema.to_string()),
            ("statement_timeout", millis(spec.statement_timeout)),
            ("idle_in_transaction_session_timeout", idle),
        ];
        settings.extend(spec.lock_timeout.map(|lock| ("lock_timeout", millis(lock))));
        settings
    }

    /// Schema, owner and reader of everything both sides agreed to.
    fn grants(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let (schema, role) = (&*self.spec.schema, &*self.spec.role);
        let reads = self.spec.reads.iter();
        let reads = reads.map(move |other| (&*other.schema, &*other.role, role));
        let shares = self.spec.shares_with.iter();
        reads.chain(shares.map(move |other| (schema, role, &*other.role)))
    }

    async fn open(&self, login: &Login, database: &str) -> Result<Session, SessionError> {
        Session::open(&Target {
            service: self.service,
            spec: self.spec,
            login,
            database,
            settings: &[
                // Nobody's functions may stand in for the server's own.
                ("search_path", "pg_catalog"),
                ("statement_timeout", "60s"),
                ("lock_timeout", "30s"),
                ("standard_conforming_strings", "on"),
            ],
        })
        .await
    }
}

/// Makes what is missing, if the configured login may.
///
/// # Errors
/// [`ProvisionError`]; what was done before stays, and is found next time.
pub(super) async fn provision(
    wanted: &Wanted<'_>,
    waiting: &(dyn Fn(&str) + Send + Sync),
) -> Result<Outcome, ProvisionError> {
    let spec = wanted.spec;
    let admin = admin(spec);
    let session = wanted.open(&admin, &spec.base_database).await?;
    let found = facts::cluster(&session, wanted).await?;
    if !found.may_create_roles {
        let missing = missing(wanted, &admin, found).await?;
        return Ok(Outcome::MayNot { missing });
    }
    let is_complete = steps::outside(wanted, &found)?.is_empty() && {
        let within = wanted.open(&admin, &spec.database).await?;
        let found = facts::inside(&within, wanted).await?;
        steps::inside(wanted, &found)?.is_empty()
    };
    if is_complete && !needs_password(wanted).await? {
        return Ok(Outcome::Done { changes: 0 });
    }
    lock::take(&session, provision_lock(), waiting).await?;
    let mut changes = 0;
    let mut attempt = 1;
    loop {
        match complete(wanted, &admin, &session).await {
            Ok(more) => changes += more,
            Err(error) if attempt < ATTEMPTS && is_race(&error) => {
                attempt += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        break;
    }
    changes += set_password(wanted, &session).await?;
    lock::release(&session, provision_lock()).await?;
    Ok(Outcome::Done { changes })
}

/// Looks and runs what is missing, with the lock; again, because grants need
/// what was made just now.
async fn complete(
    wanted: &Wanted<'_>,
    admin: &Login,
    session: &Session,
) -> Result<usize, ProvisionError> {
    let mut changes = 0;
    for _ in 0..ROUNDS {
        let found = facts::cluster(session, wanted).await?;
        let outside = steps::outside(wanted, &found)?;
        run(wanted, session, &outside).await?;
        let within = wanted.open(admin, &wanted.spec.database).await?;
        let found = facts::inside(&within, wanted).await?;
        let inside = steps::inside(wanted, &found)?;
        run(wanted, &within, &inside).await?;
        let more = outside.len() + inside.len();
        if more == 0 {
            break;
        }
        changes += more;
    }
    Ok(changes)
}

/// Runs statements: what can be in one transaction is.
async fn run(wanted: &Wanted<'_>, session: &Session, steps: &[Step]) -> Result<(), ProvisionError> {
    for group in steps.chunk_by(|one, next| !one.alone && !next.alone) {
        let alone = group.iter().any(|step| step.alone);
        if !alone {
            session.run("BEGIN").await?;
        }
        for step in group {
            if let Err(error) = session.run(&with_password(step, wanted)).await {
                // Another attempt may follow on this session.
                let _ = session.run("ROLLBACK").await;
                let statement = step.sql.clone();
                return Err(ProvisionError::Step { statement, error });
            }
        }
        if !alone {
            session.run("COMMIT").await?;
        }
    }
    Ok(())
}

fn with_password(step: &Step, wanted: &Wanted<'_>) -> String {
    match &wanted.password {
        Some(password) if step.sets_password => {
            let verifier = literal(&password::verifier(password));
            format!("{} PASSWORD {verifier}", step.sql)
        }
        _ => step.sql.clone(),
    }
}

/// Whether the role is there and can log in with the password it should have.
///
/// # Errors
/// [`SessionError`], but not for a wrong role or password.
pub(super) async fn can_log_in(wanted: &Wanted<'_>) -> Result<bool, SessionError> {
    let (login, _) = role_login(wanted.spec);
    match wanted.open(&login, &wanted.spec.database).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_bad_password() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses a configured login that is to be the service's own role and may do
/// more than one of a service should.
///
/// # Errors
/// [`ProvisionError`].
pub(super) async fn refuse_privileges(wanted: &Wanted<'_>) -> Result<(), ProvisionError> {
    let spec = wanted.spec;
    let session = wanted.open(&role_login(spec).0, &spec.database).await?;
    let found = facts::cluster(&session, wanted).await?;
    match found.role.and_then(|role| role.privilege) {
        Some(why) => Err(Refusal::privileged(&spec.role, &why).into()),
        None => Ok(()),
    }
}

/// Whether the configured login may create roles.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn may_create_roles(wanted: &Wanted<'_>) -> Result<bool, SessionError> {
    let spec = wanted.spec;
    let session = wanted.open(&admin(spec), &spec.base_database).await?;
    Ok(facts::cluster(&session, wanted).await?.may_create_roles)
}

/// The configured login.
fn admin(spec: &DatabaseSpec) -> Login {
    Login {
        user: Arc::clone(&spec.user),
        password: spec.password.clone(),
    }
}

/// Whether the role cannot log in with the password it should have.
async fn needs_password(wanted: &Wanted<'_>) -> Result<bool, SessionError> {
    Ok(wanted.password.is_some() && !can_log_in(wanted).await?)
}

/// Gives the role its password back; how many statements that took.
async fn set_password(wanted: &Wanted<'_>, session: &Session) -> Result<usize, ProvisionError> {
    let Some(password) = &wanted.password else {
        return Ok(0);
    };
    if !needs_password(wanted).await? {
        return Ok(0);
    }
    let role = identifier(&wanted.spec.role);
    let verifier = literal(&password::verifier(password));
    let set = format!("ALTER ROLE {role} PASSWORD {verifier}");
    session
        .run(&set)
        .await
        .map_err(|error| ProvisionError::Step {
            statement: format!("ALTER ROLE {role} PASSWORD"),
            error,
        })?;
    Ok(1)
}

/// Somebody else was faster, or uses the template: worth another look.
fn is_race(error: &ProvisionError) -> bool {
    let ProvisionError::Step { error, .. } = error else {
        return false;
    };
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    // Duplicates, "tuple concurrently updated", an object in use.
    matches!(
        code,
        Some("42710" | "42P04" | "42P06" | "23505" | "XX000" | "55006")
    )
}

/// The SQL that somebody else would have to run. `None` when nothing is
/// missing, or when what is there is used as it is.
async fn missing(
    wanted: &Wanted<'_>,
    user: &Login,
    found: Cluster,
) -> Result<Option<String>, SessionError> {
    // Whoever runs it need not act as the role.
    let found = Cluster {
        is_superuser: true,
        ..found
    };
    let within = match wanted.open(user, &wanted.spec.database).await {
        Ok(session) => facts::inside(&session, wanted).await?,
        Err(_) => Inside::default(),
    };
    let outside = steps::outside(wanted, &found);
    let (Ok(outside), Ok(inside)) = (outside, steps::inside(wanted, &within)) else {
        return Ok(None);
    };
    let mut sql = String::new();
    print(&outside, wanted, &mut sql);
    if !inside.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(sql, "\\connect {}", identifier(&wanted.spec.database));
        print(&inside, wanted, &mut sql);
    }
    Ok((!sql.is_empty()).then_some(sql))
}

/// As `psql` takes it.
fn print(steps: &[Step], wanted: &Wanted<'_>, sql: &mut String) {
    for step in steps {
        // Writing to a String cannot fail.
        let _ = writeln!(sql, "{};", step.sql);
        if step.sets_password {
            let _ = writeln!(sql, "\\password {}", identifier(&wanted.spec.role));
        }
    }
}
