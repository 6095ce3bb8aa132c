//! The bookkeeping: which migrations a schema has.

use tokio_postgres::types::Type;

use super::files::{Checksum, MigrationFile};
use crate::model::DatabaseSpec;
use crate::pg::names::identifier;
use crate::pg::session::{Session, SessionError};

/// The table's name, in the schema of the service.
pub(in crate::pg) const TABLE: &str = "outrigger_migrations";

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) version: i64,
    pub(super) name: String,
    pub(super) checksum: Vec<u8>,
    /// False from the beginning of a file without a transaction to its end.
    pub(super) success: bool,
}

impl Row {
    pub(super) fn is_of(&self, checksum: &Checksum) -> bool {
        self.checksum == checksum
    }
}

/// The table with its schema, quoted.
pub(super) fn full_name(spec: &DatabaseSpec) -> String {
    format!("{}.{TABLE}", identifier(&spec.schema))
}

/// All rows in order of version; none where there is no table yet.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn rows(session: &Session, spec: &DatabaseSpec) -> Result<Vec<Row>, SessionError> {
    let table = full_name(spec);
    let found = session
        .client
        .query_typed(
            "SELECT to_regclass($1) IS NOT NULL",
            &[(&table, Type::TEXT)],
        )
        .await?;
    let exists: bool = found.first().is_some_and(|row| row.get(0));
    if !exists {
        return Ok(Vec::new());
    }
    let query = format!("SELECT version, name, checksum, success FROM {table} ORDER BY version");
    let rows = session.client.query_typed(&query, &[]).await?;
    let rows = rows.into_iter().map(|row| Row {
        version: row.get(0),
        name: row.get(1),
        checksum: row.get(2),
        success: row.get(3),
    });
    Ok(rows.collect())
}

/// Makes the table where there is none; others who may read the service's
/// tables are not shown it.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn create(session: &Session, spec: &DatabaseSpec) -> Result<(), SessionError> {
    let table = full_name(spec);
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (\
         version bigint PRIMARY KEY, \
         name text NOT NULL, \
         checksum bytea NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT now(), \
         duration_ms bigint NOT NULL, \
         success boolean NOT NULL)"
    );
    session.run(&create).await?;
    let readers = "SELECT DISTINCT pg_get_userbyid(a.grantee) \
                   FROM pg_class c, aclexplode(c.relacl) a \
                   WHERE c.oid = to_regclass($1) AND a.grantee NOT IN (0, c.relowner)";
    let readers = session
        .client
        .query_typed(readers, &[(&table, Type::TEXT)])
        .await?;
    for reader in readers {
        let reader = identifier(reader.get(0));
        session
            .run(&format!("REVOKE ALL ON {table} FROM {reader}"))
            .await?;
    }
    Ok(())
}

/// Writes the row of a file; `success` says whether it is done.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn insert(
    session: &Session,
    spec: &DatabaseSpec,
    file: &MigrationFile,
    duration_ms: i64,
    success: bool,
) -> Result<(), SessionError> {
    let statement = format!(
        "INSERT INTO {} (version, name, checksum, duration_ms, success) VALUES ($1, $2, $3, $4, $5)",
        full_name(spec)
    );
    session
        .client
        .execute_typed(
            &statement,
            &[
                (&file.version, Type::INT8),
                (&file.name, Type::TEXT),
                (&file.checksum.as_slice(), Type::BYTEA),
                (&duration_ms, Type::INT8),
                (&success, Type::BOOL),
            ],
        )
        .await?;
    Ok(())
}

/// Marks a file as done, with the text it has now.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn succeed(
    session: &Session,
    spec: &DatabaseSpec,
    file: &MigrationFile,
    duration_ms: i64,
) -> Result<(), SessionError> {
    let statement = format!(
        "UPDATE {} SET success = true, checksum = $2, name = $3, duration_ms = $4, \
         applied_at = now() WHERE version = $1",
        full_name(spec)
    );
    session
        .client
        .execute_typed(
            &statement,
            &[
                (&file.version, Type::INT8),
                (&file.checksum.as_slice(), Type::BYTEA),
                (&file.name, Type::TEXT),
                (&duration_ms, Type::INT8),
            ],
        )
        .await?;
    Ok(())
}

/// Forgets an unfinished file, so that it runs again.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn forget(
    session: &Session,
    spec: &DatabaseSpec,
    version: i64,
) -> Result<(), SessionError> {
    let statement = format!("DELETE FROM {} WHERE version = $1", full_name(spec));
    session
        .client
        .execute_typed(&statement, &[(&version, Type::INT8)])
        .await?;
    Ok(())
}

/// Indexes of the schema that a broken `CREATE INDEX CONCURRENTLY` left.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn invalid_indexes(
    session: &Session,
    spec: &DatabaseSpec,
) -> Result<Vec<String>, SessionError> {
    let query = "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE NOT i.indisvalid AND n.nspname = $1 ORDER BY 1";
    let schema: &str = &spec.schema;
    let rows = session
        .client
        .query_typed(query, &[(&schema, Type::TEXT)])
        .await?;
    Ok(rows.into_iter().map(|row| row.get(0)).collect())
}
