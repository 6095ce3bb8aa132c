//! SQL by which one service would get at another's place.

/// What they may be answered with: no privilege; not to be seen, so not there;
/// not to be had at all; not outside, or not within, a transaction.
pub(crate) const REFUSALS: [&str; 8] = [
    "42501", "42P01", "3F000", "0A000", "42602", "58P01", "25P01", "25001",
];

/// Statements of the role <own>, of a service with a table `users`, against the
/// schema and role <other>, in the database <base> of the superuser <admin>. Whatever
/// comes before the last of each list may be allowed; the last is not.
const LISTS: &[&[&str]] = &[
    &["SELECT * FROM <other>.orders"],
    &["SET search_path = <other>", "SELECT * FROM orders"],
    &[
        "SELECT set_config('role', 'none', false), set_config('search_path', 'public', false)",
        "SELECT * FROM <other>.orders",
    ],
    &["INSERT INTO <other>.orders VALUES (8, 1)"],
    &["UPDATE <other>.orders SET user_id = 2"],
    &["DELETE FROM <other>.orders"],
    &["TRUNCATE <other>.orders"],
    &["DROP TABLE <other>.orders"],
    &["CREATE TABLE <other>.mine (x int)"],
    &["CREATE TABLE public.mine (x int)"],
    &["DROP SCHEMA <other> CASCADE"],
    &["ALTER SCHEMA <other> RENAME TO stolen"],
    &["CREATE SCHEMA mine"],
    &["SET ROLE <other>"],
    &["SET ROLE <admin>"],
    &["SELECT set_config('role', '<other>', false)"],
    &["SET SESSION AUTHORIZATION <other>"],
    &["SET SESSION AUTHORIZATION <admin>"],
    &[
        "RESET ROLE",
        "RESET SESSION AUTHORIZATION",
        "RESET ALL",
        "SELECT * FROM <other>.orders",
    ],
    &["DO $$ BEGIN EXECUTE 'SELECT * FROM <other>.orders'; END $$"],
    &["DO $$ BEGIN EXECUTE 'SET ROLE <other>'; END $$"],
    &[
        "CREATE FUNCTION spy() RETURNS bigint LANGUAGE sql SECURITY DEFINER \
       AS 'SELECT count(*) FROM <other>.orders'",
    ],
    &[
        "CREATE OR REPLACE FUNCTION late() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER \
         AS $$ BEGIN RETURN (SELECT count(*) FROM <other>.orders); END $$",
        "SELECT late()",
    ],
    &["CREATE VIEW spy AS SELECT * FROM <other>.orders"],
    &["CREATE TABLE mine (x int REFERENCES <other>.orders)"],
    &["COPY users TO PROGRAM 'cat > /tmp/users'"],
    &["COPY users FROM PROGRAM 'id'"],
    &["COPY users TO '/tmp/users'"],
    &["COPY users FROM '/etc/passwd'"],
    &["COPY <other>.orders TO STDOUT"],
    &["SELECT pg_read_file('/etc/passwd')"],
    &["SELECT lo_import('/etc/passwd')"],
    &["SELECT * FROM pg_authid"],
    &["CREATE ROLE mine"],
    &["ALTER ROLE <other> PASSWORD 'mine'"],
    &["ALTER ROLE <own> SUPERUSER"],
    &["ALTER ROLE <own> CREATEROLE"],
    &["GRANT <other> TO <own>"],
    &["GRANT USAGE ON SCHEMA <other> TO <own>"],
    &["CREATE DATABASE mine"],
    &["ALTER DATABASE <base> SET search_path = mine"],
    &["COMMENT ON ROLE <other> IS 'mine'"],
    &["ALTER DEFAULT PRIVILEGES FOR ROLE <other> GRANT ALL ON TABLES TO PUBLIC"],
    &["BEGIN", "LOCK TABLE <other>.orders"],
    &["ALTER SYSTEM SET log_statement = 'none'"],
    &["SET log_statement = 'none'"],
    &["SET session_replication_role = 'replica'"],
    &["CREATE EXTENSION dblink"],
    &["CREATE EXTENSION file_fdw"],
    &["LOAD '/tmp/anything.so'"],
];

/// The lists for these names.
pub(crate) fn breakouts(own: &str, other: &str, base: &str, admin: &str) -> Vec<Vec<String>> {
    let names = [
        ("<own>", own),
        ("<other>", other),
        ("<base>", base),
        ("<admin>", admin),
    ];
    let filled = |sql: &&str| {
        let mut sql = (*sql).to_owned();
        for (mark, name) in names {
            sql = sql.replace(mark, name);
        }
        sql
    };
    let lists = LISTS.iter();
    lists
        .map(|list| list.iter().map(filled).collect())
        .collect()
}
