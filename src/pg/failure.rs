//! What goes wrong with a database, and whose fault it is.

use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorResponseBody;

/// An error the server reported (protocol, "Error and Notice Message Fields").
///
/// `Debug` and `Display` show no more than severity and code: messages quote
/// values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// Not translated, where the server sends that (9.6 and later).
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub position: Option<String>,
    pub internal_position: Option<String>,
    pub internal_query: Option<String>,
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub data_type: Option<String>,
    pub constraint: Option<String>,
    pub file: Option<String>,
    pub line: Option<String>,
    pub routine: Option<String>,
}

impl ServerError {
    /// Reads the fields; whatever is unknown or not UTF-8 is skipped.
    pub fn read(body: &ErrorResponseBody) -> Self {
        let mut error = Self::default();
        let mut fields = body.fields();
        let mut localized = String::new();
        while let Ok(Some(field)) = fields.next() {
            let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'S' => localized = text(),
                b'V' => error.severity = text(),
                b'C' => error.code = text(),
                b'M' => error.message = text(),
                b'D' => error.detail = Some(text()),
                b'H' => error.hint = Some(text()),
                b'P' => error.position = Some(text()),
                b'p' => error.internal_position = Some(text()),
                b'q' => error.internal_query = Some(text()),
                b'W' => error.context = Some(text()),
                b's' => error.schema = Some(text()),
                b't' => error.table = Some(text()),
                b'c' => error.column = Some(text()),
                b'd' => error.data_type = Some(text()),
                b'n' => error.constraint = Some(text()),
                b'F' => error.file = Some(text()),
                b'L' => error.line = Some(text()),
                b'R' => error.routine = Some(text()),
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = localized;
        }
        error
    }

    /// Whether the server ends the session with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Whether it is about the server and not about the statement: it goes away,
    /// comes up, or has no room (classes 08 and 57P0x, 53300). What does not end
    /// the session is the statement's own: a wrong number of parameters is 08P01,
    /// a foreign server that is away 08001.
    pub fn is_unavailability(&self) -> bool {
        let code = self.code.as_str();
        self.is_fatal()
            && (code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P03" | "53300"))
    }

    /// Whether the session should not be used again: the server is another one
    /// than it was.
    pub fn spoils_connection(&self) -> bool {
        self.is_unavailability() || self.code == "25006"
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.severity, self.code)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl std::error::Error for ServerError {}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the connection to the database broke: {0}")]
    Io(io::ErrorKind),
    #[error("the database closed the connection")]
    Closed,
    #[error("the database does not speak the protocol")]
    Protocol,
    #[error("the database sent a message of more than 16 MiB")]
    TooLarge,
    #[error("COPY is not carried here")]
    Copy,
    /// Of what came behind it in the same flight nothing was run. With the
    /// server's word, if it ended the session with it.
    #[error("the session could not be reset")]
    Unreset(#[source] Option<Box<ServerError>>),
    #[error("the database ended the session: {0}")]
    Server(#[source] Box<ServerError>),
}

/// What was waited for when time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Resolving,
    Connecting,
    Encrypting,
    LoggingIn,
}

/// Why there is no session. `Display` is for logs; [`Self::reason`] is the word
/// that clients and metrics see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    #[error("the host name is unknown")]
    UnknownHost,
    #[error("{}", phase_text(*.0))]
    Timeout(Phase),
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    #[error("the server refuses TLS, or somebody in between does")]
    TlsRefused,
    #[error("no secure connection: {0}")]
    Tls(String),
    #[error("TLS cannot be set up: {0}")]
    TlsSettings(String),
    #[error("the server wants a password and none is configured")]
    NoPassword,
    #[error("the server asks for the password by a method that is not safe here: {0}")]
    Method(&'static str),
    #[error("the server could not prove that it knows the password")]
    Impostor,
    #[error("the password is wrong, or the role does not exist")]
    WrongPassword,
    #[error("the role may not connect: {0}")]
    NotAuthorized(#[source] Box<ServerError>),
    #[error("the database does not exist")]
    UnknownDatabase,
    #[error("the server has no connection left")]
    TooManyConnections,
    #[error("the server is starting up")]
    StartingUp,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the server is a standby")]
    Standby,
    #[error("the server takes no writes: default_transaction_read_only is on")]
    ReadOnly,
    #[error("the server refuses the session: {0}")]
    Refused(#[source] Box<ServerError>),
    #[error("the server does not speak PostgreSQL's protocol")]
    Protocol,
    /// Of a direct session.
    #[error("{0}")]
    Login(String),
}

const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolving => "the host name was not resolved in time",
        Phase::Connecting => "the server did not accept the connection in time",
        Phase::Encrypting => "the server did not answer the request for TLS in time",
        Phase::LoggingIn => "the server accepted the connection and did not answer in time",
    }
}

impl ConnectFailure {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn io(error: io::Error) -> Self {
        Self::Io(error.kind())
    }

    /// By SQLSTATE (PostgreSQL, appendix A).
    pub fn refused(error: ServerError) -> Self {
        match error.code.as_str() {
            "28P01" => Self::WrongPassword,
            "28000" | "42501" => Self::NotAuthorized(Box::new(error)),
            "3D000" => Self::UnknownDatabase,
            "53300" => Self::TooManyConnections,
            "57P03" => Self::StartingUp,
            "57P01" | "57P02" => Self::ShuttingDown,
            _ => Self::Refused(Box::new(error)),
        }
    }

    /// One word for clients, metrics and health.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::Timeout(Phase::Resolving) => "resolve_timeout",
            Self::Timeout(Phase::Connecting) => "connect_timeout",
            Self::Timeout(Phase::Encrypting) => "tls_timeout",
            Self::Timeout(Phase::LoggingIn) => "no_answer",
            Self::Io(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                "connect_refused"
            }
            Self::Io(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                "unreachable"
            }
            Self::Io(_) => "connection_lost",
            Self::TlsRefused => "tls_refused",
            Self::Tls(_) => "tls_failed",
            Self::TlsSettings(_) => "tls_settings",
            Self::NoPassword => "no_password",
            Self::Method(_) => "unsafe_authentication",
            Self::Impostor => "impostor",
            Self::WrongPassword => "wrong_password",
            Self::NotAuthorized(_) => "not_authorized",
            Self::UnknownDatabase => "unknown_database",
            Self::TooManyConnections => "too_many_connections",
            Self::StartingUp => "starting_up",
            Self::ShuttingDown => "shutting_down",
            Self::Standby => "standby",
            Self::ReadOnly => "read_only",
            Self::Refused(_) => "refused",
            Self::Protocol | Self::Login(_) => "protocol",
        }
    }

    /// Whether the server may be frozen: it holds connections and says nothing.
    /// Who knows its address may be frozen without it.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout(phase) if *phase != Phase::Resolving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_no_values() {
        let error = ServerError {
            severity: "ERROR".to_owned(),
            code: "23505".to_owned(),
            message: "swordfish".to_owned(),
            ..ServerError::default()
        };
        assert_eq!(format!("{error:?} {error}"), "ERROR 23505 ERROR 23505");
        assert!(!error.is_unavailability() && !error.is_fatal());
        for (severity, code, expected) in [
            ("ERROR", "08P01", false),
            ("FATAL", "08P01", true),
            ("FATAL", "57P01", true),
            ("FATAL", "25P03", false),
        ] {
            let error = ServerError {
                severity: severity.to_owned(),
                code: code.to_owned(),
                ..ServerError::default()
            };
            assert_eq!(error.is_unavailability(), expected, "{severity} {code}");
        }
    }

    #[test]
    fn codes_have_causes() {
        let failure = |code: &str| {
            ConnectFailure::refused(ServerError {
                code: code.to_owned(),
                ..ServerError::default()
            })
            .reason()
        };
        assert_eq!(failure("28P01"), "wrong_password");
        assert_eq!(failure("3D000"), "unknown_database");
        assert_eq!(failure("53300"), "too_many_connections");
        assert_eq!(failure("57P03"), "starting_up");
        assert_eq!(failure("XX000"), "refused");
    }
}
