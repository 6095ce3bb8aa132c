//! A hook among other strategies; what is remembered; how many are asked at once.

use super::server::{Server, respond};
use super::*;
use crate::auth::tests::KEY;

#[tokio::test]
async fn lists_with_a_hook() {
    // The hook lets `a=good` pass, refuses `a=bad`, and breaks on `a=ill`.
    let server = Server::start(|asked| match asked.field("cookie") {
        Some("a=good") => respond(200, &[("remote-user", "ann")], ""),
        Some("a=ill") => respond(500, &[], ""),
        _ => respond(401, &[], ""),
    });
    let mut hook = server.policy();
    hook.response_headers = names(&["remote-user"]);
    let sent = |cookie: &str, key: &str| {
        let mut sent = get("/");
        if !cookie.is_empty() {
            sent = sent.with("cookie", cookie);
        }
        if !key.is_empty() {
            sent = sent.with("x-api-key", key);
        }
        sent
    };
    let hook_first = vec![Strategy::Custom, Strategy::ApiKey];
    let key_first = vec![Strategy::ApiKey, Strategy::Custom];
    let ann = "ann";
    let web = "web";
    let no = "denied";
    let ill = "unavailable";
    // cookie, key, then the outcome for: any(hook, key), any(key, hook),
    // all(hook, key), all(key, hook)
    for (cookie, key, outcomes) in [
        ("", "", [no, no, no, no]),
        ("", "wrong", [no, no, no, no]),
        ("", KEY, [web, web, no, no]),
        ("a=bad", "", [no, no, no, no]),
        ("a=bad", "wrong", [no, no, no, no]),
        ("a=bad", KEY, [web, web, no, no]),
        ("a=good", "", [ann, ann, no, no]),
        ("a=good", "wrong", [no, no, no, no]),
        ("a=good", KEY, [ann, web, web, ann]),
        ("a=ill", "", [ill, ill, no, no]),
        ("a=ill", "wrong", [no, no, no, no]),
        ("a=ill", KEY, [ill, web, ill, ill]),
    ] {
        for (requirement, expected) in [
            Requirement::AnyOf(hook_first.clone()),
            Requirement::AnyOf(key_first.clone()),
            Requirement::AllOf(hook_first.clone()),
            Requirement::AllOf(key_first.clone()),
        ]
        .into_iter()
        .zip(outcomes)
        {
            let what = format!("{cookie} {key} {requirement:?}");
            let policy = service(requirement, hook.clone());
            let outcome = match ask(&policy, sent(cookie, key)).await {
                Ok(allowed) => allowed
                    .identity
                    .and_then(|identity| identity.subject)
                    .map_or(String::new(), |subject| subject.to_string()),
                Err(denied) if denied.kind == Kind::AuthUnavailable => ill.to_owned(),
                Err(_) => no.to_owned(),
            };
            assert_eq!(outcome, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn answers_are_remembered_for_the_same_question_only() {
    let server = Server::start(|asked| match asked.field("cookie") {
        Some("a=setting") => respond(200, &[("set-cookie", "a=next")], ""),
        Some("a=good") => respond(200, &[], ""),
        Some("a=ill") => respond(500, &[], ""),
        _ => respond(401, &[], ""),
    });
    let mut hook = server.policy();
    hook.cache = Duration::from_secs(60);
    let authenticator = build(&custom(hook));
    let mut asked = 0;
    for (sent, twice) in [
        (get("/").with("cookie", "a=good"), 1),
        (get("/").with("cookie", "a=bad"), 1),
        (get("/").with("cookie", "a=setting"), 2),
        (get("/").with("cookie", "a=ill"), 2),
        (get("/other").with("cookie", "a=good"), 1),
        (get("/").method("POST").with("cookie", "a=good"), 1),
        (get("/").with("cookie", "a=good").with("accept", "x"), 1),
    ] {
        let again = Sent {
            method: sent.method.clone(),
            path: sent.path.clone(),
            query: None,
            headers: sent.headers.clone(),
        }
        .with("traceparent", "00-another-01");
        let answers = ask_all(&authenticator, &[sent, again]).await;
        assert_eq!(answers[0].is_ok(), answers[1].is_ok());
        asked += twice;
        assert_eq!(server.asked().len(), asked);
    }
}

#[tokio::test]
async fn the_number_of_questions_under_way_is_bounded() {
    let server = Server::start(|_| b"hang".to_vec());
    let mut hook = server.policy();
    hook.max_in_flight = 2;
    let authenticator = build(&custom(hook));
    let worker = AuthWorker::new(0, Deadlines::new(Clock::start()));
    let sent = get("/");
    let call = sent.call();
    let asks = (0..5).map(|_| authenticator.check(&call, &worker));
    let answers = LocalSet::new()
        .run_until(futures_util::future::join_all(asks))
        .await;
    let count = |reason: &str| {
        let is_reason = |answer: &&Result<Allowed, Denied>| {
            answer.as_ref().is_err_and(|denied| denied.reason == reason)
        };
        answers.iter().filter(is_reason).count()
    };
    assert_eq!((count("hook_busy"), count("hook_timeout")), (3, 2));
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced() {
    // Serves one request per connection without saying so.
    let server = Server::start(|asked| match asked.line.as_str() {
        "GET /auth?x=1 HTTP/1.1" => respond(200, &[], ""),
        _ => Vec::new(),
    });
    let authenticator = build(&custom(server.policy()));
    let all: Vec<Sent> = (0..20).map(|_| get("/")).collect();
    let answers = ask_all(&authenticator, &all).await;
    assert!(answers.iter().all(Result::is_ok));
}
