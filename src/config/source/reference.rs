//! `${env:NAME}`, `${env:NAME:-default}`, `${file:path}` and `$${`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::{Bounds, FileFault, Files, Loaded};
use super::node::{Node, Provenance, Value, join};
use crate::config::problem::Problem;
use crate::config::process::Environment;

/// Who wrote the text with the references: decides what they may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The process's own file sees everything.
    Process,
    /// A service's file never sees `OUTRIGGER_…`, and the variables of the
    /// administrative database login only inside `database` (SPEC §12).
    Service,
}

/// What a reference to something that is not there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Error,
    /// It counts as present (`--no-secrets`), or the lack is no error (peers).
    Tolerated,
}

/// Variables that hold or lead to the administrative database login.
const DATABASE_VARIABLES: [&str; 12] = [
    "DATABASE_URL",
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_DB",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "DB_HOST",
    "DB_PORT",
    "DB_DATABASE",
    "DB_USERNAME",
    "DB_PASSWORD",
    "PGPASSWORD",
];

/// Resolves the references of one tree.
pub(crate) struct Resolver<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) reader: Reader,
    pub(crate) missing: Missing,
    /// Relative paths start here.
    pub(crate) folder: &'a Path,
    pub(crate) bounds: &'a Bounds,
    pub(crate) files: &'a mut Files,
    /// Files that were named, with what reading them gave.
    pub(crate) read: BTreeMap<PathBuf, Loaded>,
    /// Variables that were named, whether they are set or not.
    pub(crate) variables: BTreeSet<String>,
    /// Those of them that were named in the login of a database.
    pub(crate) login_variables: BTreeSet<String>,
    pub(crate) problems: Vec<Problem>,
}

/// Why a reference has no value.
struct Unresolved {
    message: String,
    hint: Option<String>,
    /// Whether a tolerant reader may go on without it.
    absent: bool,
}

impl Resolver<'_> {
    /// Replaces every reference in the tree by its value.
    pub(crate) fn resolve(&mut self, node: &mut Node, key: &str) {
        match &mut node.value {
            Value::Null => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.resolve(item, &format!("{key}[{index}]"));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.resolve(&mut entry.node, &join(key, &entry.key));
                }
            }
            Value::Scalar(scalar) if scalar.text.contains("${") => {
                match self.text(&scalar.text, key) {
                    Ok((text, provenance)) => {
                        scalar.text = text;
                        if provenance != Provenance::Written {
                            scalar.plain = true;
                        }
                        scalar.provenance = provenance;
                    }
                    Err(unresolved) => {
                        scalar.text = String::new();
                        scalar.provenance = Provenance::Unknown;
                        if !unresolved.absent || self.missing == Missing::Error {
                            let mut problem =
                                Problem::error(node.place.origin(key), unresolved.message);
                            problem.hint = unresolved.hint;
                            self.problems.push(problem);
                        }
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }

    fn text(&mut self, text: &str, key: &str) -> Result<(String, Provenance), Unresolved> {
        let mut resolved = String::with_capacity(text.len());
        let mut provenance = Provenance::Written;
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(literal) = before.strip_suffix('$') {
                resolved.push_str(literal);
                resolved.push_str("${");
                rest = from.get(2..).unwrap_or_default();
                continue;
            }
            resolved.push_str(before);
            let Some(end) = from.find('}') else {
                return Err(malformed("a reference is not closed"));
            };
            let body = from.get(2..end).unwrap_or_default();
            provenance = Provenance::Resolved;
            resolved.push_str(&self.reference(body, key)?);
            rest = from.get(end + 1..).unwrap_or_default();
        }
        resolved.push_str(rest);
        Ok((resolved, provenance))
    }

    fn reference(&mut self, body: &str, key: &str) -> Result<String, Unresolved> {
        match body.split_once(':') {
            Some(("env", rest)) => {
                let (name, default) = match rest.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (rest, None),
                };
                self.variable(name, default, key)
            }
            Some(("file", path)) => self.file(path),
            _ => {
                let mut unresolved = malformed("not a reference");
                if is_variable_name(body) {
                    unresolved.hint = Some(format!("write `${{env:{body}}}`"));
                }
                Err(unresolved)
            }
        }
    }

    fn variable(
        &mut self,
        name: &str,
        default: Option<&str>,
        key: &str,
    ) -> Result<String, Unresolved> {
        if !is_variable_name(name) {
            return Err(malformed("not the name of a variable"));
        }
        self.variables.insert(name.to_owned());
        if matches!(key, "database.url" | "database.password") {
            self.login_variables.insert(name.to_owned());
        }
        if self.reader == Reader::Service {
            if name.starts_with("OUTRIGGER_") {
                return Err(forbidden(
                    format!("`{name}` belongs to the process; a service's file cannot read it"),
                    None,
                ));
            }
            let inside = key == "database" || key.starts_with("database.");
            if DATABASE_VARIABLES.contains(&name) && !inside {
                return Err(forbidden(
                    format!("`{name}` can be read only inside `database`"),
                    None,
                ));
            }
        }
        match (self.environment.get(name), default) {
            (Some(value), _) if !value.is_empty() => Ok(value.to_owned()),
            (_, Some(default)) => Ok(default.to_owned()),
            (set, None) => {
                let what = if set.is_some() {
                    "set but empty"
                } else {
                    "not set"
                };
                let mut absent = absent(format!("`{name}` is {what}"));
                absent.hint = Some("set it in the environment of this process".to_owned());
                Err(absent)
            }
        }
    }

    fn file(&mut self, path: &str) -> Result<String, Unresolved> {
        if path.is_empty() {
            return Err(malformed("names no file"));
        }
        let path = self.folder.join(path);
        let loaded = self.files.load(&path, self.bounds);
        self.read.insert(path.clone(), loaded.clone());
        let shown = path.display();
        let bytes = match loaded {
            Ok(bytes) => bytes,
            Err(FileFault::OutOfBounds) => {
                return Err(forbidden(
                    format!("`{shown}` {}", FileFault::OutOfBounds),
                    Some("put it below the service's folder or one of `secretsDirs`".to_owned()),
                ));
            }
            Err(fault) => return Err(absent(format!("`{shown}` {fault}"))),
        };
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| absent(format!("`{shown}` is not UTF-8 text")))?;
        let text = text
            .strip_suffix("\r\n")
            .or_else(|| text.strip_suffix('\n'))
            .unwrap_or(text);
        if text.is_empty() {
            return Err(absent(format!("`{shown}` is empty")));
        }
        Ok(text.to_owned())
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn malformed(message: &str) -> Unresolved {
    Unresolved {
        message: format!("{message}: references are `${{env:NAME}}` and `${{file:path}}`"),
        hint: Some("a literal `${` is written `$${`".to_owned()),
        absent: false,
    }
}

fn forbidden(message: String, hint: Option<String>) -> Unresolved {
    Unresolved {
        message,
        hint,
        absent: false,
    }
}

fn absent(message: String) -> Unresolved {
    Unresolved {
        message,
        hint: None,
        absent: true,
    }
}
