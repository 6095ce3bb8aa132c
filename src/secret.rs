//! Values that must never be printed.

use std::fmt;

use zeroize::Zeroizing;

/// A secret byte string: keys, passwords, tokens.
///
/// `Debug` prints a mask, there is no `Display` and no `Serialize`, and the
/// bytes are wiped when the value is dropped. [`Secret::expose`] is the one way
/// to the bytes, so a reader can find every place that handles them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves. Compare them with [`Secret::matches`] only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends only on the lengths.
    pub fn matches(&self, other: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, other).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_bytes() {
        let secret = Secret::new("swordfish");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert!(secret.matches(b"swordfish"));
        assert!(!secret.matches(b"swordfisH"));
        assert!(!secret.matches(b"swordfish2"));
    }
}
