//! Every answer, open and closed.

use std::net::TcpListener;

use super::server::{Server, respond};
use super::*;
use crate::auth::tests::value;
use crate::model::{Deny, Who};

#[tokio::test]
async fn every_answer_has_its_meaning() {
    let big = "x".repeat(16 * 1024 + 1);
    let refused = |status: u16| Err((Kind::CredentialInvalid, "hook_denied", Some(status)));
    let error = |reason: &'static str| Err((Kind::AuthUnavailable, reason, None));
    for (answer, expected) in [
        (respond(200, &[], "ok"), Ok("good")),
        (respond(299, &[], ""), Ok("good")),
        (respond(200, &[], &big), Ok("good")),
        (respond(302, &[("location", "/login")], ""), refused(302)),
        (respond(304, &[], ""), refused(304)),
        (respond(400, &[], ""), refused(400)),
        (respond(401, &[], ""), refused(401)),
        (respond(403, &[], &big), refused(403)),
        (
            b"HTTP/1.1 403 X\r\ncontent-length: 10\r\n\r\nabc".to_vec(),
            refused(403),
        ),
        (respond(408, &[], ""), error("hook_answer")),
        (respond(429, &[], ""), error("hook_answer")),
        (respond(500, &[], ""), error("hook_answer")),
        (respond(503, &[], ""), error("hook_answer")),
        (respond(999, &[], ""), error("hook_answer")),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec(), error("hook_answer")),
        (
            b"HTTP/1.1 200 X\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx".to_vec(),
            error("hook_answer"),
        ),
        (
            format!("HTTP/1.1 200 X\r\nx: {}\r\n\r\n", "y".repeat(100_000)).into_bytes(),
            error("hook_answer"),
        ),
        (Vec::new(), error("hook_unreachable")),
        (b"HTTP/1.1 200".to_vec(), error("hook_timeout")),
        (b"hang".to_vec(), error("hook_timeout")),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
        let server = Server::start(move |_| answer.clone());
        let mut hook = server.policy();
        let closed = verdict(ask(&custom(hook.clone()), get("/")).await);
        assert_eq!(closed, expected, "{shown}");
        hook.fail_open = true;
        let open = verdict(ask(&custom(hook), get("/")).await);
        let expected = match expected {
            Err((Kind::AuthUnavailable, ..)) => Ok("failed_open"),
            other => other,
        };
        assert_eq!(open, expected, "failOpen: {shown}");
    }
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut hook = Server::start(|_| Vec::new()).policy();
    hook.url = format!("http://{gone}/");
    let closed = verdict(ask(&custom(hook), get("/")).await);
    assert_eq!(closed, error("hook_unreachable"));
}

#[tokio::test]
async fn a_refusal_too_large_to_relay_is_still_a_refusal() {
    let server =
        Server::start(|_| respond(401, &[("content-type", "text/html")], &"x".repeat(20_000)));
    let mut hook = server.policy();
    hook.fail_open = true;
    let relay = ask(&custom(hook), get("/"))
        .await
        .unwrap_err()
        .relay
        .unwrap();
    assert_eq!(relay.status(), 401);
    assert!(relay.body().is_empty());
    assert!(!relay.headers().contains_key("content-type"));
}

#[tokio::test]
async fn failing_open_knows_nobody() {
    let server = Server::start(|_| respond(500, &[], ""));
    let mut hook = server.policy();
    hook.fail_open = true;
    hook.response_headers = names(&["authorization", "remote-user"]);
    let allowed = ask(
        &custom(hook.clone()),
        get("/").with("authorization", "Basic x"),
    )
    .await
    .unwrap();
    assert!(allowed.identity.is_none());
    assert_eq!(value(&allowed, "x-auth-failed-open"), Some(&b"true"[..]));
    assert_eq!(value(&allowed, "x-auth-strategy"), None);
    // What the hook may set is taken from the client, although the hook failed.
    assert!(allowed.remove.contains(&http::header::AUTHORIZATION));

    let mut policy = custom(hook);
    policy.allow = Some(Who {
        subjects: names(&["ann"]),
        ..Who::default()
    });
    let listed = verdict(ask(&policy, get("/")).await);
    assert_eq!(listed, Err((Kind::NotAllowed, "not_listed", None)));
    policy.allow = None;
    policy.rules = vec![crate::model::Rule {
        deny: Deny::Who(Who::default()),
        ..crate::auth::tests::rule(&[])
    }];
    assert!(ask(&policy, get("/")).await.is_err());
}
