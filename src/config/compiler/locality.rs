//! Which services this process fronts.

use std::collections::BTreeSet;

use super::Role;
use crate::config::problem::Problem;
use crate::config::process::LoadedProcess;
use crate::config::source::Place;
use crate::config::suggest;
use crate::config::tree::Tree;
use crate::model::ServiceName;

/// The local services of a tree.
pub(super) struct Locality {
    /// `None` = all.
    local: Option<BTreeSet<ServiceName>>,
    count: usize,
    problems: Vec<Problem>,
}

impl Locality {
    /// Looks the listed names up; those that are unknown or not unique are
    /// errors of the process.
    pub(super) fn new(tree: &Tree, process: &LoadedProcess) -> Self {
        let settings = &process.settings;
        if settings.disabled {
            return Self {
                local: Some(BTreeSet::new()),
                count: 0,
                problems: Vec::new(),
            };
        }
        let Some(listed) = &settings.local else {
            return Self {
                local: None,
                count: tree.files.len(),
                problems: Vec::new(),
            };
        };
        let place = match &process.defaults.framework.local {
            Some((variable, _)) if !process.defaults.local_from_flag => {
                Place::Environment((*variable).into())
            }
            _ => Place::Flag("--service"),
        };
        let mut local = BTreeSet::new();
        let mut problems = Vec::new();
        for wanted in listed {
            let found: Vec<&ServiceName> = tree
                .files
                .iter()
                .map(|file| &file.name)
                .filter(|name| name.key() == &**wanted || name.name() == &**wanted)
                .collect();
            match found.as_slice() {
                [only] => {
                    local.insert((*only).clone());
                }
                [] => {
                    let mut problem = Problem::error(
                        place.origin(""),
                        format!("no service `{wanted}` in {}", tree.root.display()),
                    );
                    let names: BTreeSet<&str> =
                        tree.files.iter().map(|file| file.name.name()).collect();
                    problem.hint = suggest::hint(wanted, names);
                    problems.push(problem);
                }
                [first, ..] => problems.push(
                    Problem::error(
                        place.origin(""),
                        format!("several services are called `{wanted}`"),
                    )
                    .hint(format!("write `{first}`")),
                ),
            }
        }
        Self {
            count: local.len(),
            local: Some(local),
            problems,
        }
    }

    /// What a service is to this process.
    pub(super) fn role(&self, name: &ServiceName) -> Role {
        let is_local = self.local.as_ref().is_none_or(|local| local.contains(name));
        Role {
            is_local,
            is_only_local: is_local && self.count == 1,
        }
    }

    /// Names that fit no service, and variables that mean one service where
    /// there are several.
    pub(super) fn problems(&self, process: &LoadedProcess) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        let framework = &process.defaults.framework;
        if self.count > 1 {
            let variables = [
                ("SERVICE_PORT", framework.service_port.is_some()),
                ("SERVICE_DEPENDENCIES", !framework.dependencies.is_empty()),
            ];
            for (variable, is_set) in variables {
                if is_set {
                    problems.push(
                        Problem::warning(
                            Place::Environment(variable.into()).origin(""),
                            format!(
                                "is ignored: it means one service, and {} are fronted here",
                                self.count
                            ),
                        )
                        .hint("set SERVICE_NAME to the one that is meant"),
                    );
                }
            }
        }
        problems
    }
}
