//! Path and method to service and action.

use std::sync::Arc;

use http::Method;

use crate::model::Kind;
use crate::pg::{Database, Databases};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// `POST …/sql`
    Query,
    /// `GET …/db`
    Describe,
    /// `POST …/tx`
    Begin,
    /// `POST …/tx/<id>/sql`
    QueryIn(&'a str),
    /// `POST …/tx/<id>/commit`
    Commit(&'a str),
    /// `POST …/tx/<id>/rollback`
    Rollback(&'a str),
}

impl Action<'_> {
    /// The `Allow` of a 405.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Describe => "GET, HEAD",
            _ => "POST",
        }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|name| name == method.as_str())
    }
}

/// Service (`name` or `domain/name`; empty for the only one) and action.
/// Paths have no other spelling.
pub(super) fn read(path: &str) -> Option<(&str, Action<'_>)> {
    let path = path.strip_prefix('/')?;
    if path.starts_with('/') || path.contains("//") {
        return None;
    }
    let (service, action) = if let Some((before, id)) = tail(path, "sql") {
        (before, Action::QueryIn(id))
    } else if let Some((before, id)) = tail(path, "commit") {
        (before, Action::Commit(id))
    } else if let Some((before, id)) = tail(path, "rollback") {
        (before, Action::Rollback(id))
    } else {
        let (service, last) = path.rsplit_once('/').unwrap_or(("", path));
        let action = match last {
            "sql" => Action::Query,
            "db" => Action::Describe,
            "tx" => Action::Begin,
            _ => return None,
        };
        (service, action)
    };
    (service.split('/').count() <= 2).then_some((service, action))
}

/// `<before>/tx/<id>/<last>`; `before` may be empty.
fn tail<'a>(path: &'a str, last: &str) -> Option<(&'a str, &'a str)> {
    let rest = path.strip_suffix(last)?.strip_suffix('/')?;
    let (rest, id) = rest.rsplit_once('/')?;
    let before = match rest.strip_suffix("/tx") {
        Some(before) => before,
        None if rest == "tx" => "",
        None => return None,
    };
    (!id.is_empty()).then_some((before, id))
}

/// The database of a service by `domain/name`, by a name that is unique among
/// those with a database, or the only one.
pub(super) fn find(databases: &Databases, service: &str) -> Result<Arc<Database>, Kind> {
    if service.is_empty() {
        return databases.only().ok_or(Kind::UnknownService);
    }
    let list = databases.list();
    let is_called = |database: &&Arc<Database>| {
        let name = &database.pool.name;
        name.key() == service || name.name() == service
    };
    let mut found = list.iter().filter(is_called);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(Arc::clone(only)),
        _ => Err(Kind::UnknownService),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        for (path, expected) in [
            ("/sql", Some(("", Action::Query))),
            ("/users/sql", Some(("users", Action::Query))),
            ("/shop/users/db", Some(("shop/users", Action::Describe))),
            ("/users/tx", Some(("users", Action::Begin))),
            ("/users/tx/abc/sql", Some(("users", Action::QueryIn("abc")))),
            (
                "/shop/users/tx/a/commit",
                Some(("shop/users", Action::Commit("a"))),
            ),
            ("/tx/a/rollback", Some(("", Action::Rollback("a")))),
            ("/", None),
            ("/users", None),
            ("/users/sql/", None),
            ("//sql", None),
            ("/a/b/c/sql", None),
            ("/users/tx//sql", None),
        ] {
            assert_eq!(read(path), expected, "{path}");
        }
    }
}
