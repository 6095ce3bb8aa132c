//! From what is there to what is missing. Pure: the same list is run, or
//! printed for somebody who may run it.

use super::Wanted;
use super::facts::{Cluster, Database, Grant, Inside, Place, Role};
use super::refusal::Refusal;
use crate::pg::migrate::TABLE;
use crate::pg::names::{identifier, literal};

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Without the role's password.
    pub(super) sql: String,
    /// Whether the role's password belongs at its end.
    pub(super) sets_password: bool,
    /// Whether it cannot run in a transaction.
    pub(super) alone: bool,
}

impl From<String> for Step {
    fn from(sql: String) -> Self {
        Self {
            sql,
            sets_password: false,
            alone: false,
        }
    }
}

/// A role may take at most half of the server's connections, but always its
/// pool and a few beside it.
fn connection_limit(cluster: &Cluster, wanted: &Wanted<'_>) -> i32 {
    let own = i32::try_from(wanted.spec.max).unwrap_or(i32::MAX);
    own.saturating_add(5).max(cluster.max_connections / 2)
}

/// What is missing outside the service's database.
///
/// # Errors
/// What is there and not ours.
pub(super) fn outside(wanted: &Wanted<'_>, found: &Cluster) -> Result<Vec<Step>, Refusal> {
    let role = identifier(&wanted.spec.role);
    let mut steps = Vec::new();
    match &found.role {
        Some(existing) => check_role(wanted, existing)?,
        None => {
            let limit = connection_limit(found, wanted);
            let create = format!(
                "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION \
                 NOBYPASSRLS CONNECTION LIMIT {limit}"
            );
            steps.push(Step {
                sets_password: true,
                ..Step::from(create)
            });
            let mark = literal(&wanted.mark);
            steps.push(format!("COMMENT ON ROLE {role} IS {mark}").into());
        }
    }
    let acts_as_role = found.role.as_ref().is_some_and(|role| role.is_ours);
    if !found.is_superuser && !acts_as_role {
        let user = identifier(&found.user);
        steps.push(format!("GRANT {role} TO {user}").into());
    }
    if wanted.is_shared() {
        steps.extend(shared_database(wanted, found)?);
    } else {
        own_database(wanted, found.database.as_ref(), &mut steps)?;
    }
    Ok(steps)
}

fn check_role(wanted: &Wanted<'_>, role: &Role) -> Result<(), Refusal> {
    let name = &wanted.spec.role;
    if let Some(why) = &role.privilege {
        return Err(Refusal::privileged(name, why));
    }
    if let Some(other) = &role.member_of {
        return Err(Refusal::privileged(name, &format!("belongs to `{other}`")));
    }
    let comment = format!(
        "COMMENT ON ROLE {} IS {};",
        identifier(name),
        literal(&wanted.mark)
    );
    wanted.is_marked(format!("role `{name}`"), role.mark.as_deref(), comment)?;
    if role.may_log_in {
        return Ok(());
    }
    Err(Refusal::LockedOut {
        role: name.to_string(),
    })
}

/// One that is used by many and not ours; everybody may connect as a rule.
fn shared_database(wanted: &Wanted<'_>, found: &Cluster) -> Result<Option<Step>, Refusal> {
    let name = &wanted.spec.database;
    let Some(database) = &found.database else {
        return Err(Refusal::NoDatabase {
            name: name.to_string(),
        });
    };
    let role = found.role.as_ref();
    let may_connect = role.map_or(database.is_open, |role| role.may_connect);
    let grant = format!(
        "GRANT CONNECT ON DATABASE {} TO {}",
        identifier(name),
        identifier(&wanted.spec.role)
    );
    Ok((!may_connect).then(|| grant.into()))
}

fn own_database(
    wanted: &Wanted<'_>,
    found: Option<&Database>,
    steps: &mut Vec<Step>,
) -> Result<(), Refusal> {
    let (name, role) = (&wanted.spec.database, identifier(&wanted.spec.role));
    let database = identifier(name);
    let comment = format!(
        "COMMENT ON DATABASE {database} IS {}",
        literal(&wanted.mark)
    );
    let close = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC");
    match found {
        None => {
            let create = format!("CREATE DATABASE {database} OWNER {role}");
            steps.push(Step {
                alone: true,
                ..Step::from(create)
            });
            steps.push(comment.into());
            steps.push(close.into());
        }
        Some(Database { place, is_open }) => {
            let adopt = format!("ALTER DATABASE {database} OWNER TO {role};\n{comment};");
            if wanted.takes_over(format!("database `{name}`"), place, adopt)? {
                steps.push(comment.into());
            }
            if *is_open {
                steps.push(close.into());
            }
        }
    }
    Ok(())
}

/// What is missing inside the service's database.
///
/// # Errors
/// What is there and not ours.
pub(super) fn inside(wanted: &Wanted<'_>, found: &Inside) -> Result<Vec<Step>, Refusal> {
    let (name, role) = (&wanted.spec.schema, identifier(&wanted.spec.role));
    let schema = identifier(name);
    let mut steps: Vec<Step> = Vec::new();
    if wanted.is_shared() {
        let comment = format!("COMMENT ON SCHEMA {schema} IS {}", literal(&wanted.mark));
        let lacks_comment = match &found.schema {
            None => {
                steps.push(format!("CREATE SCHEMA {schema} AUTHORIZATION {role}").into());
                true
            }
            Some(place) => {
                let adopt = format!("ALTER SCHEMA {schema} OWNER TO {role};\n{comment};");
                wanted.takes_over(format!("schema `{name}`"), place, adopt)?
            }
        };
        steps.extend(lacks_comment.then(|| Step::from(comment)));
    }
    if found.public_is_open {
        steps.push(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
                .to_owned()
                .into(),
        );
    }
    if !wanted.is_shared() && (!found.may_create || found.public_is_open) {
        steps.push(format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}").into());
    }
    steps.extend(settings(wanted, &found.settings));
    if wanted.is_shared() {
        for reader in &found.readers {
            steps.extend(revoke(wanted, reader));
        }
        steps.extend(shut_routines(wanted, found));
        steps.extend(found.lacking.iter().flat_map(grant));
    }
    Ok(steps)
}

/// What the role's sessions begin with, however they come about.
fn settings(wanted: &Wanted<'_>, known: &[String]) -> Vec<Step> {
    let role = identifier(&wanted.spec.role);
    let database = identifier(&wanted.spec.database);
    let lacking = wanted.settings().into_iter().filter(|(setting, value)| {
        let entry = format!("{setting}={value}");
        // The catalog quotes a name in a path only where it must.
        !known.iter().any(|known| known.replace('"', "") == entry)
    });
    let steps = lacking.map(|(setting, value)| {
        let value = literal(&value);
        Step::from(format!(
            "ALTER ROLE {role} IN DATABASE {database} SET {setting} TO {value}"
        ))
    });
    steps.collect()
}

/// Takes from a reader what was agreed to once; nothing from one that still is.
fn revoke(wanted: &Wanted<'_>, reader: &str) -> Vec<Step> {
    let mut allowed = wanted.spec.shares_with.iter();
    if allowed.any(|neighbour| *neighbour.role == *reader) {
        return Vec::new();
    }
    let (schema, owner) = (&wanted.spec.schema, &wanted.spec.role);
    let (schema, owner) = (identifier(schema), identifier(owner));
    let reader = identifier(reader);
    let statements = [
        format!("REVOKE ALL ON SCHEMA {schema} FROM {reader}"),
        format!("REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {reader}"),
        format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} \
             REVOKE ALL ON TABLES FROM {reader}"
        ),
    ];
    statements.map(Step::from).into()
}

/// Who may look into a schema may call what is in it, unless it is shut: a
/// function that acts as its owner would be a way to write.
fn shut_routines(wanted: &Wanted<'_>, found: &Inside) -> Vec<Step> {
    let owner = identifier(&wanted.spec.role);
    let later = format!(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
    );
    let open = found.open_routines.iter();
    let shut = open.map(|routine| format!("REVOKE EXECUTE ON ROUTINE {routine} FROM PUBLIC"));
    let later = found.routines_open_up.then_some(later);
    shut.chain(later).map(Step::from).collect()
}

fn grant(grant: &Grant) -> Vec<Step> {
    let Grant {
        schema,
        owner,
        reader,
        has_bookkeeping,
    } = grant;
    let (schema, owner) = (identifier(schema), identifier(owner));
    let reader = identifier(reader);
    let mut steps: Vec<Step> = vec![
        format!("GRANT USAGE ON SCHEMA {schema} TO {reader}").into(),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}").into(),
        format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} \
             GRANT SELECT ON TABLES TO {reader}"
        )
        .into(),
    ];
    if *has_bookkeeping {
        steps.push(format!("REVOKE ALL ON {schema}.{TABLE} FROM {reader}").into());
    }
    steps
}

impl Wanted<'_> {
    /// Whether a place of our role lacks only the comment, as when the end came
    /// in between; refuses what is another's.
    fn takes_over(&self, what: String, place: &Place, adopt: String) -> Result<bool, Refusal> {
        let is_own = *place.owner == *self.spec.role;
        if is_own && place.mark.is_none() {
            return Ok(true);
        }
        self.is_marked(what.clone(), place.mark.as_deref(), adopt.clone())?;
        if is_own {
            return Ok(false);
        }
        Err(Refusal::foreign(what, format!("`{}`", place.owner), adopt))
    }
}
