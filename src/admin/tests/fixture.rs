//! A house with one service, and both doors open on loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::{Door, DoorKind, House, serve};
use crate::drain::{self, DrainTrigger};
use crate::model::*;
use crate::secret::Secret;
use crate::snapshot::{
    AdminCommand, BuildContext, Current, Service, ServiceStatus, ServingState, SlotId, Snapshot,
    Status, StatusBoard, StatusProblem,
};
use crate::telemetry::log::{LogSettings, detached};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Liveness, Readiness};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Fixture {
    pub(super) house: Arc<House>,
    pub(super) commands: mpsc::Receiver<AdminCommand>,
    pub(super) drain: DrainTrigger,
    pub(super) observe_address: SocketAddr,
    pub(super) admin_address: SocketAddr,
    /// Dropped with the fixture: the doors close.
    _doors: JoinSet<()>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::build(None, false)
    }

    pub(super) fn with_token(token: &str) -> Self {
        Self::build(Some(Secret::new(token)), false)
    }

    pub(super) fn with_quit_endpoint() -> Self {
        Self::build(None, true)
    }

    fn build(token: Option<Secret>, quit_endpoint: bool) -> Self {
        let metrics = Metrics::new(1);
        let settings = Arc::new(settings(token, quit_endpoint));
        let current = Current::fixed(snapshot(&settings, &metrics));
        let (log, _) = detached(LogSettings::of(&settings), std::io::sink()).expect("a log");
        let board = StatusBoard::default();
        board.replace(status());
        let (drain, watcher) = drain::channel();
        let (sender, commands) = mpsc::channel(2);
        let house = Arc::new(House {
            databases: crate::pg::Databases::default(),
            current,
            board,
            metrics,
            log,
            startup: Readiness::new(),
            liveness: Liveness::new(PATIENCE, Instant::now()),
            drain: watcher,
            commands: sender,
        });
        let mut doors = JoinSet::new();
        let observe_address = open(&mut doors, DoorKind::Observe, &house);
        let hosts = Vec::new();
        let admin_address = open(&mut doors, DoorKind::Admin { hosts }, &house);
        let fixture = Self {
            house,
            commands,
            drain,
            observe_address,
            admin_address,
            _doors: doors,
        };
        fixture.app_is(true);
        fixture
    }

    /// What the monitor of the app found.
    pub(super) fn app_is(&self, up: bool) {
        let snapshot = self.house.current.load();
        for service in snapshot.services.values() {
            let ready = service.as_ready().expect("a good version");
            ready
                .health
                .app
                .record(up, Duration::from_millis(3), Instant::now());
        }
    }

    pub(super) async fn observe(&self, method: &str, path: &str) -> Response {
        one_request(
            self.observe_address,
            method,
            path,
            "outrigger.shop.svc:9909",
            "",
        )
        .await
    }

    pub(super) async fn admin(&self, method: &str, path: &str) -> Response {
        self.admin_with(method, path, "").await
    }

    pub(super) async fn admin_with(&self, method: &str, path: &str, body: &str) -> Response {
        one_request(self.admin_address, method, path, "localhost:9900", body).await
    }
}

fn open(doors: &mut JoinSet<()>, kind: DoorKind, house: &Arc<House>) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    let house = Arc::clone(house);
    doors.spawn(async move {
        match serve(listener, Door { kind, house }).await {
            Ok(never) => match never {},
            Err(error) => panic!("the door broke: {error}"),
        }
    });
    address
}

/// An answer, taken apart.
pub(super) struct Response {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request on a connection of its own. `host` may bring more lines.
pub(super) async fn one_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    host: &str,
    body: &str,
) -> Response {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        // A refused large body may be cut short.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).expect("text")
    };
    let answer = tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Response {
        status: status.expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn snapshot(settings: &Arc<ProcessSettings>, metrics: &Metrics) -> Snapshot {
    let context = BuildContext {
        settings,
        metrics,
        predecessor: None,
    };
    let slot = SlotId { index: 0, epoch: 0 };
    let service = Service::ready(Arc::new(spec()), slot, &context).expect("a service");
    Snapshot {
        generation: 3,
        hash: Arc::from("abc"),
        services: BTreeMap::from([(service.name.clone(), Arc::new(service))]),
        settings: Arc::clone(settings),
    }
}

fn users() -> ServiceName {
    ServiceName::new("shop", "users").expect("valid")
}

fn status() -> Status {
    let problem = |error, line| StatusProblem {
        error,
        service: Some(users()),
        origin: Origin {
            line,
            column: 3,
            key: "limits".to_owned(),
            ..Origin::file("services/shop/users/service.config.yaml")
        },
        message: "what is \"wrong\"".to_owned(),
        hint: error.then(|| "what to do".to_owned()),
    };
    let service = ServiceStatus {
        state: ServingState::Stale,
        generation: Some(2),
        port: Some(3001),
        address: Some(SocketAddr::from(([127, 0, 0, 1], 3001))),
        problems: vec![problem(true, 4), problem(false, 5)],
        effective: Arc::from([EffectiveValue {
            key: "auth.apiKey.keys[0].key".to_owned(),
            value: "***".to_owned(),
            origin: "env SERVICE_API_KEY".to_owned(),
        }]),
    };
    Status {
        generation: 3,
        hash: Arc::from("abc"),
        last_success: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        services: BTreeMap::from([(users(), Arc::new(service))]),
        peers: vec![ServiceName::new("shop", "orders").expect("valid")],
        problems: Vec::new(),
        restart_needed: vec!["admin.listen"],
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        name: users(),
        version: None,
        description: None,
        port: 3001,
        listen: None,
        upstream: UpstreamSpec {
            target: UpstreamTarget::Loopback { port: 13001 },
            protocol: UpstreamProtocol::Http1,
            header_case: HeaderCase::Lower,
            connect_timeout: Duration::from_millis(300),
            response_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(300),
            pool_idle_timeout: Duration::from_secs(3),
            max_idle: 64,
            tls: None,
        },
        dependencies: Vec::new(),
        health_check: HealthCheckSpec::Unset(ProbeSpec::default()),
        health: HealthSpec::default(),
        limits: Limits::default(),
        upgrades: Vec::new(),
        tls: None,
        auth: AuthPolicy::open(),
        tracing: None,
        database: None,
    }
}

fn settings(token: Option<Secret>, quit_endpoint: bool) -> ProcessSettings {
    ProcessSettings {
        services_dir: PathBuf::from("/services"),
        config_dir: None,
        listen: None,
        workers: 1,
        observe: DoorListen::Off,
        admin: AdminSettings {
            listen: DoorListen::Off,
            token,
        },
        outbound: OutboundSettings {
            listen: DoorListen::Off,
            strict: true,
            allow_origins: Vec::new(),
        },
        sql: SqlSettings {
            listen: DoorListen::Off,
            allow_origins: Vec::new(),
            max_request_bytes: 1,
            max_response_bytes: 1,
        },
        discovery: DiscoverySettings {
            address: Arc::from("127.0.0.1:{port}"),
            refresh: Duration::from_secs(5),
        },
        auth_required: false,
        exporter: SpanExporter::None,
        access_log: AccessLog::Errors,
        log_level: LogLevel::Info,
        log_format: LogFormat::Json,
        trusted_proxies: TrustedProxies::default(),
        secrets_dirs: Vec::new(),
        shutdown: ShutdownSettings {
            deadline: Duration::from_secs(25),
            accept: Duration::from_secs(5),
            quit_endpoint,
        },
        reload: ReloadSettings {
            poll: Duration::from_secs(5),
            quiet: Duration::from_millis(50),
            max: Duration::from_millis(200),
        },
        disabled: false,
        local: None,
    }
}
