//! Hooks of the known shapes, and hooks that misbehave, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::thread;

use tokio::task::LocalSet;

use super::*;
use crate::auth::tests::{KEY, Sent, api_key_policy, build, get, value};
use crate::auth::{Allowed, Authenticator, Denied};
use crate::model::{AuthPolicy, Deny, HookPreset, Requirement, Strategy, Who};
use crate::net::deadline::{Clock, Deadlines};

/// Head of a request as received.
#[derive(Debug, Clone, Default)]
struct Asked {
    line: String,
    fields: Vec<(String, String)>,
}

impl Asked {
    fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|(field, _)| field == name);
        let found = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice");
        found
    }
}

type Script = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

/// A hook server on loopback; its threads end with the test process.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// An empty answer closes the connection; `hang` as its text never answers.
    fn start(script: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script): (_, Arc<Script>) = (Arc::clone(&asked), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || {
                    while let Some(asked) = read_head(&mut stream) {
                        log.lock().unwrap().push(asked.clone());
                        let answer = script(&asked);
                        if answer == b"hang" {
                            thread::park();
                        }
                        if answer.is_empty() || stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn policy(&self) -> HookPolicy {
        HookPolicy {
            url: format!("http://{}/auth?x=1", self.address),
            preset: None,
            timeout: Duration::from_millis(300),
            fail_open: false,
            request_headers: None,
            response_headers: Vec::new(),
            sign_in: None,
            cache: Duration::ZERO,
            max_in_flight: 256,
            tls: None,
        }
    }
}

fn read_head(stream: &mut impl Read) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    Some(Asked {
        line: lines.next()?.to_owned(),
        fields: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    })
}

fn respond(status: u16, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

fn names(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

fn service(requirement: Requirement, hook: HookPolicy) -> AuthPolicy {
    AuthPolicy {
        requirement,
        hook: Some(hook),
        api_key: Some(api_key_policy()),
        ..AuthPolicy::open()
    }
}

fn custom(hook: HookPolicy) -> AuthPolicy {
    service(Requirement::AnyOf(vec![Strategy::Custom]), hook)
}

/// Asks one after the other on one worker.
async fn ask_all(authenticator: &Authenticator, all: &[Sent]) -> Vec<Result<Allowed, Denied>> {
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

async fn ask(policy: &AuthPolicy, sent: Sent) -> Result<Allowed, Denied> {
    let mut answers = ask_all(&build(policy), &[sent]).await;
    answers.pop().unwrap()
}

/// `Ok(reason)` or `Err((kind, reason, relayed status))`.
fn verdict(
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

#[tokio::test]
async fn the_question_has_the_default_shape() {
    let server = Server::start(|_| respond(204, &[], ""));
    let sent = get("/orders/1")
        .method("POST")
        .with("cookie", "a=b")
        .with("authorization", "Basic YTpi")
        .with("user-agent", "tests")
        .with("x-other", "stays here")
        .with("x-forwarded-uri", "/forged")
        .with("traceparent", "00-1-2-01")
        .with("content-length", "5");
    assert_eq!(
        verdict(ask(&custom(server.policy()), sent).await),
        Ok("good")
    );
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "GET /auth?x=1 HTTP/1.1");
    assert_eq!(asked.field("host"), Some(&*server.address.to_string()));
    for (name, expected) in [
        ("x-forwarded-method", Some("POST")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("service")),
        ("x-forwarded-uri", Some("/orders/1")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("cookie", Some("a=b")),
        ("authorization", Some("Basic YTpi")),
        ("user-agent", Some("tests")),
        ("traceparent", Some("00-1-2-01")),
        ("x-other", None),
        ("content-length", None),
        ("transfer-encoding", None),
        ("x-original-url", None),
    ] {
        assert_eq!(asked.field(name), expected, "{name}");
    }
}

/// oauth2-proxy `/oauth2/auth` behind nginx: 202 with who it is, or 401; the
/// browser is sent to `/oauth2/sign_in`.
#[tokio::test]
async fn oauth2_proxy_shaped() {
    let server = Server::start(|asked| {
        assert_eq!(asked.line, "GET /oauth2/auth HTTP/1.1");
        assert_eq!(asked.field("x-original-uri"), Some("/page?a=b"));
        assert_eq!(
            asked.field("x-original-url"),
            Some("http://service/page?a=b")
        );
        assert_eq!(asked.field("x-original-method"), Some("GET"));
        assert_eq!(asked.field("x-auth-request-redirect"), Some("/page?a=b"));
        assert_eq!(asked.field("x-real-ip"), Some("127.0.0.1"));
        match asked.field("cookie") {
            Some("_oauth2_proxy=good") => respond(
                202,
                &[
                    ("x-auth-request-user", "ann"),
                    ("x-auth-request-email", "ann@example"),
                    ("gap-auth", "ann"),
                ],
                "",
            ),
            _ => respond(401, &[("content-type", "text/plain")], "Unauthorized"),
        }
    });
    let mut hook = server.policy();
    hook.url = format!("http://{}/oauth2/auth", server.address);
    hook.preset = Some(HookPreset::Nginx);
    hook.response_headers = names(&["x-auth-request-user", "x-auth-request-email"]);
    hook.sign_in = Some("/oauth2/sign_in".to_owned());
    let authenticator = build(&custom(hook));
    let page = || {
        let mut sent = get("/page");
        sent.query = Some("a=b".to_owned());
        sent
    };
    let mut answers = ask_all(
        &authenticator,
        &[
            page().with("cookie", "_oauth2_proxy=good"),
            page().with("accept", "text/html,*/*"),
            page().with("accept", "application/json"),
        ],
    )
    .await
    .into_iter();

    let allowed = answers.next().unwrap().unwrap();
    assert_eq!(value(&allowed, "x-auth-strategy"), Some(&b"custom"[..]));
    assert_eq!(value(&allowed, "x-auth-subject"), Some(&b"ann"[..]));
    assert_eq!(
        value(&allowed, "x-auth-request-email"),
        Some(&b"ann@example"[..])
    );
    assert_eq!(value(&allowed, "x-service-name"), None);
    assert_eq!(value(&allowed, "gap-auth"), None);
    let reserved = authenticator.reserved_headers();
    assert!(reserved.iter().any(|name| name == "x-auth-request-user"));

    let relay = answers.next().unwrap().unwrap_err().relay.unwrap();
    assert_eq!(relay.status(), 302);
    assert_eq!(
        relay.headers()["location"],
        "/oauth2/sign_in?rd=%2Fpage%3Fa%3Db"
    );
    assert!(relay.body().is_empty());

    let relay = answers.next().unwrap().unwrap_err().relay.unwrap();
    assert_eq!(relay.status(), 401);
    assert_eq!(relay.body(), "Unauthorized");
}

/// Authelia behind Traefik: redirects browsers itself, sets `Remote-*`.
#[tokio::test]
async fn authelia_shaped() {
    let server = Server::start(|asked| {
        assert_eq!(asked.line, "GET /api/authz/forward-auth HTTP/1.1");
        let page = format!(
            "{}://{}{}",
            asked.field("x-forwarded-proto").unwrap(),
            asked.field("x-forwarded-host").unwrap(),
            asked.field("x-forwarded-uri").unwrap(),
        );
        match asked.field("cookie") {
            Some("authelia_session=good") => respond(
                200,
                &[
                    ("remote-user", "ann"),
                    ("remote-groups", "admins"),
                    ("remote-groups", "dev"),
                ],
                "200 OK",
            ),
            Some(_) => respond(403, &[], "403 Forbidden"),
            None => respond(
                302,
                &[
                    ("location", &format!("https://auth.example/?rd={page}")),
                    ("set-cookie", "authelia_session=new; HttpOnly"),
                    ("x-internal", "secret"),
                ],
                "<a href>302 Found</a>",
            ),
        }
    });
    let mut hook = server.policy();
    hook.url = format!("http://{}/api/authz/forward-auth", server.address);
    hook.preset = Some(HookPreset::Traefik);
    hook.response_headers = names(&["remote-user", "remote-groups", "remote-name"]);
    let mut answers = ask_all(
        &build(&custom(hook)),
        &[
            get("/").with("cookie", "authelia_session=good"),
            get("/").with("cookie", "authelia_session=other"),
            get("/").with("accept", "text/html"),
        ],
    )
    .await
    .into_iter();
    let allowed = answers.next().unwrap().unwrap();
    assert_eq!(value(&allowed, "remote-groups"), Some(&b"admins, dev"[..]));
    assert_eq!(value(&allowed, "remote-name"), None);
    let denied = answers.next().unwrap().unwrap_err();
    assert_eq!(denied.relay.unwrap().status(), 403);
    let relay = answers.next().unwrap().unwrap_err().relay.unwrap();
    assert_eq!(relay.status(), 302);
    assert_eq!(
        relay.headers()["location"],
        "https://auth.example/?rd=http://service/"
    );
    assert_eq!(
        relay.headers()["set-cookie"],
        "authelia_session=new; HttpOnly"
    );
    assert_eq!(relay.headers()["cache-control"], "no-store");
    assert!(!relay.headers().contains_key("x-internal"));
}

/// Envoy ext_authz over HTTP: the request itself, below the hook's path.
#[tokio::test]
async fn envoy_shaped() {
    let server = Server::start(|asked| {
        let good = asked.line == "DELETE /check/orders/1?all=1 HTTP/1.1"
            && asked.field("host") == Some("service")
            && asked.field("content-length") == Some("0")
            && asked.field("x-forwarded-proto") == Some("http")
            && asked.field("authorization") == Some("Bearer opaque");
        respond(if good { 200 } else { 403 }, &[], "")
    });
    let mut hook = server.policy();
    hook.url = format!("http://{}/check/", server.address);
    hook.preset = Some(HookPreset::Envoy);
    let mut sent = get("/orders/1")
        .method("DELETE")
        .with("authorization", "Bearer opaque");
    sent.query = Some("all=1".to_owned());
    assert_eq!(verdict(ask(&custom(hook), sent).await), Ok("good"));
}

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
    let https = build(&|hook| "https://x/".clone_into(&mut hook.url));
    assert_eq!(https, Err(BuildError::HookTls));
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
