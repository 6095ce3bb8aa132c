//! Certificates that expire soon, told once a day (SPEC §2.5).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::task::AbortOnDropHandle;

use crate::model::ServiceName;
use crate::net::tls::EXPIRES_SOON;
use crate::telemetry::supervise::Supervisor;

/// Between two lines about one certificate.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the dates are looked at: it is the wall clock that counts, and it
/// may be set or sleep.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// By place in the configuration, when it expires.
pub(super) type Dates = Vec<(Arc<str>, SystemTime)>;

/// The certificates of all services.
#[derive(Default)]
pub(super) struct Expiries {
    known: Arc<Known>,
    task: Option<AbortOnDropHandle<()>>,
}

/// Shared with the task that looks.
#[derive(Default)]
struct Known(Mutex<BTreeMap<ServiceName, Vec<Certificate>>>);

struct Certificate {
    key: Arc<str>,
    expires: SystemTime,
    told: Option<SystemTime>,
}

impl Expiries {
    /// A service's certificates, in place of those it had. To be called on the
    /// control runtime.
    pub(super) fn set(&mut self, service: &ServiceName, dates: &Dates, supervisor: &Supervisor) {
        if dates.is_empty() {
            return self.forget(service);
        }
        self.known.replace(service, dates);
        self.known.tell(SystemTime::now());
        if self.task.is_none() {
            let (known, supervisor) = (Arc::clone(&self.known), supervisor.clone());
            self.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let look = || async {
                    loop {
                        tokio::time::sleep(LOOK).await;
                        known.tell(SystemTime::now());
                    }
                };
                supervisor.keep("certificates", look).await;
            })));
        }
    }

    pub(super) fn forget(&self, service: &ServiceName) {
        self.known.locked().remove(service);
    }
}

impl Known {
    /// No code panics while holding the lock; if it did, the dates would still
    /// be good.
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServiceName, Vec<Certificate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stays the same is not told anew.
    fn replace(&self, service: &ServiceName, dates: &Dates) {
        let mut known = self.locked();
        let old = known.remove(service).unwrap_or_default();
        let certificates = dates.iter().map(|(key, expires)| {
            let mut same = old.iter();
            let same = same.find(|old| old.key == *key && old.expires == *expires);
            Certificate {
                key: Arc::clone(key),
                expires: *expires,
                told: same.and_then(|old| old.told),
            }
        });
        known.insert(service.clone(), certificates.collect());
    }

    /// Returns how many lines were written.
    fn tell(&self, now: SystemTime) -> usize {
        let mut lines = 0;
        for (service, certificates) in self.locked().iter_mut() {
            for certificate in certificates {
                if certificate.is_due(now) {
                    certificate.told = Some(now);
                    certificate.tell(service, now);
                    lines += 1;
                }
            }
        }
        lines
    }
}

impl Certificate {
    fn is_due(&self, now: SystemTime) -> bool {
        let told_lately = self
            .told
            .is_some_and(|told| now.duration_since(told).is_ok_and(|since| since < AGAIN));
        self.expires <= now + EXPIRES_SOON && !told_lately
    }

    fn tell(&self, service: &ServiceName, now: SystemTime) {
        let key = &*self.key;
        match self.expires.duration_since(now) {
            Ok(left) => {
                let days = left.as_secs() / (24 * 60 * 60);
                tracing::warn!(%service, certificate = key, days, "a certificate expires soon");
            }
            Err(_) => {
                tracing::warn!(%service, certificate = key, "a certificate has expired");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_within_fourteen_days_once_a_day() {
        let (known, now) = (Known::default(), SystemTime::now());
        let day = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        let name = ServiceName::new("shop", "cart").expect("a name");
        let dates = |expires| vec![(Arc::from("tls.cert"), expires)];
        known.replace(&name, &dates(now + day(20)));
        assert_eq!(known.tell(now), 0);
        assert_eq!(known.tell(now + day(6)), 1);
        assert_eq!(known.tell(now + day(6) + LOOK), 0);
        known.replace(&name, &dates(now + day(20)));
        assert_eq!(known.tell(now + day(6) + LOOK), 0, "the same certificate");
        assert_eq!(known.tell(now + day(7)), 1);
        assert_eq!(known.tell(now + day(30)), 1, "expired is told too");
        known.replace(&name, &dates(now + day(90)));
        assert_eq!(known.tell(now + day(31)), 0, "renewed");
    }
}
