//! The passwords of services' roles: derived, so that nothing has to be kept,
//! and sent only as verifiers made here.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::model::DatabaseSpec;
use crate::pg::Login;
use crate::secret::Secret;

/// Where a role's password comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pg) enum Source {
    /// Written down for this very role.
    Written,
    /// Derived from `roleSecret`.
    RoleSecret,
    /// Derived from the administrative password: whoever knows that knows all.
    AdminPassword,
    /// There is none; the server must trust somebody by other means.
    Nowhere,
}

/// How the service's own role logs in.
pub(in crate::pg) fn role_login(spec: &DatabaseSpec) -> (Login, Source) {
    let is_login = spec.user == spec.role;
    let (password, source) = if let Some(written) = &spec.role_password {
        (Some(written.clone()), Source::Written)
    } else if is_login && spec.password.is_some() {
        (spec.password.clone(), Source::Written)
    } else if let Some(secret) = &spec.role_secret {
        (Some(derive(secret, spec)), Source::RoleSecret)
    } else if is_login {
        (None, Source::Written)
    } else if let Some(admin) = &spec.password {
        (Some(derive(admin, spec)), Source::AdminPassword)
    } else {
        (None, Source::Nowhere)
    };
    let user = Arc::clone(&spec.role);
    (Login { user, password }, source)
}

/// HMAC-SHA-256 over `v1|host|database|role`, in hexadecimal.
fn derive(key: &Secret, spec: &DatabaseSpec) -> Secret {
    let DatabaseSpec {
        host,
        database,
        role,
        ..
    } = spec;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let tag = hmac::sign(&key, format!("v1|{host}|{database}|{role}").as_bytes());
    let mut text = String::with_capacity(64);
    for byte in tag.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Secret::new(text)
}

/// What the server stores (RFC 5803): it proves a password without being one.
pub(super) fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose())
}
