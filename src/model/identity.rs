//! Who is calling, once authenticated.

use std::sync::Arc;

use super::auth::Strategy;

/// The caller as an authenticator established it. Only `auth` makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The strategy that named the caller: sent as `x-auth-strategy`.
    pub strategy: Strategy,
    /// API key id, `sub` claim, certificate name: sent as `x-auth-subject`.
    pub subject: Option<Arc<str>>,
    /// Set only when the caller is a service (API key id, mTLS name, or the
    /// `serviceName` claim of a verified token): sent as `x-service-name`
    /// together with `x-service-call: true`.
    pub service: Option<Arc<str>>,
}
