//! Service identity.

use std::fmt;
use std::sync::Arc;

/// `domain/name` of a service; the folder path is the identity (SPEC §1.1).
///
/// Cheap to clone; ordered by `domain/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    key: Arc<str>,
    slash: usize,
}

/// Why a text is no service or domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit")]
pub struct InvalidName(pub String);

impl ServiceName {
    /// Domain given to `services/<service>/…`, which has no domain folder.
    pub const DEFAULT_DOMAIN: &'static str = "default";

    /// Both parts must match `[a-z0-9][a-z0-9-]{0,62}`.
    pub fn new(domain: &str, name: &str) -> Result<Self, InvalidName> {
        for part in [domain, name] {
            if !Self::is_valid_part(part) {
                return Err(InvalidName(part.to_owned()));
            }
        }
        Ok(Self {
            key: format!("{domain}/{name}").into(),
            slash: domain.len(),
        })
    }

    /// Whether `part` may be a domain or a service name.
    pub fn is_valid_part(part: &str) -> bool {
        let bytes = part.as_bytes();
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.len() <= 63
            && bytes.first().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
    }

    /// `domain/name`, the key and the `service` label of metrics.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key, shared.
    pub fn shared_key(&self) -> Arc<str> {
        Arc::clone(&self.key)
    }

    /// The domain alone.
    pub fn domain(&self) -> &str {
        self.key.split_at(self.slash).0
    }

    /// The bare service name.
    pub fn name(&self) -> &str {
        self.key.split_at(self.slash).1.trim_start_matches('/')
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let name = ServiceName::new("ecommerce", "users").expect("valid");
        assert_eq!((name.domain(), name.name()), ("ecommerce", "users"));
        assert_eq!(name.key(), "ecommerce/users");
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        let long = "a".repeat(64);
        for bad in ["", "-a", "A", "a_b", "a/b", "a.b", "ä", long.as_str()] {
            assert!(ServiceName::new("default", bad).is_err(), "{bad}");
            assert!(ServiceName::new(bad, "users").is_err(), "{bad}");
        }
        assert!(ServiceName::new("default", &"a".repeat(63)).is_ok());
    }
}
