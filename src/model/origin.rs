//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

/// The place in a file that a value or a problem belongs to.
///
/// Prints as `path:line:column: key`, leaving out what is unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin {
    /// The file, as a person would type it; empty for the environment.
    pub file: PathBuf,
    /// 1-based line, 0 when unknown.
    pub line: u32,
    /// 1-based column in characters, 0 when unknown.
    pub column: u32,
    /// Dotted key path such as `auth.jwt.algorithms[0]`; empty for the whole file.
    pub key: String,
}

impl Origin {
    /// A whole file.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if !self.file.as_os_str().is_empty() {
            write!(formatter, "{}", self.file.display())?;
            if self.line > 0 {
                write!(formatter, ":{}", self.line)?;
                if self.column > 0 {
                    write!(formatter, ":{}", self.column)?;
                }
            }
            separator = ": ";
        }
        if !self.key.is_empty() {
            write!(formatter, "{separator}{}", self.key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_only_what_is_known() {
        let mut origin = Origin::file("services/a.yaml");
        assert_eq!(origin.to_string(), "services/a.yaml");
        origin.line = 7;
        origin.column = 5;
        origin.key = "auth.jwt".to_owned();
        assert_eq!(origin.to_string(), "services/a.yaml:7:5: auth.jwt");
        assert_eq!(
            Origin {
                key: "OUTRIGGER_X".into(),
                ..Origin::default()
            }
            .to_string(),
            "OUTRIGGER_X"
        );
    }
}
