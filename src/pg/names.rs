//! Names and keys in a cluster on which every process must agree.

use aws_lc_rs::digest::{SHA256, digest};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use crate::model::{DatabaseSpec, ServiceName};

/// Begins the comment of everything that was made by us.
pub(super) const MARK: &str = "outrigger:";
/// Longest name; PostgreSQL cuts longer ones off with only a NOTICE.
const MAX_NAME: usize = 63;

/// The comment of what belongs to a service.
pub(super) fn mark(service: &ServiceName) -> String {
    format!("{MARK}{service}")
}

/// What sessions of a service call themselves: `outrigger/<domain>/<service>`.
pub(super) fn application_name(service: &ServiceName) -> String {
    let mut name = format!("outrigger/{service}");
    // ASCII by the grammar of names.
    name.truncate(MAX_NAME);
    name
}

/// Where unqualified names of a service are looked for: its own schema and
/// nowhere else, so that nobody's objects stand in for its own.
pub(super) fn search_path(spec: &DatabaseSpec) -> String {
    identifier(&spec.schema)
}

/// The advisory lock that whoever changes roles and databases holds, in the
/// agreed database.
pub(super) fn provision_lock() -> i64 {
    lock_key("outrigger:provision:v1")
}

/// The advisory lock that whoever migrates a schema holds, in its database.
pub(super) fn migration_lock(spec: &DatabaseSpec) -> i64 {
    let DatabaseSpec {
        database, schema, ..
    } = spec;
    // No name holds a line break.
    lock_key(&format!("outrigger:migrate:v1\n{database}\n{schema}"))
}

fn lock_key(text: &str) -> i64 {
    let digest = digest(&SHA256, text.as_bytes());
    let mut bytes = [0; 8];
    for (byte, digested) in bytes.iter_mut().zip(digest.as_ref()) {
        *byte = *digested;
    }
    i64::from_be_bytes(bytes)
}

/// A name, quoted.
pub(super) fn identifier(name: &str) -> String {
    escape_identifier(name)
}

/// A string, quoted.
pub(super) fn literal(text: &str) -> String {
    escape_literal(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_stable_and_differ() {
        // Processes of different versions must meet at the same lock.
        assert_eq!(provision_lock(), lock_key("outrigger:provision:v1"));
        assert_ne!(lock_key("a\nb"), lock_key("ab\n"));
        assert_eq!(
            lock_key(""),
            i64::from_be_bytes([0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14])
        );
    }

    #[test]
    fn quoting_holds_whatever_is_in_between() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        let name = ServiceName::new(&"d".repeat(63), &"s".repeat(63)).expect("valid");
        assert_eq!(application_name(&name).len(), MAX_NAME);
    }
}
