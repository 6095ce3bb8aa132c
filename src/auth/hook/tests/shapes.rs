//! Servers of the known shapes.

use super::server::{Server, respond};
use super::*;
use crate::auth::tests::value;
use crate::model::HookPreset;

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

/// A server made for Caddy's forward_auth (`copy_headers`): the original method
/// and URI are in `X-Forwarded-*`, any 2xx lets through, anything else is the
/// client's answer.
#[tokio::test]
async fn caddy_shaped() {
    let server = Server::start(|asked| {
        assert_eq!(asked.line, "GET /api/verify?rd=%2Flogin HTTP/1.1");
        assert_eq!(asked.field("content-length"), None);
        let method = asked.field("x-forwarded-method").unwrap();
        let uri = asked.field("x-forwarded-uri").unwrap();
        assert_eq!(asked.field("x-forwarded-host"), Some("service"));
        match (asked.field("cookie"), method, uri) {
            (Some("session=ann"), "PUT", "/orders/1?all=1") => respond(
                204,
                &[
                    ("remote-user", "ann"),
                    ("remote-email", "ann@example"),
                    ("set-cookie", "session=renewed"),
                ],
                "",
            ),
            (Some("session=ann"), ..) => respond(403, &[], "not there"),
            _ => respond(
                303,
                &[("location", "https://login.example/"), ("remote-user", "x")],
                "",
            ),
        }
    });
    let mut hook = server.policy();
    hook.url = format!("http://{}/api/verify?rd=%2Flogin", server.address);
    hook.preset = Some(HookPreset::Caddy);
    hook.response_headers = names(&["remote-user", "remote-groups"]);
    let put = |cookie: &str| {
        let mut sent = get("/orders/1").method("PUT").with("cookie", cookie);
        sent.query = Some("all=1".to_owned());
        sent.with("content-length", "5")
            .with("remote-user", "root")
            .with("x-forwarded-method", "GET")
            .with("x-forwarded-uri", "/public")
    };
    let mut answers = ask_all(
        &build(&custom(hook)),
        &[
            put("session=ann"),
            get("/admin").with("cookie", "session=ann"),
            put("session=old"),
        ],
    )
    .await
    .into_iter();

    let allowed = answers.next().unwrap().unwrap();
    assert_eq!(value(&allowed, "remote-user"), Some(&b"ann"[..]));
    for absent in ["remote-groups", "remote-email", "set-cookie"] {
        assert_eq!(value(&allowed, absent), None, "{absent}");
    }
    let relay = answers.next().unwrap().unwrap_err().relay.unwrap();
    assert_eq!(
        (relay.status().as_u16(), &relay.body()[..]),
        (403, &b"not there"[..])
    );
    let relay = answers.next().unwrap().unwrap_err().relay.unwrap();
    assert_eq!(relay.status(), 303);
    assert_eq!(relay.headers()["location"], "https://login.example/");
    assert!(!relay.headers().contains_key("remote-user"));
}
