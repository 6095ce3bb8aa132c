//! Authentication decisions: (strategy, result, reason) → small index, filled
//! as combinations are first seen. All parts are fixed words of the program, so
//! the table is small and a scan that compares pointers first is a few loads.

use std::sync::OnceLock;

/// Distinct combinations told apart; more share the last slot.
pub(super) const KEYS: usize = 96;

/// What an authenticator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResult {
    Allowed,
    Denied,
    /// The decision could not be made: hook down, no keys yet.
    Unavailable,
}

impl AuthResult {
    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One combination.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthKey {
    pub(super) strategy: &'static str,
    pub(super) result: AuthResult,
    pub(super) reason: &'static str,
}

impl AuthKey {
    fn is(&self, other: &Self) -> bool {
        self.result == other.result
            && same(self.reason, other.reason)
            && same(self.strategy, other.strategy)
    }
}

fn same(left: &'static str, right: &'static str) -> bool {
    std::ptr::eq(left, right) || left == right
}

/// The table, one for the whole process.
#[derive(Debug)]
pub(super) struct AuthKeys {
    slots: [OnceLock<AuthKey>; KEYS],
}

impl AuthKeys {
    pub(super) fn new() -> Self {
        Self {
            slots: [const { OnceLock::new() }; KEYS],
        }
    }

    /// Index of a combination; takes a free slot the first time.
    pub(super) fn index(&self, key: &AuthKey) -> usize {
        for (index, slot) in self.slots.iter().take(KEYS - 1).enumerate() {
            if slot.get_or_init(|| *key).is(key) {
                return index;
            }
        }
        KEYS - 1
    }

    /// The combination behind an index that was counted.
    pub(super) fn key(&self, index: usize) -> AuthKey {
        self.slots
            .get(index)
            .and_then(OnceLock::get)
            .copied()
            .unwrap_or(AuthKey {
                strategy: "_OTHER",
                result: AuthResult::Denied,
                reason: "_OTHER",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_words_share_a_slot_and_the_table_is_bounded() {
        let keys = AuthKeys::new();
        let key = |strategy, reason| AuthKey {
            strategy,
            result: AuthResult::Denied,
            reason,
        };
        assert_eq!(keys.index(&key("jwt", "expired")), 0);
        assert_eq!(keys.index(&key("jwt", "unknown_key")), 1);
        assert_eq!(keys.index(&key("jwt", "expired")), 0);
        for number in 0..200 {
            let word: &'static str = Box::leak(number.to_string().into_boxed_str());
            assert!(keys.index(&key("jwt", word)) < KEYS);
        }
        assert_eq!(keys.key(KEYS - 1).reason, "_OTHER");
    }
}
