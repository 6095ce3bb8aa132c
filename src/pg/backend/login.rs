//! The start of a session: startup message, authentication, settings.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use fallible_iterator::FallibleIterator as _;

use super::{Connection, channel_binding};
use crate::pg::failure::{ConnectFailure, Lost, ServerError};

/// Logs in and reads up to the first `ReadyForQuery`.
pub(super) async fn log_in(connection: &mut Connection) -> Result<(), ConnectFailure> {
    let target = std::sync::Arc::clone(&connection.target);
    let first = [
        ("user", &*target.login.user),
        ("database", &*target.database),
        ("client_encoding", "UTF8"),
    ];
    let settings = target.settings.iter();
    let settings = settings.map(|(name, value)| (*name, value.as_str()));
    frontend::startup_message(first.into_iter().chain(settings), &mut connection.output)
        .map_err(|_| ConnectFailure::Protocol)?;
    authenticate(connection).await?;
    loop {
        match next(connection).await? {
            Message::BackendKeyData(key) => {
                connection.cancel.process_id = key.process_id();
                connection.cancel.secret_key = key.secret_key();
            }
            Message::ReadyForQuery(_) => return Ok(()),
            _ => return Err(ConnectFailure::Protocol),
        }
    }
}

/// The next message; an error of the server ends the attempt.
async fn next(connection: &mut Connection) -> Result<Message, ConnectFailure> {
    match connection.next().await {
        Ok(Message::ErrorResponse(body)) => Err(ConnectFailure::refused(ServerError::read(&body))),
        Ok(message) => Ok(message),
        Err(Lost::Server(error)) => Err(ConnectFailure::refused(*error)),
        Err(Lost::Io(kind)) => Err(ConnectFailure::Io(kind)),
        Err(Lost::Closed) => Err(ConnectFailure::Io(std::io::ErrorKind::UnexpectedEof)),
        Err(Lost::Protocol | Lost::TooLarge | Lost::Copy | Lost::Unreset(_)) => {
            Err(ConnectFailure::Protocol)
        }
    }
}

async fn authenticate(connection: &mut Connection) -> Result<(), ConnectFailure> {
    let asked = next(connection).await?;
    let target = std::sync::Arc::clone(&connection.target);
    let password = || {
        let password = target.login.password.as_ref();
        password.ok_or(ConnectFailure::NoPassword)
    };
    let passwords = target.passwords();
    match asked {
        Message::AuthenticationOk => return Ok(()),
        Message::AuthenticationSasl(offer) => {
            return scram(connection, &offer, password()?.expose()).await;
        }
        Message::AuthenticationMd5Password(body) if passwords.md5 => {
            let user = target.login.user.as_bytes();
            let hash = md5_hash(user, password()?.expose(), body.salt());
            frontend::password_message(hash.as_bytes(), &mut connection.output)
        }
        Message::AuthenticationCleartextPassword if passwords.cleartext => {
            frontend::password_message(password()?.expose(), &mut connection.output)
        }
        Message::AuthenticationMd5Password(_) => return Err(ConnectFailure::Method("md5")),
        Message::AuthenticationCleartextPassword => {
            return Err(ConnectFailure::Method("password"));
        }
        Message::AuthenticationGss | Message::AuthenticationSspi => {
            return Err(ConnectFailure::Method("gss"));
        }
        _ => return Err(ConnectFailure::Protocol),
    }
    .map_err(|_| ConnectFailure::Protocol)?;
    match next(connection).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(ConnectFailure::Protocol),
    }
}

/// Most rounds of hashing that a server may ask for; it asks for 4096 unless
/// told otherwise. All of them are done at once, on the thread of every door.
const MAX_ITERATIONS: u32 = 200_000;

/// Refuses a `server-first-message` (RFC 5802 §7) that would keep us busy.
pub(in crate::pg) fn check_iterations(server_first: &[u8]) -> Result<(), ConnectFailure> {
    let mut attributes = server_first.split(|byte| *byte == b',');
    let iterations = attributes.find_map(|attribute| attribute.strip_prefix(b"i="));
    let iterations = iterations.and_then(|digits| std::str::from_utf8(digits).ok());
    match iterations.and_then(|digits| digits.parse::<u32>().ok()) {
        Some(count) if count <= MAX_ITERATIONS => Ok(()),
        _ => Err(ConnectFailure::Method("more than 200000 SCRAM iterations")),
    }
}

/// RFC 5802, RFC 7677; with channel binding where there is a channel to bind.
async fn scram(
    connection: &mut Connection,
    offer: &AuthenticationSaslBody,
    password: &[u8],
) -> Result<(), ConnectFailure> {
    let mechanisms: Vec<&str> = offer
        .mechanisms()
        .collect()
        .map_err(|_| ConnectFailure::Protocol)?;
    let binding = channel_binding(&connection.transport);
    let offers_plus = mechanisms.contains(&SCRAM_SHA_256_PLUS);
    let (mechanism, binding) = match binding {
        Some(digest) if offers_plus => (
            SCRAM_SHA_256_PLUS,
            ChannelBinding::tls_server_end_point(digest),
        ),
        // Says that we could have: a server that offered it knows then that
        // somebody in between took the offer out.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if !mechanisms.contains(&mechanism) {
        return Err(ConnectFailure::Method("an unknown SASL mechanism"));
    }
    let mut exchange = ScramSha256::new(password, binding);
    let output = &mut connection.output;
    frontend::sasl_initial_response(mechanism, exchange.message(), output)
        .map_err(|_| ConnectFailure::Protocol)?;
    let Message::AuthenticationSaslContinue(body) = next(connection).await? else {
        return Err(ConnectFailure::Protocol);
    };
    check_iterations(body.data())?;
    exchange
        .update(body.data())
        .map_err(|_| ConnectFailure::Protocol)?;
    frontend::sasl_response(exchange.message(), &mut connection.output)
        .map_err(|_| ConnectFailure::Protocol)?;
    let Message::AuthenticationSaslFinal(body) = next(connection).await? else {
        return Err(ConnectFailure::Protocol);
    };
    // The server proves that it knows the password too.
    exchange
        .finish(body.data())
        .map_err(|_| ConnectFailure::Impostor)?;
    match next(connection).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(ConnectFailure::Protocol),
    }
}
