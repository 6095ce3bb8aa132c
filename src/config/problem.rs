//! What is wrong with a file, said so that a person can mend it.

use std::fmt;

use crate::model::{Origin, ServiceName};

/// Whether a problem stops the thing it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The service keeps its last good version.
    Error,
    /// Said, but nothing is refused (`check --strict` fails).
    Warning,
}

/// One thing wrong with a file, the environment or the tree.
///
/// Prints as `path:line:column: key: message`, and `hint: …` on a line of its
/// own; the severity is for whoever prints it. Neither text ever holds the value of a secret or of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// The service it belongs to, if it belongs to one.
    pub service: Option<ServiceName>,
    /// Where to look.
    pub origin: Origin,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// An error without a hint.
    pub fn error(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            service: None,
            origin,
            message: message.into(),
            hint: None,
        }
    }

    /// A warning without a hint.
    pub fn warning(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(origin, message)
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, belonging to a service.
    #[must_use]
    pub fn of(mut self, service: &ServiceName) -> Self {
        self.service = Some(service.clone());
        self
    }

    /// Whether it stops the thing it belongs to.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.to_string();
        if !origin.is_empty() {
            write!(formatter, "{origin}: ")?;
        }
        formatter.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(formatter, "\nhint: {hint}")?;
        }
        Ok(())
    }
}
