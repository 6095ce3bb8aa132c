//! Key-set servers in every mood, over real sockets.

mod server;

use std::net::{SocketAddr, TcpListener};
use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use serde_json::json;

use server::{Mood, Server, document, key};

use super::*;
use crate::auth::tests::{Sent, get};
use crate::auth::{AuthContext, AuthWorker, Authenticator};
use crate::model::{AuthPolicy, AuthReason, JwtKeys, JwtPolicy, Kind, Requirement, Strategy};
use crate::net::deadline::{Clock, Deadlines};

fn token(kid: Option<&str>, signer: &str) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let mut header = jsonwebtoken::Header::new(Algorithm::ES256);
    header.kid = kid.map(str::to_owned);
    let claims = json!({"sub": "ann", "iss": "us", "exp": now.as_secs() + 600});
    jsonwebtoken::encode(&header, &claims, &key(signer)).unwrap()
}

fn quick() -> Timing {
    Timing {
        pause: Duration::from_secs(30),
        patience: Duration::from_millis(500),
        fetch: Duration::from_millis(400),
        default_lifetime: Duration::from_secs(600),
        min_lifetime: Duration::from_secs(60),
        max_lifetime: Duration::from_secs(600),
        retry: Duration::from_millis(10),
        max_retry_empty: Duration::from_millis(40),
        max_retry: Duration::from_millis(40),
    }
}

fn source(address: SocketAddr, stale_keys: Duration) -> JwksSource {
    JwksSource::Url {
        url: format!("http://{address}/jwks"),
        ca: None,
        stale_keys,
    }
}

/// An authenticator over the key set, as a service has it.
struct Service {
    authenticator: Arc<Authenticator>,
    worker: AuthWorker,
}

impl Service {
    fn new(address: SocketAddr, timing: Timing, stale_keys: Duration) -> Self {
        let algorithms = vec![JwtAlgorithm::Es256];
        let source = source(address, stale_keys);
        let policy = AuthPolicy {
            requirement: Requirement::AnyOf(vec![Strategy::Jwt]),
            jwt: Some(JwtPolicy {
                keys: JwtKeys::Jwks(source.clone()),
                algorithms: algorithms.clone(),
                issuer: Some(Arc::from("us")),
                audience: Vec::new(),
                leeway: Duration::ZERO,
                require_exp: true,
                max_lifetime: None,
                types: Vec::new(),
                service_name_claim: Arc::from("serviceName"),
                claims: Default::default(),
            }),
            ..AuthPolicy::open()
        };
        let remote = Arc::new(RemoteKeySet::with_timing(source, &algorithms, timing));
        let context = AuthContext {
            workers: 2,
            predecessor: None,
        };
        let authenticator = Authenticator::with_key_set(&policy, &context, Some(&remote)).unwrap();
        Self {
            authenticator,
            worker: AuthWorker::new(0, Deadlines::new(Clock::start())),
        }
    }

    fn started(self) -> Self {
        self.authenticator
            .start(&Handle::current(), &metrics(), &supervisor());
        self
    }

    async fn ask(&self, token: &str) -> Result<(), (Kind, &'static str)> {
        let sent: Sent = get("/").with("authorization", &format!("Bearer {token}"));
        let call = sent.call();
        match self.authenticator.check(&call, &self.worker).await {
            Ok(_) => Ok(()),
            Err(denied) => Err((denied.kind, denied.reason)),
        }
    }

    async fn until_ready(&self) {
        until(|| self.authenticator.is_ready()).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition never came true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn metrics() -> Arc<ServiceMetrics> {
    let name = crate::model::ServiceName::new("shop", "orders").unwrap();
    crate::telemetry::metrics::Metrics::new(1).service(&name)
}

fn supervisor() -> crate::telemetry::supervise::Supervisor {
    use crate::telemetry::readiness::Liveness;
    let liveness = Liveness::new(HOUR, std::time::Instant::now());
    let metrics = crate::telemetry::metrics::Metrics::new(1);
    crate::telemetry::supervise::Supervisor::new(metrics, liveness)
}

const HOUR: Duration = Duration::from_secs(3600);
const UNAVAILABLE: Result<(), (Kind, &str)> = Err((Kind::AuthUnavailable, "no_keys"));
const UNKNOWN: Result<(), (Kind, &str)> = Err((Kind::CredentialInvalid, "unknown_key_id"));

#[tokio::test]
async fn down_at_start_then_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let service = Service::new(address, quick(), HOUR).started();
    let good = token(Some("one"), "one");
    assert!(!service.authenticator.is_ready());
    assert_eq!(service.ask(&good).await, UNAVAILABLE);
    // What is wrong without any key is wrong now too.
    let bad = service.ask("eyJhbGciOiJub25lIn0.e30.").await;
    assert_eq!(bad, Err((Kind::CredentialInvalid, "algorithm")));

    let _server = Server::on(TcpListener::bind(address).unwrap(), Mood::Keys(vec!["one"]));
    service.until_ready().await;
    assert_eq!(service.ask(&good).await, Ok(()));
}

#[tokio::test]
async fn a_rotation_is_noticed_by_the_first_token_of_the_new_key() {
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, quick(), HOUR).started();
    service.until_ready().await;
    assert_eq!(service.ask(&token(Some("one"), "one")).await, Ok(()));
    server.set(Mood::Keys(vec!["one", "two"]));
    assert_eq!(service.ask(&token(Some("two"), "two")).await, Ok(()));
    assert_eq!(service.ask(&token(Some("one"), "one")).await, Ok(()));
    assert_eq!(server.served(), 2);
}

#[tokio::test]
async fn tokens_without_kid_rotate_too() {
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, quick(), HOUR).started();
    service.until_ready().await;
    server.set(Mood::Keys(vec!["two"]));
    assert_eq!(service.ask(&token(None, "two")).await, Ok(()));
}

#[tokio::test]
async fn a_dropped_key_is_refused_although_its_token_is_cached() {
    let server = Server::start(Mood::Keys(vec!["one", "two"]));
    let service = Service::new(server.address, quick(), HOUR).started();
    service.until_ready().await;
    let old = token(Some("one"), "one");
    assert_eq!(service.ask(&old).await, Ok(()));
    assert_eq!(service.ask(&old).await, Ok(()));
    server.set(Mood::Keys(vec!["two"]));
    // Any unknown key makes the set fresh; the dropped one then counts for nobody.
    assert_eq!(service.ask(&token(Some("three"), "two")).await, UNKNOWN);
    assert_eq!(service.ask(&old).await, UNKNOWN);
    assert_eq!(service.ask(&token(Some("two"), "two")).await, Ok(()));
}

#[tokio::test]
async fn a_flood_of_unknown_kids_causes_one_fetch() {
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, quick(), HOUR).started();
    service.until_ready().await;
    let asks: Vec<_> = (0..200)
        .map(|number| token(Some(&format!("unknown-{number}")), "two"))
        .collect();
    let answers = futures_util::future::join_all(asks.iter().map(|token| service.ask(token)));
    assert!(answers.await.iter().all(|answer| *answer == UNKNOWN));
    for token in &asks {
        assert_eq!(service.ask(token).await, UNKNOWN);
    }
    assert_eq!(server.served(), 2, "the first load, and one for the flood");
}

#[tokio::test]
async fn after_the_pause_an_unknown_kid_may_ask_again() {
    let mut timing = quick();
    timing.pause = Duration::from_millis(50);
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, timing, HOUR).started();
    service.until_ready().await;
    assert_eq!(service.ask(&token(Some("two"), "two")).await, UNKNOWN);
    server.set(Mood::Keys(vec!["two"]));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(service.ask(&token(Some("two"), "two")).await, Ok(()));
    assert_eq!(server.served(), 3);
}

#[tokio::test]
async fn a_server_that_misbehaves_changes_nothing() {
    let too_many = vec!["one"; 33];
    for mood in [
        Mood::Raw(b"<html>down for maintenance</html>".to_vec()),
        Mood::Raw(Vec::new()),
        Mood::Raw(b"{\"keys\":".to_vec()),
        Mood::Raw(document(&too_many)),
        Mood::Raw(vec![b' '; 1024 * 1024 + 1]),
        Mood::Status(500),
        Mood::Status(404),
        Mood::Status(302),
        Mood::Status(204),
        Mood::Hang,
    ] {
        let server = Server::start(Mood::Keys(vec!["one"]));
        let service = Service::new(server.address, quick(), HOUR).started();
        service.until_ready().await;
        server.set(mood.clone());
        // Nobody can tell whether a newer set knows this key: not a 401.
        assert_eq!(
            service.ask(&token(Some("two"), "two")).await,
            UNAVAILABLE,
            "{mood:?}"
        );
        assert_eq!(
            service.ask(&token(Some("one"), "one")).await,
            Ok(()),
            "{mood:?}"
        );
        server.set(Mood::Keys(vec!["one", "two"]));
        let generation = || service.authenticator.generation_for_tests();
        until(|| generation() == 2).await;
        assert_eq!(
            service.ask(&token(Some("two"), "two")).await,
            Ok(()),
            "{mood:?}"
        );
    }
}

#[tokio::test]
async fn stale_keys_are_given_up_in_the_end() {
    let mut timing = quick();
    timing.min_lifetime = Duration::from_millis(50);
    timing.default_lifetime = Duration::from_millis(50);
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, timing, Duration::from_millis(300)).started();
    service.until_ready().await;
    let good = token(Some("one"), "one");
    assert_eq!(service.ask(&good).await, Ok(()));
    server.set(Mood::Status(500));
    let failing = server.served();
    until(|| server.served() > failing + 1).await;
    assert_eq!(service.ask(&good).await, Ok(()), "stale keys still serve");
    until(|| !service.authenticator.is_ready()).await;
    assert_eq!(service.ask(&good).await, UNAVAILABLE);
    server.set(Mood::Keys(vec!["one"]));
    service.until_ready().await;
    assert_eq!(service.ask(&good).await, Ok(()));
}

#[tokio::test]
async fn an_empty_set_is_an_answer() {
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, quick(), HOUR).started();
    service.until_ready().await;
    let old = token(Some("one"), "one");
    assert_eq!(service.ask(&old).await, Ok(()));
    server.set(Mood::Keys(vec![]));
    assert_eq!(service.ask(&token(Some("two"), "two")).await, UNKNOWN);
    assert_eq!(service.ask(&old).await, UNKNOWN);
}

#[tokio::test]
async fn the_key_set_outlives_a_change_of_policy_and_its_task_does_not_outlive_it() {
    let server = Server::start(Mood::Keys(vec!["one"]));
    let service = Service::new(server.address, quick(), HOUR).started();
    service.until_ready().await;
    let mut policy = service.authenticator.policy_for_tests().clone();
    policy.hide_credentials = true;
    let context = AuthContext {
        workers: 2,
        predecessor: Some(&service.authenticator),
    };
    let next = Authenticator::from_policy(&policy, &context).unwrap();
    assert!(next.is_ready(), "keys are kept");
    let weak = Arc::downgrade(&next.key_set_for_tests().shared);
    drop(service);
    next.start(&Handle::current(), &metrics(), &supervisor());
    assert_eq!(server.served(), 1);
    drop(next);
    until(|| weak.strong_count() == 0).await;
}

#[test]
fn explain_waits_for_nobody() {
    let service = Service::new("127.0.0.1:9".parse().unwrap(), quick(), HOUR);
    let good = token(Some("one"), "one");
    let sent = get("/").with("authorization", &format!("Bearer {good}"));
    let told = service.authenticator.explain(&sent.call());
    assert_eq!(told.decision, crate::auth::Decision::Error);
    assert_eq!(told.reason, AuthReason::NoKeys.as_str());
}
