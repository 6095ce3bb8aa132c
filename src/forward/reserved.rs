//! Names that clients may not set (ID-1).

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

/// Reserved whatever the configuration says (SPEC §2.2 ID-1).
const ALWAYS: [&str; 5] = [
    "x-auth-strategy",
    "x-auth-subject",
    "x-auth-failed-open",
    "x-service-name",
    "x-service-call",
];
/// Reserved as a family.
const PREFIX: &[u8] = b"x-outrigger-";
/// Longer names are folded on the heap.
const FOLDED_ON_STACK: usize = 64;

/// Tells reserved header names however they are spelled: names are compared
/// with case and every byte that is no letter or digit folded to `-`, because
/// many app servers fold `_` and `-` together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// Folded, sorted.
    names: Vec<Box<[u8]>>,
    /// Bit n: a name of n bytes is reserved.
    lengths: u64,
}

impl Reserved {
    /// The fixed names, and every header that a rule of the service can set.
    pub fn new<'a>(settable: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let settable = settable.into_iter().map(HeaderName::as_str);
        let mut names: Vec<Box<[u8]>> = ALWAYS
            .into_iter()
            .chain(settable)
            .map(|name| name.bytes().map(fold).collect())
            .collect();
        names.sort();
        names.dedup();
        let lengths = names
            .iter()
            .fold(0, |lengths, name| lengths | length_bit(name.len()));
        Self { names, lengths }
    }

    /// Whether clients may not send this name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        let may_have_prefix = name.len() >= PREFIX.len() && name.first() == Some(&b'x');
        if self.lengths & length_bit(name.len()) == 0 && !may_have_prefix {
            return false;
        }
        let folded: SmallVec<[u8; FOLDED_ON_STACK]> = name.iter().copied().map(fold).collect();
        folded.starts_with(PREFIX)
            || self
                .names
                .binary_search_by(|known| (**known).cmp(&folded[..]))
                .is_ok()
    }

    /// Removes every reserved field.
    pub fn strip(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name| self.contains(name));
    }
}

/// Removes a field however its name is spelled (ID-1).
pub fn remove_folded(headers: &mut HeaderMap, name: &HeaderName) {
    let name = name.as_str();
    remove_where(headers, |other| {
        let other = other.as_str();
        other.len() == name.len() && other.bytes().map(fold).eq(name.bytes().map(fold))
    });
}

/// Removes all fields whose name fits. Costs no allocation while none does.
pub(super) fn remove_where(headers: &mut HeaderMap, fits: impl Fn(&HeaderName) -> bool) {
    // As with most messages.
    if !headers.keys().any(&fits) {
        return;
    }
    let found: SmallVec<[HeaderName; 4]> =
        headers.keys().filter(|name| fits(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Lower case, everything but letters and digits as `-`.
pub(super) fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// Lengths beyond the mask share the last bit.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn reserved() -> Reserved {
        Reserved::new([
            &HeaderName::from_static("x-tenant"),
            &HeaderName::from_static("app_token"),
        ])
    }

    #[test]
    fn every_spelling_is_told() {
        for name in [
            "x-auth-subject",
            "X-Auth-Subject",
            "x_auth_subject",
            "X.AUTH~SUBJECT",
            "x-outrigger-anything",
            "x_outrigger_",
            "X-Tenant",
            "x_tenant",
            "app-token",
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a legal name");
            assert!(reserved().contains(&name), "{name}");
        }
        for name in [
            "x-auth-subjects",
            "accept",
            "x-tenan",
            "x-outrigge",
            "host",
            "x-request-id",
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a legal name");
            assert!(!reserved().contains(&name), "{name}");
        }
    }

    #[test]
    fn a_field_is_removed_in_every_spelling() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-api-key",
            "x_api_key",
            "x.api-key",
            "x-api-keys",
            "x-apikey",
        ] {
            headers.append(name, HeaderValue::from_static("mine"));
        }
        remove_folded(&mut headers, &HeaderName::from_static("x-api-key"));
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-api-keys", "x-apikey"]);
    }

    #[test]
    fn a_long_name_is_reserved_like_any_other() {
        let long = format!("x-{}", "a".repeat(140));
        let name = HeaderName::from_bytes(long.as_bytes()).expect("a legal name");
        let reserved = Reserved::new([&name]);
        let folded = HeaderName::from_bytes(long.replace('-', "_").as_bytes()).expect("legal");
        assert!(reserved.contains(&name));
        assert!(reserved.contains(&folded));
    }

    proptest! {
        #[test]
        fn nothing_reserved_survives(names in proptest::collection::vec(
            "[xX][-_.]([aA]uth[-_]subject|service[-_~]name|outrigger[-_][a-z]{0,140}|other)", 0..12,
        )) {
            let mut headers = HeaderMap::new();
            for name in &names {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a legal name");
                headers.append(name, HeaderValue::from_static("forged"));
            }
            let others = names.iter().filter(|name| name.ends_with("other")).count();
            reserved().strip(&mut headers);
            prop_assert_eq!(headers.len(), others);
        }
    }
}
