//! Strategy `api-key`.
//!
//! Keys are random and at least 128 bit long, so a plain SHA-256 is enough; the
//! digest is compared with every key in constant time.

use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::model::{ApiKey, ApiKeyDigest, ApiKeyPolicy, AuthReason, Identity, Strategy};

use super::BuildError;
use super::named::{Named, PerWorker};

/// The digest a key is known by.
pub fn digest_of(key: &[u8]) -> ApiKeyDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    ApiKeyDigest(bytes)
}

/// All keys of a service.
#[derive(Debug)]
pub(super) struct ApiKeys {
    keys: Box<[Entry]>,
    /// Whether the clock matters at all.
    bounded: bool,
}

/// One accepted key.
#[derive(Debug)]
pub(super) struct Entry {
    key: ApiKey,
    /// The caller it stands for, a copy for each worker.
    pub(super) named: PerWorker<Named>,
}

impl Entry {
    /// Names the caller.
    pub(super) fn id(&self) -> &str {
        &self.key.id
    }

    fn validity(&self, now: SystemTime) -> Result<(), AuthReason> {
        if self.key.not_before.is_some_and(|start| now < start) {
            Err(AuthReason::NotYetValid)
        } else if self.key.expires.is_some_and(|end| now >= end) {
            Err(AuthReason::Expired)
        } else {
            Ok(())
        }
    }
}

impl ApiKeys {
    pub(super) fn build(policy: &ApiKeyPolicy, workers: usize) -> Result<Self, BuildError> {
        let mut keys = Vec::with_capacity(policy.keys.len());
        for key in &policy.keys {
            let identity = || Identity {
                strategy: Strategy::ApiKey,
                subject: Some((*key.id).into()),
                service: Some((*key.id).into()),
            };
            Named::new(identity()).is_complete(&key.id)?;
            keys.push(Entry {
                key: key.clone(),
                named: PerWorker::new(workers, || Named::new(identity())),
            });
        }
        if keys.is_empty() {
            return Err(BuildError::NoKeys);
        }
        Ok(Self {
            bounded: keys
                .iter()
                .any(|entry| entry.key.not_before.is_some() || entry.key.expires.is_some()),
            keys: keys.into(),
        })
    }

    /// The key that was shown. Every key is compared, whichever matches; where
    /// several match, one that is valid now wins.
    pub(super) fn check(
        &self,
        shown: &[u8],
        now: impl FnOnce() -> SystemTime,
    ) -> Result<&Entry, AuthReason> {
        let ApiKeyDigest(shown) = digest_of(shown);
        let now = if self.bounded {
            now()
        } else {
            SystemTime::UNIX_EPOCH
        };
        let mut found = Err(AuthReason::UnknownKey);
        for entry in &self.keys {
            if verify_slices_are_equal(&entry.key.sha256.0, &shown).is_ok() && found.is_err() {
                found = entry.validity(now).map(|()| entry);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn key(id: &str, key: &str) -> ApiKey {
        ApiKey {
            id: Arc::from(id),
            sha256: digest_of(key.as_bytes()),
            not_before: None,
            expires: None,
        }
    }

    fn keys(keys: Vec<ApiKey>) -> ApiKeys {
        ApiKeys::build(&ApiKeyPolicy { keys }, 1).unwrap()
    }

    #[test]
    fn digest_is_sha256() {
        // FIPS 180-2 appendix B.1.
        let ApiKeyDigest(bytes) = digest_of(b"abc");
        assert_eq!(bytes[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(bytes[28..], [0xf2, 0x00, 0x15, 0xad]);
    }

    #[test]
    fn each_key_names_its_caller() {
        let keys = keys(vec![key("web", "one"), key("jobs", "two")]);
        let id = |shown: &str| {
            keys.check(shown.as_bytes(), SystemTime::now)
                .map(|entry| entry.id().to_owned())
        };
        assert_eq!(id("one").unwrap(), "web");
        assert_eq!(id("two").unwrap(), "jobs");
        for wrong in ["", "One", "one ", "onetwo", "three"] {
            assert_eq!(id(wrong).unwrap_err(), AuthReason::UnknownKey, "{wrong}");
        }
    }

    #[test]
    fn bounds_are_half_open_and_follow_the_clock() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let end = start + Duration::from_secs(10);
        let mut bounded = key("web", "one");
        bounded.not_before = Some(start);
        bounded.expires = Some(end);
        let keys = keys(vec![bounded]);
        let at = |now| keys.check(b"one", || now).map(|_| ());
        assert_eq!(
            at(start - Duration::from_nanos(1)),
            Err(AuthReason::NotYetValid)
        );
        assert_eq!(at(start), Ok(()));
        assert_eq!(at(end - Duration::from_nanos(1)), Ok(()));
        assert_eq!(at(end), Err(AuthReason::Expired));
    }

    #[test]
    fn rotation_may_list_one_key_twice() {
        let now = SystemTime::now();
        let mut old = key("old", "one");
        old.expires = Some(now - Duration::from_secs(1));
        let keys = keys(vec![old, key("new", "one")]);
        assert_eq!(keys.check(b"one", || now).unwrap().id(), "new");
    }

    #[test]
    fn an_id_that_no_header_can_carry_is_refused() {
        for bad in ["", " web", "web ", "a\nb"] {
            let policy = ApiKeyPolicy {
                keys: vec![key(bad, "one")],
            };
            assert!(ApiKeys::build(&policy, 1).is_err(), "{bad:?}");
        }
        assert!(ApiKeys::build(&ApiKeyPolicy { keys: Vec::new() }, 1).is_err());
    }
}
