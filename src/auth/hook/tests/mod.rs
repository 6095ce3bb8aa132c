//! Hooks of the known shapes, and hooks that misbehave, over real sockets.

mod answers;
mod lists;
mod server;
mod shapes;

use tokio::task::LocalSet;

use super::*;
use crate::auth::tests::{Sent, api_key_policy, build, get};
use crate::auth::{Allowed, Authenticator, Denied};
use crate::model::{AuthPolicy, Requirement, Strategy};
use crate::net::deadline::{Clock, Deadlines};

pub(super) fn names(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

pub(super) fn service(requirement: Requirement, hook: HookPolicy) -> AuthPolicy {
    AuthPolicy {
        requirement,
        hook: Some(hook),
        api_key: Some(api_key_policy()),
        ..AuthPolicy::open()
    }
}

pub(super) fn custom(hook: HookPolicy) -> AuthPolicy {
    service(Requirement::AnyOf(vec![Strategy::Custom]), hook)
}

/// Asks one after the other on one worker.
pub(super) async fn ask_all(
    authenticator: &Authenticator,
    all: &[Sent],
) -> Vec<Result<Allowed, Denied>> {
    let worker = AuthWorker::new(0, Deadlines::new(Clock::start()));
    LocalSet::new()
        .run_until(async {
            let mut answers = Vec::new();
            for sent in all {
                answers.push(authenticator.check(&sent.call(), &worker).await);
            }
            answers
        })
        .await
}

pub(super) async fn ask(policy: &AuthPolicy, sent: Sent) -> Result<Allowed, Denied> {
    let mut answers = ask_all(&build(policy), &[sent]).await;
    answers.pop().unwrap()
}

/// `Ok(reason)` or `Err((kind, reason, relayed status))`.
pub(super) fn verdict(
    answer: Result<Allowed, Denied>,
) -> Result<&'static str, (Kind, &'static str, Option<u16>)> {
    match answer {
        Ok(allowed) => Ok(allowed.reason),
        Err(denied) => Err((
            denied.kind,
            denied.reason,
            denied.relay.map(|relay| relay.status().as_u16()),
        )),
    }
}

#[test]
fn sign_in_is_for_navigations() {
    let navigation = |sent: Sent| answer::is_navigation(&sent.call());
    let html = || get("/").with("accept", "text/html,application/xhtml+xml");
    assert!(navigation(html()));
    assert!(navigation(html().with("sec-fetch-mode", "navigate")));
    assert!(!navigation(html().with("sec-fetch-mode", "cors")));
    assert!(!navigation(
        html().with("x-requested-with", "XMLHttpRequest")
    ));
    assert!(!navigation(html().method("POST")));
    assert!(!navigation(get("/").with("accept", "application/json")));
    assert!(!navigation(get("/")));
}

#[test]
fn the_way_back_is_encoded() {
    let mut sent = get("/a\"b");
    sent.query = Some("x=1&y=%20#<>".to_owned());
    let denial = Response::new(Bytes::new());
    let there = |page: &str| {
        let answer = answer::sign_in(page, &sent.call(), &denial);
        answer.headers()["location"].to_str().unwrap().to_owned()
    };
    assert_eq!(
        there("https://id.example/login?app=1"),
        "https://id.example/login?app=1&rd=http%3A%2F%2Fservice%2Fa%22b%3Fx%3D1%26y%3D%2520%23%3C%3E"
    );
    assert_eq!(there("/in"), "/in?rd=%2Fa%22b%3Fx%3D1%26y%3D%2520%23%3C%3E");
}

#[test]
fn hooks_that_cannot_work_are_refused_when_built() {
    let build = |change: &dyn Fn(&mut HookPolicy)| {
        let mut hook = HookPolicy {
            url: "http://127.0.0.1:1/".to_owned(),
            preset: None,
            timeout: Duration::from_secs(1),
            fail_open: false,
            request_headers: None,
            response_headers: Vec::new(),
            sign_in: None,
            cache: Duration::ZERO,
            max_in_flight: 1,
            tls: None,
        };
        change(&mut hook);
        Hook::build(&hook, 1).map(|_| ())
    };
    assert_eq!(build(&|_| ()), Ok(()));
    for url in ["", "auth", "/auth", "ftp://x/", "http://"] {
        assert_eq!(
            build(&|hook| url.clone_into(&mut hook.url)),
            Err(BuildError::HookUrl),
            "{url}"
        );
    }
    let https = build(&|hook| {
        "https://x/".clone_into(&mut hook.url);
        hook.tls = Some(crate::model::TlsClientSpec {
            ca: Some("/nowhere/ca.pem".into()),
            ..Default::default()
        });
    });
    assert!(matches!(https, Err(BuildError::HookTls(_))), "{https:?}");
    for header in ["host", "content-length", "connection", "a b", ""] {
        for list in [true, false] {
            let refused = build(&|hook| {
                if list {
                    hook.response_headers = names(&[header]);
                } else {
                    hook.request_headers = Some(names(&[header]));
                }
            });
            assert_eq!(refused, Err(BuildError::HeaderName(header.to_owned())));
        }
    }
}
