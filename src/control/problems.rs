//! What is kept out of force, said so that a person can mend it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::force::Refusal;
use super::omission::Opening;
use super::reconcile::{Reconciler, Why};
use crate::config::{Compilation, Compiled, Problem, Tree};
use crate::model::{Origin, ServiceName};
use crate::net::BindError;

/// Offset of the app's port where none is set (CONFIG.md `upstream`).
const APP_PORT_OFFSET: u16 = 10_000;

impl Reconciler {
    /// What stands between the files and what is in force.
    pub(super) fn problems(&self, compilation: &Compilation, tree: &Tree) -> Vec<Problem> {
        let files: BTreeMap<&ServiceName, &PathBuf> = tree
            .files
            .iter()
            .map(|file| (&file.name, &file.shown))
            .collect();
        let at = |name: &ServiceName, key: &str| origin_of(name, key, compilation, &files);
        let mut problems = Vec::new();
        for (name, how) in &self.opening {
            let (message, hint) = match how {
                Opening::Silent => (
                    "would be open to everyone: the version in force asks for \
                     authentication, this one says nothing",
                    "write `strategy: none` to open it",
                ),
                Opening::Cut => (
                    "looks cut off: it is the beginning of the version in force, \
                     without lines that keep callers out",
                    "if they were removed on purpose, end the file with a comment",
                ),
            };
            let problem = Problem::error(at(name, "auth"), message);
            problems.push(problem.hint(hint).of(name));
        }
        for (name, refused) in &self.refused {
            let problem = match &refused.why {
                Why::Build(message) => Problem::error(at(name, ""), message.clone()),
                // Of two files that want one port both were told when compiled.
                Why::Commit(Refusal::Clash(clash)) if is_told(name, clash.key, compilation) => {
                    continue;
                }
                Why::Commit(Refusal::Clash(clash)) => {
                    Problem::error(at(name, clash.key), clash.message.clone())
                }
                Why::Commit(Refusal::Bind(error)) => {
                    Problem::error(at(name, "port"), bind_message(error))
                }
                Why::Commit(Refusal::Exit(error)) => {
                    let message = format!("a `localPort` cannot be had: {error}");
                    Problem::error(at(name, "dependencies"), message)
                }
                Why::Commit(Refusal::Door(error)) => {
                    let message = format!("the door for calls cannot be had: {error}");
                    let problem = Problem::error(at(name, "dependencies"), message);
                    problem.hint("another process has it: set `outbound.listen`")
                }
            };
            problems.push(problem.of(name));
        }
        problems
    }
}

/// Whether compiling found the key to be wrong.
fn is_told(name: &ServiceName, key: &str, compilation: &Compilation) -> bool {
    let of_key = |problem: &&Problem| {
        problem.is_error() && problem.service.as_ref() == Some(name) && problem.origin.key == key
    };
    compilation.problems.iter().any(|problem| of_key(&problem))
}

/// Where a key of a service's file stands, as far as it is known.
fn origin_of(
    name: &ServiceName,
    key: &str,
    compilation: &Compilation,
    files: &BTreeMap<&ServiceName, &PathBuf>,
) -> Origin {
    let file = files
        .get(name)
        .map(|path| path.to_path_buf())
        .unwrap_or_default();
    let mut origin = Origin {
        key: key.to_owned(),
        ..Origin::file(&file)
    };
    let Some(Compiled::Local(local)) = compilation.services.get(name) else {
        return origin;
    };
    let value = local.effective.iter().find(|value| value.key == key);
    let place = value.and_then(|value| value.origin.strip_prefix(&*file.to_string_lossy()));
    let mut numbers = place.unwrap_or_default().split(':').skip(1);
    let mut number = || {
        numbers
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    origin.line = number();
    origin.column = number();
    origin
}

fn bind_message(error: &BindError) -> String {
    match error {
        BindError::InUse(port) => match port.checked_add(APP_PORT_OFFSET) {
            Some(app) => format!(
                "{error} (perhaps the app itself: start it with PORT={app}, or set `upstream`)"
            ),
            None => format!("{error} (perhaps the app itself: set `upstream`)"),
        },
        BindError::Other { source, .. } => format!("{error}: {source}"),
        BindError::Denied(_) => error.to_string(),
    }
}
