//! A direct session for provisioning and migrations: not of the pool, closed
//! when dropped.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, NoTls, Row, Socket};
use tokio_util::task::AbortOnDropHandle;

use super::Login;
use super::names;
use crate::model::{DatabaseSpec, DatabaseTls, ServiceName};
use crate::net::tls::{self, ALPN_NONE, Identity, TlsError, Trust};

/// A peer that is gone is noticed after this, while a statement runs.
const PEER_GONE: Duration = Duration::from_secs(30);
/// For a cancel request to be delivered.
const CANCEL: Duration = Duration::from_secs(2);

/// Why a session or a statement of it failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Nothing answered, or what answered is no PostgreSQL.
    #[error("cannot reach PostgreSQL at {place}: {cause}")]
    Unreachable { place: String, cause: String },
    #[error("tls: {0}")]
    Tls(Box<TlsError>),
    /// PostgreSQL said no to the login.
    #[error("PostgreSQL at {place} refuses the login of `{user}`: {}", describe(.error))]
    Refused {
        place: String,
        user: String,
        error: Box<DbError>,
    },
    /// In the middle of things.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    #[error("{}", describe(.0))]
    Sql(Box<DbError>),
}

/// `message (code)`, with the detail's place left out: it may hold values.
pub(super) fn describe(error: &DbError) -> String {
    format!("{} ({})", error.message(), error.code().code())
}

impl SessionError {
    /// The five characters, if the server said something.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Refused { error, .. } | Self::Sql(error) => Some(error.code()),
            Self::Unreachable { .. } | Self::Tls(_) | Self::Lost(_) => None,
        }
    }

    /// Whether role or password are wrong.
    pub(super) fn is_bad_password(&self) -> bool {
        matches!(
            self.code(),
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        ) && matches!(self, Self::Refused { .. })
    }

    /// Whether the same may work later without anybody doing anything: the
    /// server is away, starting, stopping, full, or somebody was in the way.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost(_) => true,
            Self::Tls(_) => false,
            Self::Refused { error, .. } | Self::Sql(error) => {
                let code = error.code().code();
                // Connection, resources, operator; deadlock and lock timeout.
                ["08", "53", "57P", "40"]
                    .iter()
                    .any(|class| code.starts_with(class))
                    || *error.code() == SqlState::LOCK_NOT_AVAILABLE
            }
        }
    }
}

impl From<TlsError> for SessionError {
    fn from(error: TlsError) -> Self {
        Self::Tls(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for SessionError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // FATAL: the server ended the session.
            Some(sql) if !error.is_closed() => Self::Sql(Box::new(sql.clone())),
            _ => Self::Lost(whole(&error)),
        }
    }
}

/// An error with what caused it, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Where to go and as whom.
pub(super) struct Target<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) spec: &'a DatabaseSpec,
    pub(super) login: &'a Login,
    pub(super) database: &'a str,
    /// Settings the session starts with.
    pub(super) settings: &'a [(&'a str, &'a str)],
}

/// A session.
pub(super) struct Session {
    pub(super) client: Client,
    cancel: Cancel,
    /// Held for its drop.
    _driver: AbortOnDropHandle<()>,
}

/// Stops what a session is doing.
#[derive(Clone)]
pub(super) struct Cancel {
    token: CancelToken,
    tls: Option<Rustls>,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`SessionError`], within the connection timeout of the service.
    pub(super) async fn open(target: &Target<'_>) -> Result<Self, SessionError> {
        let spec = target.spec;
        let config = config(target);
        let tls = rustls(&spec.tls).await?;
        let place = place(spec);
        let connect = async {
            match tls.clone() {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    Ok((client, drive(connection)))
                }
                Some(tls) => {
                    let (client, connection) = config.connect(tls).await?;
                    Ok((client, drive(connection)))
                }
            }
        };
        let connected: Result<_, tokio_postgres::Error> =
            match timeout(spec.connection_timeout, connect).await {
                Ok(connected) => connected,
                Err(_) => {
                    let millis = spec.connection_timeout.as_millis();
                    let cause = format!("no answer within {millis} ms");
                    return Err(SessionError::Unreachable { place, cause });
                }
            };
        let (client, driver) = connected.map_err(|error| match error.as_db_error() {
            Some(sql) => SessionError::Refused {
                place: place.clone(),
                user: target.login.user.to_string(),
                error: Box::new(sql.clone()),
            },
            None => SessionError::Unreachable {
                place: place.clone(),
                cause: whole(&error),
            },
        })?;
        let token = client.cancel_token();
        Ok(Self {
            client,
            cancel: Cancel { token, tls },
            _driver: driver,
        })
    }

    /// Runs one statement and drops its rows. A second one in the same text is
    /// refused by the server.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(super) async fn run(&self, statement: &str) -> Result<(), SessionError> {
        self.client.execute_typed(statement, &[]).await?;
        Ok(())
    }

    /// The rows of a query whose parameters are all texts.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(super) async fn texts(
        &self,
        query: &str,
        parameters: &[&str],
    ) -> Result<Vec<Row>, SessionError> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters
            .iter()
            .map(|text| (text as &(dyn ToSql + Sync), Type::TEXT))
            .collect();
        Ok(self.client.query_typed(query, &parameters).await?)
    }

    /// What stops a statement from elsewhere.
    pub(super) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

impl Cancel {
    /// Asks the server to stop; whether it did shows in the statement's result.
    pub(super) async fn send(self) {
        let Self { token, tls } = self;
        let sent = async {
            match tls {
                None => token.cancel_query(NoTls).await,
                Some(tls) => token.cancel_query(tls).await,
            }
        };
        // One that is not delivered is followed by the end of the session,
        // which rolls back as well.
        let _ = timeout(CANCEL, sent).await;
    }
}

/// `host:port`, or the socket's folder.
pub(super) fn place(spec: &DatabaseSpec) -> String {
    if spec.host.contains(':') {
        format!("[{}]:{}", spec.host, spec.port)
    } else {
        format!("{}:{}", spec.host, spec.port)
    }
}

fn config(target: &Target<'_>) -> Config {
    let spec = target.spec;
    let mut config = Config::new();
    config
        .host(&*spec.host)
        .port(spec.port)
        .user(&*target.login.user)
        .dbname(target.database)
        .application_name(names::application_name(target.service))
        .options(options(target.settings))
        .keepalives_idle(PEER_GONE)
        .tcp_user_timeout(PEER_GONE)
        .ssl_mode(match spec.tls {
            DatabaseTls::Disable => SslMode::Disable,
            DatabaseTls::Require { .. } | DatabaseTls::VerifyFull { .. } => SslMode::Require,
        });
    if let Some(password) = &target.login.password {
        config.password(password.expose());
    }
    config
}

/// `-c name=value …`, as the server takes settings at the start of a session.
fn options(settings: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
    let settings: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("-c {name}={}", escape(value)))
        .collect();
    settings.join(" ")
}

/// Carries the session's bytes; what the server says beside is for debugging.
fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>) -> AbortOnDropHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => {
                    tracing::debug!(code = notice.code().code(), "a notice of PostgreSQL");
                }
                Ok(_) => {}
                // Whoever waits for a statement gets it, too.
                Err(_) => return,
            }
        }
    }))
}

/// Reads certificates and keys away from the runtime.
async fn rustls(tls: &DatabaseTls) -> Result<Option<Rustls>, TlsError> {
    if *tls == DatabaseTls::Disable {
        return Ok(None);
    }
    let tls = tls.clone();
    let made = tokio::task::spawn_blocking(move || {
        let (trust, cert, key) = match &tls {
            DatabaseTls::Disable => return Ok(None),
            DatabaseTls::Require { cert, key } => (Trust::Anyone, cert, key),
            DatabaseTls::VerifyFull { ca, cert, key } => {
                (ca.as_deref().map_or(Trust::System, Trust::File), cert, key)
            }
        };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(Identity { cert, key }),
            _ => None,
        };
        tls::client_config(trust, identity, ALPN_NONE).map(|config| Some(Rustls(config)))
    });
    // The runtime ends: nobody waits for the answer.
    made.await.unwrap_or(Ok(None))
}

/// TLS by rustls for `tokio-postgres`.
#[derive(Clone)]
struct Rustls(Arc<ClientConfig>);

/// The same for one host.
struct RustlsFor(Arc<ClientConfig>, ServerName<'static>);

/// A session's bytes inside TLS.
struct Encrypted(tokio_rustls::client::TlsStream<Socket>);

impl MakeTlsConnect<Socket> for Rustls {
    type Stream = Encrypted;
    type TlsConnect = RustlsFor;
    type Error = TlsError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<RustlsFor, TlsError> {
        Ok(RustlsFor(Arc::clone(&self.0), tls::server_name(domain)?))
    }
}

impl TlsConnect<Socket> for RustlsFor {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let Self(config, name) = self;
        let connector = tokio_rustls::TlsConnector::from(config);
        Box::pin(async move { connector.connect(name, stream).await.map(Encrypted) })
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        // The pool's own connection binds; here SCRAM over verified TLS does.
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
