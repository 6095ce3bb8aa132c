//! The caller's credential, which its app never sees.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::directory::Found;
use crate::auth::{Mint, mint};
use crate::forward::remove_folded;
use crate::model::{DependencyCredential, JwtAlgorithm};
use crate::snapshot::Dependency;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Claim by which a sidecar knows a calling service (CONFIG.md `serviceNameClaim`).
const SERVICE_CLAIM: &str = "serviceName";

/// A token of our own making.
pub(super) struct Minted {
    value: HeaderValue,
    fresh_until: SystemTime,
}

impl Minted {
    /// `None` where the dependency takes no token.
    pub(super) fn new(dependency: &Dependency, caller: &str, now: SystemTime) -> Option<Self> {
        let Some(DependencyCredential::Jwt { secret, lifetime }) = &dependency.spec.credential
        else {
            return None;
        };
        let wanted = Mint {
            kind: None,
            algorithm: JwtAlgorithm::Hs256,
            issuer: Some(caller),
            subject: Some(caller),
            audience: Some(&dependency.bare_name),
            service: Some((SERVICE_CLAIM, caller)),
            claims: BTreeMap::new(),
            lifetime: *lifetime,
        };
        // Length and algorithm were checked with the configuration.
        let token = mint(secret, &wanted, now).ok()?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(Self {
            value,
            fresh_until: now + *lifetime / 2,
        })
    }

    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        // A clock that was set back must not keep a token for longer.
        let left = self.fresh_until.duration_since(now);
        left.is_ok_and(|left| left <= Duration::from_secs(300))
    }

    pub(super) fn value(&self) -> HeaderValue {
        self.value.clone()
    }
}

/// Adds the caller's credential, where it is certain who calls. A key replaces
/// what the app sent: it may have passed on the key of its own client. A token
/// gives way to an `Authorization` of the app's.
pub(super) fn attach(headers: &mut HeaderMap, found: &Found) {
    if !found.known {
        return;
    }
    let Found { caller, route, .. } = found;
    if let Some(key) = &route.dependency.api_key {
        // Many app servers fold `_` and `-` together.
        remove_folded(headers, &API_KEY);
        headers.insert(API_KEY, key.clone());
    }
    if !headers.contains_key(header::AUTHORIZATION)
        && let Some(token) = route.token(caller.service.name.name(), SystemTime::now())
    {
        headers.insert(header::AUTHORIZATION, token);
    }
}
