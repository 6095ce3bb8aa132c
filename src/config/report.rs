//! Collects what is wrong with one file while it is compiled.

use std::sync::Arc;

use super::problem::{Problem, Severity};
use super::source::{Place, Places};
use crate::model::{Origin, ServiceName};

/// The problems of one file, each placed by its key.
#[derive(Debug)]
pub(super) struct Report {
    service: Option<ServiceName>,
    places: Arc<Places>,
    problems: Vec<Problem>,
}

impl Report {
    /// An empty report about the file with these places.
    pub(super) fn new(service: Option<&ServiceName>, places: Arc<Places>) -> Self {
        Self {
            service: service.cloned(),
            places,
            problems: Vec::new(),
        }
    }

    /// An error at a key, unless the key's value is a reference nobody read.
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        self.add(Severity::Error, key, message.into(), None);
    }

    /// An error and what to do about it.
    pub(super) fn error_hint(
        &mut self,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, key, message.into(), Some(hint.into()));
    }

    /// A warning at a key.
    pub(super) fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.add(Severity::Warning, key, message.into(), None);
    }

    /// A warning and what to do about it.
    pub(super) fn warn_hint(
        &mut self,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, key, message.into(), Some(hint.into()));
    }

    /// An error that belongs to an environment variable.
    pub(super) fn environment(&mut self, name: &str, message: impl Into<String>) {
        let origin = Place::Environment(name.into()).origin("");
        self.push(Problem::error(origin, message));
    }

    /// A problem that is placed already.
    pub(super) fn push(&mut self, mut problem: Problem) {
        problem.service.clone_from(&self.service);
        self.problems.push(problem);
    }

    /// Whether anything so far is an error.
    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    /// Where a key stands.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.places.nearest(key).origin(key)
    }

    /// A value of the key for a message: quoted, unless it came from a reference.
    pub(super) fn shown(&self, key: &str, text: &str) -> String {
        if self.places.is_resolved(key) {
            "of the reference".to_owned()
        } else {
            let text: String = text.chars().take(80).collect();
            format!("`{text}`")
        }
    }

    /// The places of the file.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// What was reported.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn add(&mut self, severity: Severity, key: &str, message: String, hint: Option<String>) {
        if self.places.is_unknown(key) {
            return;
        }
        self.problems.push(Problem {
            severity,
            service: self.service.clone(),
            origin: self.origin(key),
            message,
            hint,
        });
    }
}
