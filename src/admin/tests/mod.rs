//! The doors from outside: real sockets, real HTTP.

mod fixture;

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::drain::Phase;
use crate::model::{Origin, ServiceName};
use crate::snapshot::{ReloadOutcome, StatusProblem};
use fixture::{Fixture, PATIENCE, Response, one_request};

#[tokio::test]
async fn every_page_of_the_observe_door() {
    let fixture = Fixture::new();
    for path in [
        "/metrics",
        "/livez",
        "/readyz",
        "/startupz",
        "/readyz/shop/users",
        "/readyz/users",
    ] {
        let response = fixture.observe("GET", path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let head = fixture.observe("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        let post = fixture.observe("POST", path).await;
        assert_eq!(
            (post.status, post.header("allow")),
            (405, Some("GET, HEAD")),
            "{path}"
        );
    }
    let metrics = fixture.observe("GET", "/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    assert!(metrics.body.contains("_build_info{version="));
}

#[tokio::test]
async fn the_observe_door_changes_nothing() {
    let mut fixture = Fixture::new();
    for path in [
        "/services",
        "/pools",
        "/health/services",
        "/explain",
        "/reload",
        "/drain",
        "/quitquitquit",
        "/log-level",
        "/",
    ] {
        for method in ["GET", "POST", "PUT"] {
            let response = fixture.observe(method, path).await;
            assert_eq!(response.status, 404, "{method} {path}");
            let problem: Value = serde_json::from_str(&response.body).expect("a problem");
            assert_eq!(problem["cause"], "unknown_service");
        }
    }
    assert!(fixture.commands.try_recv().is_err());
}

#[tokio::test]
async fn probes_name_what_is_pending() {
    let fixture = Fixture::new();
    let token = fixture.house.startup.wait_for("ports");
    for path in ["/startupz", "/readyz", "/readyz/users"] {
        let response = fixture.observe("GET", path).await;
        assert_eq!(response.status, 503, "{path}");
        assert_eq!(
            response.body,
            "{\"status\":\"pending\",\"pending\":[\"ports\"]}"
        );
    }
    drop(token);
    fixture.app_is(false);
    let ready = fixture.observe("GET", "/readyz").await;
    assert_eq!(
        ready.body,
        "{\"status\":\"pending\",\"pending\":[\"the app of shop/users is down\"]}"
    );
    assert_eq!(fixture.observe("GET", "/startupz").await.status, 200);
    fixture.app_is(true);
    fixture.drain.advance(Phase::Announced);
    let ready = fixture.observe("GET", "/readyz").await;
    assert_eq!(
        ready.body,
        "{\"status\":\"pending\",\"pending\":[\"draining\"]}"
    );
    assert_eq!(fixture.observe("GET", "/livez").await.status, 200);
    fixture.house.liveness.fail("the control loop panicked");
    assert_eq!(fixture.observe("GET", "/livez").await.status, 503);
    assert_eq!(fixture.observe("GET", "/readyz/nobody").await.status, 404);
}

#[tokio::test]
async fn services_are_shown_with_their_problems() {
    let fixture = Fixture::new();
    let services = fixture.admin("GET", "/services").await;
    assert_eq!(services.status, 200);
    insta::assert_snapshot!(services.body);
    let pools = fixture.admin("GET", "/pools").await;
    insta::assert_snapshot!(pools.body);
    let health = fixture.admin("GET", "/health/services").await;
    assert_eq!(health.status, 200);
    let health: Value = serde_json::from_str(&health.body).expect("json");
    assert_eq!(health["healthy"], 1);
    assert_eq!(health["services"][0]["checks"]["http"], true);
}

#[tokio::test]
async fn explain_says_what_would_happen() {
    let fixture = Fixture::new();
    let explain = |body: &'static str| fixture.admin_with("POST", "/explain", body);
    let allowed = explain("{\"path\":\"/users?x=1\",\"headers\":{\"accept\":\"*/*\"}}").await;
    assert_eq!(allowed.status, 200, "{}", allowed.body);
    insta::assert_snapshot!(allowed.body);
    for (body, status) in [
        ("{\"service\":\"nobody\",\"path\":\"/\"}", 404),
        ("{\"path\":\"/\",\"unknown\":1}", 400),
        ("{\"path\":\"not a path\"}", 400),
        ("{\"path\":\"/\",\"headers\":{\"a b\":\"x\"}}", 400),
        ("{\"path\":\"/\",\"certificate\":\"orders.shop\"}", 400),
        ("", 400),
    ] {
        assert_eq!(explain(body).await.status, status, "{body}");
    }
    // What the sidecar answers is asked of nobody.
    let own = explain("{\"path\":\"/health?scope=self\"}").await;
    let own: Value = serde_json::from_str(&own.body).expect("json");
    assert_eq!(own["answeredBy"], "sidecar");
    assert_eq!(own["auth"]["decision"], "allowed");
    assert_eq!(own.get("upstream"), None);
    for body in [
        "{\"path\":\"/health\",\"method\":\"POST\"}",
        "{\"path\":\"/health/services\"}",
        "{\"path\":\"/Health\"}",
    ] {
        let answer: Value = serde_json::from_str(&explain(body).await.body).expect("json");
        assert_eq!(answer["answeredBy"], "app", "{body}");
    }
    let large = format!("{{\"path\":\"/{}\"}}", "a".repeat(70_000));
    assert_eq!(
        fixture.admin_with("POST", "/explain", &large).await.status,
        413
    );
}

#[tokio::test]
async fn reload_waits_for_what_comes_of_it() {
    let mut fixture = Fixture::new();
    let problem = StatusProblem {
        error: true,
        service: Some(ServiceName::new("shop", "users").expect("valid")),
        origin: Origin::file("services/shop/users/service.config.yaml"),
        message: "unknown key `prot`".to_owned(),
        hint: Some("did you mean `port`?".to_owned()),
    };
    for (query, expected, problems, status) in [
        ("", false, vec![], 200),
        ("?confirm=removals", true, vec![problem], 422),
    ] {
        let path = format!("/reload{query}");
        let outcome = ReloadOutcome {
            generation: 4,
            changed: problems.is_empty(),
            problems,
            leaving: vec!["shop/orders".to_owned()],
        };
        let address = fixture.admin_address;
        let asked =
            tokio::spawn(async move { one_request(address, "POST", &path, "localhost", "").await });
        let Some(AdminCommand::Reload {
            confirm_removals,
            done,
        }) = fixture.commands.recv().await
        else {
            panic!("a reload was asked for");
        };
        assert_eq!(confirm_removals, expected);
        done.send(outcome).expect("somebody waits");
        let response: Response = asked.await.expect("no panic");
        assert_eq!(response.status, status);
        if status == 422 {
            insta::assert_snapshot!(response.body);
        }
    }
    assert_eq!(
        fixture.admin("POST", "/reload?confirm=all").await.status,
        400
    );
    assert_eq!(
        fixture.admin("GET", "/reload").await.header("allow"),
        Some("POST")
    );
}

#[tokio::test]
async fn drain_and_quit_are_handed_on() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.admin("POST", "/drain").await.status, 202);
    assert!(matches!(
        fixture.commands.try_recv(),
        Ok(AdminCommand::Drain)
    ));
    assert_eq!(
        fixture.admin("POST", "/quitquitquit").await.status,
        404,
        "opt-in"
    );
    let mut fixture = Fixture::with_quit_endpoint();
    assert_eq!(fixture.admin("POST", "/quitquitquit").await.status, 202);
    assert!(matches!(
        fixture.commands.try_recv(),
        Ok(AdminCommand::Quit)
    ));
    // Nobody takes commands: the bounded channel fills, nothing hangs.
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(fixture.admin("POST", "/drain").await.status);
    }
    assert_eq!(statuses, [202, 202, 503, 503]);
}

#[tokio::test]
async fn the_log_level_changes() {
    let fixture = Fixture::new();
    let response = fixture.admin_with("PUT", "/log-level", "debug").await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (200, "{\"level\":\"debug\"}\n")
    );
    assert!(fixture.house.log.shows(tracing::Level::DEBUG));
    assert_eq!(
        fixture.admin_with("PUT", "/log-level", "loud").await.status,
        400
    );
}

#[tokio::test]
async fn hosts_origins_and_tokens_are_checked() {
    let fixture = Fixture::with_token("s3cret");
    let evil = one_request(fixture.admin_address, "POST", "/drain", "evil.example", "").await;
    assert_eq!(evil.status, 421);
    let page = "localhost\r\norigin: http://evil.example";
    assert_eq!(
        one_request(fixture.admin_address, "POST", "/drain", page, "")
            .await
            .status,
        403
    );
    let without = fixture.admin("POST", "/drain").await;
    assert_eq!(without.status, 401);
    assert_eq!(
        without.header("www-authenticate"),
        Some("Bearer realm=\"outrigger\"")
    );
    let wrong = "localhost\r\nauthorization: Bearer nope";
    assert_eq!(
        one_request(fixture.admin_address, "POST", "/drain", wrong, "")
            .await
            .status,
        401
    );
    let right = "localhost\r\nauthorization: Bearer s3cret";
    assert_eq!(
        one_request(fixture.admin_address, "POST", "/drain", right, "")
            .await
            .status,
        202
    );
    assert_eq!(fixture.admin("GET", "/livez").await.status, 200);
    // A page that does not exist tells a stranger nothing either.
    assert_eq!(fixture.admin("GET", "/nothing").await.status, 401);
}

#[tokio::test]
async fn idle_and_slow_connections_shut_nobody_out() {
    let fixture = Fixture::new();
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(fixture.observe_address)
            .await
            .expect("connects");
        // Half a head, then silence. The door may have closed it already.
        let _ = stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
            .await;
        held.push(stream);
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(fixture.observe("GET", "/livez").await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    // The oldest were the ones to go.
    let oldest = held.first_mut().expect("some are held");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, oldest.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the oldest connection was closed");
}

#[tokio::test]
async fn dropping_the_door_ends_its_connections() {
    let fixture = Fixture::new();
    let mut stream = TcpStream::connect(fixture.observe_address)
        .await
        .expect("connects");
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("writes");
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    drop(fixture);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok());
}
