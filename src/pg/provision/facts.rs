//! What is there already, as the catalogs say it.

use super::Wanted;
use crate::pg::migrate::TABLE;
use crate::pg::names::{MARK, identifier};
use crate::pg::session::{Session, SessionError};

/// The server, the login, and what exists outside the service's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    /// Who asks.
    pub(super) user: String,
    pub(super) is_superuser: bool,
    pub(super) may_create_roles: bool,
    pub(super) max_connections: i32,
    pub(super) role: Option<Role>,
    pub(super) database: Option<Database>,
}

/// The service's role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) mark: Option<String>,
    /// `is a superuser`, …
    pub(super) privilege: Option<String>,
    /// A role it belongs to that would open the boundary.
    pub(super) member_of: Option<String>,
    pub(super) may_log_in: bool,
    /// Whether whoever asks may act as it.
    pub(super) is_ours: bool,
    pub(super) may_connect: bool,
}

/// The service's database, or schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) owner: String,
    pub(super) mark: Option<String>,
}

/// The service's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Database {
    pub(super) place: Place,
    /// Everybody may connect or make temporary tables.
    pub(super) is_open: bool,
}

/// What exists inside the service's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) schema: Option<Place>,
    /// Everybody may create in `public`.
    pub(super) public_is_open: bool,
    /// The role may create in its schema.
    pub(super) may_create: bool,
    /// `name=value` of the role in this database.
    pub(super) settings: Vec<String>,
    /// Roles of other services that may look into the schema.
    pub(super) readers: Vec<String>,
    /// Grants that are wanted and incomplete.
    pub(super) lacking: Vec<Grant>,
    /// Functions of the role that everybody may call, as the server writes them.
    pub(super) open_routines: Vec<String>,
    /// Everybody may call functions that the role makes later.
    pub(super) routines_open_up: bool,
}

/// One role reads the tables of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) schema: String,
    pub(super) owner: String,
    pub(super) reader: String,
    /// Whether the bookkeeping of migrations exists and must stay hidden.
    pub(super) has_bookkeeping: bool,
}

const LOGIN: &str = "SELECT rolname::text, rolsuper, rolcreaterole, \
    current_setting('max_connections')::int FROM pg_roles WHERE rolname = current_user";

/// A role that owns a database belongs to `pg_database_owner` in it, by itself.
const ROLE: &str = "SELECT shobj_description(r.oid, 'pg_authid'), \
    CASE WHEN r.rolsuper THEN 'is a superuser' \
         WHEN r.rolcreaterole THEN 'may create roles' \
         WHEN r.rolcreatedb THEN 'may create databases' \
         WHEN r.rolreplication THEN 'may replicate' \
         WHEN r.rolbypassrls THEN 'bypasses row security' END, \
    (SELECT min(m.rolname::text) FROM pg_roles m \
      WHERE m.oid <> r.oid AND pg_has_role(r.oid, m.oid, 'MEMBER') \
        AND m.rolname <> 'pg_database_owner' \
        AND (m.rolsuper OR m.rolcreaterole OR m.rolcreatedb OR m.rolname LIKE 'pg\\_%' \
             OR shobj_description(m.oid, 'pg_authid') LIKE 'outrigger:%')), \
    r.rolcanlogin, \
    pg_has_role(current_user, r.oid, 'USAGE'), \
    COALESCE((SELECT has_database_privilege(r.oid, d.oid, 'CONNECT') \
                FROM pg_database d WHERE d.datname = $2), false) \
    FROM pg_roles r WHERE r.rolname = $1";

const DATABASE: &str = "SELECT pg_get_userbyid(datdba)::text, \
    shobj_description(oid, 'pg_database'), \
    has_database_privilege('public', oid, 'CONNECT') \
    OR has_database_privilege('public', oid, 'TEMPORARY') \
    FROM pg_database WHERE datname = $1";

const SCHEMA: &str = "SELECT pg_get_userbyid(nspowner)::text, obj_description(oid, 'pg_namespace'), \
    COALESCE((SELECT has_schema_privilege(r.oid, n.oid, 'CREATE') \
                FROM pg_roles r WHERE r.rolname = $2), false) \
    FROM pg_namespace n WHERE nspname = $1";

const PUBLIC: &str = "SELECT has_schema_privilege('public', oid, 'CREATE') \
    FROM pg_namespace WHERE nspname = 'public'";

const SETTINGS: &str = "SELECT unnest(s.setconfig) FROM pg_db_role_setting s \
    JOIN pg_roles r ON r.oid = s.setrole JOIN pg_database d ON d.oid = s.setdatabase \
    WHERE r.rolname = $1 AND d.datname = current_database()";

const READERS: &str = "SELECT DISTINCT r.rolname::text \
    FROM pg_namespace n, aclexplode(n.nspacl) a, pg_roles r \
    WHERE n.nspname = $1 AND r.oid = a.grantee AND r.oid <> n.nspowner \
    AND starts_with(shobj_description(r.oid, 'pg_authid'), $2) ORDER BY 1";

/// Those of extensions are another's.
const ROUTINES: &str = "SELECT p.oid::regprocedure::text \
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles r ON r.oid = p.proowner \
    WHERE n.nspname = $1 AND r.rolname = $2 AND has_function_privilege('public', p.oid, 'EXECUTE') \
    ORDER BY 1";

/// Without an entry, what is made is everybody's to call.
const LATER_ROUTINES: &str = "SELECT NOT EXISTS (SELECT FROM pg_default_acl d \
    WHERE d.defaclrole = r.oid AND d.defaclnamespace = 0 AND d.defaclobjtype = 'f' \
    AND NOT EXISTS (SELECT FROM aclexplode(d.defaclacl) a WHERE a.grantee = 0)) \
    FROM pg_roles r WHERE r.rolname = $1";

const GRANT: &str = "SELECT to_regclass($4) IS NOT NULL, \
    has_schema_privilege(r.oid, n.oid, 'USAGE') \
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid \
        AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND c.relname <> $5 \
        AND NOT has_table_privilege(r.oid, c.oid, 'SELECT')) \
    AND EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a \
        WHERE d.defaclnamespace = n.oid AND d.defaclrole = n.nspowner \
        AND d.defaclobjtype = 'r' AND a.grantee = r.oid AND a.privilege_type = 'SELECT') \
    FROM pg_namespace n, pg_roles r, pg_roles o \
    WHERE n.nspname = $1 AND o.rolname = $2 AND n.nspowner = o.oid AND r.rolname = $3";

/// Looks around in the agreed database.
pub(super) async fn cluster(
    session: &Session,
    wanted: &Wanted<'_>,
) -> Result<Cluster, SessionError> {
    let (role, database) = (&*wanted.spec.role, &*wanted.spec.database);
    let mut found = Cluster::default();
    for row in session.texts(LOGIN, &[]).await? {
        found.user = row.get(0);
        found.is_superuser = row.get(1);
        found.may_create_roles = row.get::<_, bool>(2) || found.is_superuser;
        found.max_connections = row.get(3);
    }
    for row in session.texts(ROLE, &[role, database]).await? {
        found.role = Some(Role {
            mark: row.get(0),
            privilege: row.get(1),
            member_of: row.get(2),
            may_log_in: row.get(3),
            is_ours: row.get(4),
            may_connect: row.get(5),
        });
    }
    for row in session.texts(DATABASE, &[database]).await? {
        found.database = Some(Database {
            place: Place {
                owner: row.get(0),
                mark: row.get(1),
            },
            is_open: row.get(2),
        });
    }
    Ok(found)
}

/// Looks around in the service's database.
pub(super) async fn inside(session: &Session, wanted: &Wanted<'_>) -> Result<Inside, SessionError> {
    let (role, schema) = (&*wanted.spec.role, &*wanted.spec.schema);
    let mut found = Inside::default();
    for row in session.texts(SCHEMA, &[schema, role]).await? {
        found.schema = Some(Place {
            owner: row.get(0),
            mark: row.get(1),
        });
        found.may_create = row.get(2);
    }
    for row in session.texts(PUBLIC, &[]).await? {
        found.public_is_open = row.get(0);
    }
    for row in session.texts(SETTINGS, &[role]).await? {
        found.settings.push(row.get(0));
    }
    if !wanted.is_shared() {
        return Ok(found);
    }
    for row in session.texts(READERS, &[schema, MARK]).await? {
        found.readers.push(row.get(0));
    }
    if !wanted.spec.shares_with.is_empty() {
        for row in session.texts(ROUTINES, &[schema, role]).await? {
            found.open_routines.push(row.get(0));
        }
        for row in session.texts(LATER_ROUTINES, &[role]).await? {
            found.routines_open_up = row.get(0);
        }
    }
    for (schema, owner, reader) in wanted.grants() {
        let table = format!("{}.{TABLE}", identifier(schema));
        // Either side may not be there yet: whoever comes second grants.
        for row in session
            .texts(GRANT, &[schema, owner, reader, &table, TABLE])
            .await?
        {
            if !row.get::<_, bool>(1) {
                found.lacking.push(Grant {
                    schema: schema.to_owned(),
                    owner: owner.to_owned(),
                    reader: reader.to_owned(),
                    has_bookkeeping: row.get(0),
                });
            }
        }
    }
    Ok(found)
}
