//! The demo: three small apps of `examples/ecommerce`, everything the daemon
//! needs to front them, and commands to paste. Nothing but the binary is needed.

mod apps;
mod folder;
mod postgres;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::auth::{Mint, MintError, mint};
use crate::config::{Environment, ProcessFlags};
use crate::model::JwtAlgorithm;
use crate::secret::Secret;
use apps::Apps;
use folder::Folder;
use postgres::{NoPostgres, Postgres};

/// Added to a public port by the derived default of `upstream`.
const APP_OFFSET: u16 = 10_000;

/// Largest `--port-offset`: the highest app port must stay below 65536.
pub const MAX_PORT_OFFSET: u16 = u16::MAX - APP_OFFSET - 9909;

/// Migrations of the examples: service, file name, text.
const MIGRATIONS: [(&str, &str, &str); 4] = [
    (
        "users",
        "001_users.sql",
        include_str!("../../examples/ecommerce/users/migrations/001_users.sql"),
    ),
    (
        "orders",
        "001_orders.sql",
        include_str!("../../examples/ecommerce/orders/migrations/001_orders.sql"),
    ),
    (
        "orders",
        "002_orders_by_user.sql",
        include_str!("../../examples/ecommerce/orders/migrations/002_orders_by_user.sql"),
    ),
    (
        "payments",
        "001_payments.sql",
        include_str!("../../examples/ecommerce/payments/migrations/001_payments.sql"),
    ),
];

/// Name, public port, and the file of the example.
const SERVICES: [(&str, u16, &str); 3] = [
    (
        "users",
        3001,
        include_str!("../../examples/ecommerce/users/service.config.json"),
    ),
    (
        "orders",
        3002,
        include_str!("../../examples/ecommerce/orders/service.config.json"),
    ),
    (
        "payments",
        3003,
        include_str!("../../examples/ecommerce/payments/service.config.json"),
    ),
];

const ADMIN: u16 = 9900;
const OUTBOUND: u16 = 9901;
const SQL: u16 = 9902;
const OBSERVE: u16 = 9909;
const POSTGRES: u16 = 15_432;

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("port {port} is in use, which the demo needs for {what}")]
    PortInUse { port: u16, what: String },
    #[error("port {port} cannot be bound for {what}")]
    Port {
        port: u16,
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("a folder for the demo's files cannot be made")]
    Folder(#[source] io::Error),
    #[error("the demo's apps cannot be started")]
    Apps(#[source] io::Error),
    #[error("no random bytes could be had for keys")]
    Random,
    #[error("no token for orders could be made")]
    Token(#[source] MintError),
}

/// Running apps, files on disk and random keys; all gone when dropped.
pub struct Demo {
    folder: Folder,
    /// Held for its drop.
    _apps: Apps,
    /// Or why there is none.
    postgres: Result<Postgres, NoPostgres>,
    role_secret: Secret,
    api_key: Secret,
    jwt_secret: Secret,
    /// Accepted by orders.
    token: String,
    port_offset: u16,
}

impl Demo {
    /// Starts the apps and writes the tree. `port_offset` is added to every
    /// port, at most [`MAX_PORT_OFFSET`].
    ///
    /// # Errors
    /// When a port is taken, or files cannot be written.
    pub fn prepare(environment: &Environment, port_offset: u16) -> Result<Self, DemoError> {
        let mut listeners = Vec::new();
        for (name, port, _) in SERVICES {
            let public = port + port_offset;
            probe(public, format!("the sidecar of {name}"))?;
            let app = public + APP_OFFSET;
            let listener = apps::bind(app)
                .map_err(|error| port_error(app, format!("the app {name}"), error))?;
            listeners.push((name, listener));
        }
        for (port, what) in [
            (ADMIN, "the admin port"),
            (OUTBOUND, "calls to other services"),
            (OBSERVE, "metrics and probes"),
        ] {
            probe(port + port_offset, what.to_owned())?;
        }
        let folder = Folder::create(environment).map_err(DemoError::Folder)?;
        let written = SERVICES.iter().try_for_each(|(name, port, text)| {
            // In the file rather than by the daemon's own offset, so that the
            // derived port of the app moves with it.
            let moved = text.replace(&port.to_string(), &(port + port_offset).to_string());
            folder.write(
                &format!("services/ecommerce/{name}/service.config.json"),
                &moved,
            )
        });
        let migrations = MIGRATIONS.iter().try_for_each(|(service, name, text)| {
            folder.write(
                &format!("services/ecommerce/{service}/migrations/{name}"),
                text,
            )
        });
        written
            .and(migrations)
            .and_then(|()| folder.write("config/outrigger.yaml", &settings(port_offset)))
            .map_err(DemoError::Folder)?;
        let jwt_secret = random_key()?;
        let port = POSTGRES + port_offset;
        let postgres = match probe(port, "PostgreSQL".to_owned()) {
            Ok(()) => Postgres::start(environment, port, random_key()?),
            Err(_) => Err(NoPostgres::PortInUse(port)),
        };
        Ok(Self {
            folder,
            postgres,
            role_secret: random_key()?,
            _apps: Apps::start(listeners).map_err(DemoError::Apps)?,
            api_key: random_key()?,
            token: token(&jwt_secret).map_err(DemoError::Token)?,
            jwt_secret,
            port_offset,
        })
    }

    /// The flags to start the daemon with.
    pub fn flags(&self) -> ProcessFlags {
        ProcessFlags {
            config: Some(self.folder.path().join("config/outrigger.yaml")),
            services: Some(self.folder.path().join("services")),
            log_level: Some("warn".to_owned()),
            ..ProcessFlags::default()
        }
    }

    /// The environment to start the daemon with: the keys, and nothing of the
    /// surrounding one that could change what the demo shows.
    pub fn environment(&self) -> Environment {
        let text = |secret: &Secret| secret.expose_str().unwrap_or_default().to_owned();
        let mut pairs = vec![
            ("SERVICE_API_KEY", text(&self.api_key)),
            ("SERVICE_JWT_SECRET", text(&self.jwt_secret)),
            ("DEMO_ROLE_SECRET", text(&self.role_secret)),
        ];
        if let Ok(postgres) = &self.postgres {
            pairs.extend([
                ("POSTGRES_HOST", "127.0.0.1".to_owned()),
                ("POSTGRES_PORT", postgres.port.to_string()),
                ("POSTGRES_DB", postgres::DATABASE.to_owned()),
                ("POSTGRES_USER", postgres::USER.to_owned()),
                ("POSTGRES_PASSWORD", text(&postgres.password)),
            ]);
        }
        Environment::from_pairs(pairs)
    }

    /// Where the demo's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What to read and paste once everything answers.
    pub fn instructions(&self) -> String {
        let url = |port: u16, path: &str| {
            format!(
                "http://127.0.0.1:{}{path}",
                u32::from(port) + u32::from(self.port_offset)
            )
        };
        let key = self.api_key.expose_str().unwrap_or_default();
        let commands = [
            format!("curl -i {}", url(3001, "/users")),
            format!("curl -i -H 'x-api-key: {key}' {}", url(3001, "/users")),
            format!("curl -i {}", url(3002, "/orders")),
            format!(
                "curl -i -H 'authorization: Bearer {}' {}",
                self.token,
                url(3002, "/orders")
            ),
            format!("curl -i {}", url(3003, "/payments/7")),
            format!("curl -i {}", url(3001, "/health")),
            format!("curl -s {}", url(ADMIN, "/services")),
            format!("curl -s {}", url(OBSERVE, "/metrics")),
        ];
        let mut text = String::from("Three apps run, each behind its own sidecar:\n\n");
        for (name, port, wants) in [
            ("users", 3001, "wants an API key"),
            ("orders", 3002, "wants a JWT"),
            ("payments", 3003, "open to everyone"),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<9} {:<22}  {wants}", url(port, ""));
        }
        text.push_str("\nPaste into another terminal:\n\n");
        for command in commands {
            let _ = writeln!(text, "  {command}");
        }
        let _ = write!(
            text,
            "\nEdit a file, and it is in force a moment later:\n\n  {}\n\n\
             {}\n\
             Ctrl-C ends the demo and removes its files.\n",
            self.folder
                .path()
                .join("services/ecommerce/payments/service.config.json")
                .display(),
            self.about_postgres(),
        );
        text
    }
}

impl Demo {
    /// How to look into the database, or why there is none.
    fn about_postgres(&self) -> String {
        match &self.postgres {
            Ok(postgres) => {
                let password = postgres.password.expose_str().unwrap_or_default();
                let (user, database) = (postgres::USER, postgres::DATABASE);
                format!(
                    "Each app has a place of its own in a private PostgreSQL, made by the \
                     migrations beside its file:\n\n  \
                     psql 'postgres://{user}:{password}@127.0.0.1:{}/{database}' \
                     -c 'TABLE ecommerce_users.users'\n",
                    postgres.port
                )
            }
            Err(error) => format!("Left out: Postgres ({error})."),
        }
    }
}

/// The process settings of the demo: everything on loopback, quick to end.
fn settings(port_offset: u16) -> String {
    let at = |port: u16| format!("127.0.0.1:{}", port + port_offset);
    format!(
        "listen: 127.0.0.1\n\
         observe: {{listen: \"{}\"}}\n\
         admin: {{listen: \"{}\"}}\n\
         outbound: {{listen: \"{}\"}}\n\
         sql: {{listen: \"{}\"}}\n\
         database: {{roleSecret: \"${{env:DEMO_ROLE_SECRET}}\"}}\n\
         shutdown: {{accept: 0s, deadline: 2s}}\n",
        at(OBSERVE),
        at(ADMIN),
        at(OUTBOUND),
        at(SQL),
    )
}

/// Says early and clearly that a port is taken. The daemon binds it later for
/// good, and says so too.
fn probe(port: u16, what: String) -> Result<(), DemoError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(port_error(port, what, error)),
    }
}

fn port_error(port: u16, what: String, source: io::Error) -> DemoError {
    if source.kind() == io::ErrorKind::AddrInUse {
        DemoError::PortInUse { port, what }
    } else {
        DemoError::Port { port, what, source }
    }
}

/// 256 random bits as hex: no dot, so that it is never taken for a JWT.
fn random_key() -> Result<Secret, DemoError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| DemoError::Random)?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(Secret::new(text))
}

/// A token of a person called ada, good for a day of trying things out.
fn token(secret: &Secret) -> Result<String, MintError> {
    let wanted = Mint {
        kind: None,
        algorithm: JwtAlgorithm::Hs256,
        issuer: None,
        subject: Some("ada"),
        audience: None,
        service: None,
        claims: BTreeMap::new(),
        lifetime: Duration::from_secs(24 * 3600),
    };
    mint(secret, &wanted, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_different() {
        let (first, second) = (random_key().expect("bytes"), random_key().expect("bytes"));
        assert_eq!(first.len(), 64);
        assert!(first != second);
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let error = probe(port, "a test".to_owned()).expect_err("the port is taken");
        assert_eq!(
            error.to_string(),
            format!("port {port} is in use, which the demo needs for a test")
        );
    }

    #[test]
    fn the_largest_offset_keeps_every_port_in_range() {
        let highest = u32::from(OBSERVE.max(3003 + APP_OFFSET)) + u32::from(MAX_PORT_OFFSET);
        assert!(highest <= u32::from(u16::MAX), "{highest}");
    }
}
