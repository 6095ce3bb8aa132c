//! Decisions through [`Authenticator`], as inbound sees them.

mod rules;
mod strategies;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method};

use super::jwks::RemoteKeySet;
use super::path::tests::glob;
use super::request::Request;
use super::*;
use crate::model::{ApiKey, ApiKeyPolicy, Deny, Origin, Requirement, Rule};
use crate::net::deadline::{Clock, Deadlines};
use crate::secret::Secret;

pub(super) const KEY: &str = "the-key-of-web-000000000";
pub(super) const OTHER_KEY: &str = "the-key-of-orders-0000000";

pub(super) fn api_key_policy() -> ApiKeyPolicy {
    let key = |id: &str, key: &str| ApiKey {
        id: Arc::from(id),
        sha256: digest_of(key.as_bytes()),
        not_before: None,
        expires: None,
    };
    ApiKeyPolicy {
        keys: vec![key("web", KEY), key("orders", OTHER_KEY)],
    }
}

pub(super) fn policy(requirement: Requirement) -> AuthPolicy {
    AuthPolicy {
        api_key: Some(api_key_policy()),
        requirement,
        explicit: true,
        ..AuthPolicy::open()
    }
}

pub(super) fn api_key() -> Requirement {
    Requirement::AnyOf(vec![Strategy::ApiKey])
}

pub(super) fn rule(paths: &[&str]) -> Rule {
    Rule {
        paths: paths.iter().map(|text| glob(text)).collect(),
        methods: Vec::new(),
        requirement: None,
        allow: None,
        deny: Deny::Nobody,
        upstream: None,
        origin: Origin::default(),
    }
}

pub(super) fn build(policy: &AuthPolicy) -> Arc<Authenticator> {
    let context = AuthContext {
        workers: 2,
        predecessor: None,
    };
    Authenticator::from_policy(policy, &context).unwrap()
}

/// A request with its parts in place of hyper.
pub(super) struct Sent {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
}

pub(super) fn get(path: &str) -> Sent {
    Sent {
        method: Method::GET,
        path: path.to_owned(),
        query: None,
        headers: HeaderMap::new(),
    }
}

impl Sent {
    pub(super) fn method(mut self, name: &str) -> Self {
        self.method = Method::from_bytes(name.as_bytes()).unwrap();
        self
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            scheme: "http",
            host: "service",
            certificate: None,
            trace: None,
        }
    }

    pub(super) fn to(&self, authenticator: &Authenticator) -> Result<Allowed, Denied> {
        let call = self.call();
        let request = Request::at(&call, SystemTime::now());
        match authenticator.decide(&request) {
            Ok(allowed) => Ok(allowed),
            Err(Unmet::Denied(denied)) => Err(denied),
            Err(Unmet::Wait(_)) => panic!("this decision hangs on somebody else"),
        }
    }

    /// `Ok(subject)` or `Err(kind)`.
    pub(super) fn verdict(&self, authenticator: &Authenticator) -> Result<String, Kind> {
        match self.to(authenticator) {
            Ok(allowed) => Ok(allowed
                .identity
                .and_then(|identity| identity.subject)
                .map_or_else(|| "nobody".to_owned(), |subject| subject.to_string())),
            Err(denied) => Err(denied.kind),
        }
    }
}

pub(super) fn value<'a>(allowed: &'a Allowed, name: &'static str) -> Option<&'a [u8]> {
    allowed.set.get(&HeaderName::from_static(name))
}

#[test]
fn an_unchanged_policy_keeps_its_authenticator() {
    let first = build(&policy(api_key()));
    let context = AuthContext {
        workers: 2,
        predecessor: Some(&first),
    };
    let same = Authenticator::from_policy(&policy(api_key()), &context).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let other = Authenticator::from_policy(&policy(Requirement::None), &context).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
}

#[test]
fn debug_output_holds_no_secret() {
    let mut policy = policy(api_key());
    policy.app_token = Some(crate::model::AppToken {
        header: Arc::from("x-app-token"),
        value: Secret::new("swordfish"),
    });
    let authenticator = build(&policy);
    let allowed = get("/").with("x-api-key", KEY).to(&authenticator).unwrap();
    let shown = format!("{authenticator:?} {allowed:?}");
    assert!(!shown.contains("swordfish"));
    assert!(!shown.contains(KEY));
}

#[tokio::test]
async fn check_is_the_same_decision() {
    let authenticator = build(&policy(api_key()));
    let worker = AuthWorker::new(1, Deadlines::new(Clock::start()));
    let good = get("/").with("x-api-key", KEY);
    assert!(authenticator.check(&good.call(), &worker).await.is_ok());
    let bad = get("/");
    let denied = authenticator.check(&bad.call(), &worker).await.unwrap_err();
    assert_eq!(denied.kind, Kind::CredentialMissing);
}

impl Authenticator {
    pub(super) fn policy_for_tests(&self) -> &AuthPolicy {
        &self.policy
    }

    pub(super) fn key_set_for_tests(&self) -> &RemoteKeySet {
        self.jwt.as_ref().and_then(Jwt::remote).unwrap()
    }

    pub(super) fn generation_for_tests(&self) -> u64 {
        self.key_set_for_tests().generation()
    }
}
