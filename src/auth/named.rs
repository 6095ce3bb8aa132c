//! A caller with the headers that tell the app about it, built once.

use http::header::{HeaderName, HeaderValue};

use crate::model::{FieldLines, Identity, LineStart};

use super::BuildError;

pub(super) static X_AUTH_STRATEGY: HeaderName = HeaderName::from_static("x-auth-strategy");
pub(super) static X_AUTH_SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
pub(super) static X_AUTH_FAILED_OPEN: HeaderName = HeaderName::from_static("x-auth-failed-open");
pub(super) static X_SERVICE_CALL: HeaderName = HeaderName::from_static("x-service-call");
pub(super) static X_SERVICE_NAME: HeaderName = HeaderName::from_static("x-service-name");

/// An identity and its headers.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) identity: Identity,
    pub(super) headers: FieldLines,
    /// Every part of it can be carried.
    complete: bool,
}

impl Named {
    /// A part that no header can carry faithfully is left out of the headers.
    pub(super) fn new(identity: Identity) -> Self {
        let mut headers = FieldLines::default();
        let strategy = identity.strategy.as_str();
        headers
            .line(LineStart::new("x-auth-strategy: "))
            .text(strategy)
            .end();
        let subject = identity.subject.as_deref().and_then(faithful);
        if let Some(value) = &subject {
            headers.push(&X_AUTH_SUBJECT, value);
        }
        let service = identity.service.as_deref().and_then(faithful);
        if let Some(value) = &service {
            headers
                .line(LineStart::new("x-service-call: "))
                .text("true")
                .end();
            headers.push(&X_SERVICE_NAME, value);
        }
        Self {
            complete: subject.is_some() && service.is_some(),
            identity,
            headers,
        }
    }

    /// For identities from configuration, which must be fully representable.
    pub(super) fn is_complete(&self, id: &str) -> Result<(), BuildError> {
        if self.complete {
            Ok(())
        } else {
            Err(BuildError::KeyId(id.to_owned()))
        }
    }
}

/// A header value that the app reads back as exactly `text`: not empty, no
/// control characters, no outer blanks (which every parser trims, so that
/// ` admin` would become `admin`).
pub(super) fn faithful(text: &str) -> Option<HeaderValue> {
    if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// One copy of a value for each worker, so that reference counts inside are
/// never contended.
#[derive(Debug)]
pub(super) struct PerWorker<T>(Box<[T]>);

impl<T> PerWorker<T> {
    pub(super) fn new(workers: usize, mut make: impl FnMut() -> T) -> Self {
        Self((0..workers.max(1)).map(|_| make()).collect())
    }

    /// The copy of a worker; indices beyond the last share.
    pub(super) fn of(&self, worker: usize) -> &T {
        self.0
            .get(worker % self.0.len())
            .expect("there is at least one copy and the index is below their number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Strategy;

    #[test]
    fn only_services_are_service_calls() {
        let person = Named::new(Identity {
            strategy: Strategy::Jwt,
            subject: Some("ann".into()),
            service: None,
        });
        assert_eq!(
            person.headers.as_bytes(),
            b"x-auth-strategy: jwt\r\nx-auth-subject: ann\r\n"
        );
    }

    #[test]
    fn values_are_carried_faithfully_or_not_at_all() {
        for good in ["a", "a b", "ünï", "https://id/x|y"] {
            assert_eq!(faithful(good).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in [
            "", " a", "a ", "\u{a0}a", "a\r\nb", "a\0b", "a\tb", "\u{85}",
        ] {
            assert!(faithful(bad).is_none(), "{bad:?}");
        }
    }
}
