//! A direct session for provisioning and migrations: not of the pool, closed
//! when dropped. It is dialled as sessions of the pool are, so that the same
//! things are refused for the same reasons; from the login on `tokio-postgres`
//! speaks.

mod stream;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Row};
use tokio_util::task::AbortOnDropHandle;

use super::Login;
use super::backend::{self, Peer, load_tls};
use super::failure::{ConnectFailure, Phase, ServerError};
use super::names;
use crate::model::{DatabaseReset, DatabaseSpec, DatabaseTls, ServiceName};
use stream::{Dialled, LoginStream};

/// For a cancel request to be delivered.
const CANCEL: Duration = Duration::from_secs(2);

/// Why a session or a statement of it failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Nothing answered, what answered is no PostgreSQL, or it is not safe to
    /// log in.
    #[error("cannot reach PostgreSQL at {place}: {failure}")]
    Unreachable {
        place: String,
        failure: ConnectFailure,
    },
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
            Self::Unreachable { .. } | Self::Lost(_) => None,
        }
    }

    /// Why there was no session, where that is what failed.
    pub(super) fn connect_failure(&self) -> Option<ConnectFailure> {
        match self {
            Self::Unreachable { failure, .. } => Some(failure.clone()),
            Self::Refused { error, .. } => Some(ConnectFailure::refused(ServerError {
                severity: error.severity().to_owned(),
                code: error.code().code().to_owned(),
                message: error.message().to_owned(),
                ..ServerError::default()
            })),
            Self::Lost(_) | Self::Sql(_) => None,
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
            // What a server refuses can be mended there.
            Self::Unreachable { .. } | Self::Lost(_) | Self::Refused { .. } => true,
            Self::Sql(error) => {
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
    target: Arc<backend::Target>,
    peer: Peer,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`SessionError`], within the connection timeout of the service.
    pub(super) async fn open(target: &Target<'_>) -> Result<Self, SessionError> {
        let unreachable = |failure| SessionError::Unreachable {
            place: place(target.spec),
            failure,
        };
        let dialled = dial_target(target).await.map_err(unreachable)?;
        let deadline = Instant::now() + dialled.timeout;
        let (peer, transport) = dialled.dial(deadline).await.map_err(unreachable)?;
        let stream = LoginStream::new(transport, dialled.passwords());
        let (config, has_password) = (config(target), target.login.password.is_some());
        let connecting = config.connect_raw(stream, Dialled);
        let connected = match tokio::time::timeout_at(deadline, connecting).await {
            Ok(connected) => connected,
            Err(_) => return Err(unreachable(ConnectFailure::Timeout(Phase::LoggingIn))),
        };
        let (client, connection) = connected.map_err(|error| match error.as_db_error() {
            Some(sql) => SessionError::Refused {
                place: place(target.spec),
                user: target.login.user.to_string(),
                error: Box::new(sql.clone()),
            },
            None => unreachable(stream::failure_of(&error, has_password)),
        })?;
        let token = client.cancel_token();
        Ok(Self {
            client,
            cancel: Cancel {
                token,
                target: dialled,
                peer,
            },
            _driver: drive(connection),
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
        let Self {
            token,
            target,
            peer,
        } = self;
        let sent = async {
            let transport = target.open(&peer).await.ok()?;
            let stream = LoginStream::new(transport, target.passwords());
            token.cancel_query_raw(stream, Dialled).await.ok()
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
    let mut config = Config::new();
    config
        .user(&*target.login.user)
        .dbname(target.database)
        .application_name(names::application_name(target.service))
        .options(options(target.settings))
        // The stream is dialled, and encrypted, already.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    if let Some(password) = &target.login.password {
        config.password(password.expose());
    }
    config
}

/// Where to dial. Certificates and keys are read away from the runtime.
async fn dial_target(target: &Target<'_>) -> Result<Arc<backend::Target>, ConnectFailure> {
    let spec = target.spec;
    let tls = match spec.tls.clone() {
        DatabaseTls::Disable => None,
        tls => {
            let host = Arc::clone(&spec.host);
            let read = tokio::task::spawn_blocking(move || load_tls(&tls, &host)).await;
            let settings = |why: String| ConnectFailure::TlsSettings(why);
            // The runtime ends: nobody waits for the answer.
            let read = read.map_err(|error| settings(error.to_string()))?;
            read.map_err(|error| settings(error.to_string()))?
        }
    };
    Ok(Arc::new(backend::Target {
        host: Arc::clone(&spec.host),
        port: spec.port,
        database: Arc::from(target.database),
        login: target.login.clone(),
        settings: Vec::new(),
        tls,
        timeout: spec.connection_timeout,
        reset: DatabaseReset::Always,
    }))
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
