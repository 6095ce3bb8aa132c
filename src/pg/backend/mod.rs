//! A backend connection: one session of the server, spoken to in PostgreSQL's
//! own protocol (version 3.0), text format.
//!
//! Unlike a driver's client it shows what pooling needs: the transaction status
//! byte, how many answers are still owed, and whether anything was done since
//! the last reset. That state changes in `state::State` only. Nothing here is
//! lost when a future is dropped half-way: what is queued and what was read stay
//! with the connection, and the next call goes on.

mod cancel;
mod connect;
mod login;
mod message;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::FutureExt as _;
use postgres_protocol::message::backend::{Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

pub use cancel::CancelToken;
pub(super) use connect::{Passwords, Peer};
pub use connect::{Target, TargetTls};
pub(super) use login::check_iterations;
pub use message::{BadStatement, Parameter, Statement};
pub use state::{Flight, RESET, Transaction};
pub(super) use tls::channel_binding;
pub use tls::load as load_tls;

use super::failure::{Lost, ServerError};
use state::State;
pub(super) use transport::Transport;

/// Longest message taken from a server; a row of more is no row for a pool.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Free space in the read buffer before each read.
const READ_BYTES: usize = 16 * 1024;
/// Buffers that had to hold longer messages are not kept for the next borrower.
const KEPT_BYTES: usize = 64 * 1024;

/// One session. Dropping it closes the socket.
pub struct Connection {
    transport: Transport,
    input: BytesMut,
    output: BytesMut,
    /// A message was longer than what is kept.
    swollen: bool,
    /// Where in the output the flight being queued begins.
    begun: Option<usize>,
    /// Handed on as it was left: the next flight of work begins with the reset.
    unreset: bool,
    state: State,
    cancel: CancelToken,
    target: Arc<Target>,
}

impl Connection {
    /// What it is connected to.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// As of the last answer.
    pub fn transaction(&self) -> Transaction {
        self.state.transaction()
    }

    /// Answers the server still owes.
    pub fn owed(&self) -> usize {
        self.state.owed()
    }

    /// Whether an answer to somebody's work is among them.
    pub fn owes_work(&self) -> bool {
        self.state.owes_work()
    }

    /// Whether it may be handed to somebody else: no transaction, nothing owed,
    /// nothing half-sent, and reset since it was last used.
    pub fn is_clean(&self) -> bool {
        self.output.is_empty() && self.state.is_clean()
    }

    /// Whether something may have been left behind since the last reset.
    pub fn is_used(&self) -> bool {
        self.state.is_used()
    }

    /// Whether it is over: there is nobody to talk to any more, or nothing to
    /// be said.
    pub fn is_broken(&self) -> bool {
        self.state.is_broken()
    }

    /// Whether the reset that went before some work failed. Of that work nothing
    /// was run.
    pub fn is_unreset(&self) -> bool {
        matches!(self.state.loss(), Some(Lost::Unreset(_)))
    }

    /// Whether there is nobody to say good-bye to.
    pub fn is_gone(&self) -> bool {
        self.is_broken() && !matches!(self.state.loss(), Some(Lost::Unreset(None)))
    }

    /// Whether somebody may borrow it at once: it is clean, or the reset may go
    /// with the work that comes next.
    pub fn may_be_handed_on(&self) -> bool {
        self.output.is_empty() && !self.is_read_only() && self.state.may_be_handed_on()
    }

    /// From here on somebody else has it. What is left behind is undone before
    /// the server looks at what they send.
    pub fn hand_on(&mut self) {
        self.unreset = self.is_used();
    }

    /// Whether a reset is not needed behind work, because it can go before the
    /// next one's.
    pub fn can_reset_later(&self) -> bool {
        self.state.commits_reset
    }

    /// Whether the server has said that it takes no writes: a standby, or
    /// `default_transaction_read_only`.
    pub fn is_read_only(&self) -> bool {
        self.state.standby || self.state.read_only
    }

    /// Whether the login may do anything.
    pub fn is_superuser(&self) -> bool {
        self.state.superuser
    }

    /// Lets go of buffers that grew large.
    pub fn trim(&mut self) {
        if self.swollen && self.input.is_empty() && self.output.is_empty() {
            (self.input, self.output) = (BytesMut::new(), BytesMut::new());
            self.swollen = false;
        }
    }

    /// Asks for what is under way to be cancelled, from another connection.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Queues Parse, Bind, Describe and Execute of the unnamed statement; to be
    /// followed by [`Self::sync`].
    ///
    /// # Errors
    /// What cannot be said in the protocol; nothing of the flight is queued then.
    pub fn statement(&mut self, statement: &Statement<'_>) -> Result<(), BadStatement> {
        let begun = *self.begun.get_or_insert(self.output.len());
        if self.unreset && begun == self.output.len() {
            // An error makes the server skip everything up to Sync (protocol,
            // "Extended Query").
            message::encode_own(RESET, &mut self.output);
        }
        let queued = message::encode(statement, &mut self.output);
        if queued.is_err() {
            self.output.truncate(begun);
            self.begun = None;
        }
        self.swollen |= self.output.len() > KEPT_BYTES;
        queued
    }

    /// Queues Sync, which ends a flight of statements.
    pub fn sync(&mut self, flight: Flight) {
        frontend::sync(&mut self.output);
        let has_statements = self.begun.take().is_some();
        if self.unreset && has_statements {
            self.unreset = false;
            self.state.sent_behind_reset();
        } else {
            self.state.sent(flight);
        }
    }

    /// Queues a simple query, a flight of its own. `sql` is ours, never built
    /// from what others sent.
    pub fn simple(&mut self, sql: &'static str, flight: Flight) {
        frontend::query(sql, &mut self.output).expect("our own SQL holds no NUL");
        self.unreset &= flight != Flight::Reset;
        self.state.sent(flight);
    }

    /// The next message that concerns a statement; what the server says beside
    /// (notices, settings) is dealt with here. `ReadyForQuery` ends a flight.
    ///
    /// # Errors
    /// [`Lost`]: the connection is of no use any more.
    pub async fn next(&mut self) -> Result<Message, Lost> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Lost>> {
        loop {
            match self.parse() {
                Ok(Some(message)) => return Poll::Ready(Ok(message)),
                Ok(None) => {}
                Err(lost) => return Poll::Ready(Err(self.state.lost(lost))),
            }
            if let Err(lost) = ready!(self.poll_exchange(context)) {
                return Poll::Ready(Err(self.state.lost(lost)));
            }
        }
    }

    /// Reads until nothing is owed; the first SQL error that came, if any.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn settle(&mut self) -> Result<Option<Box<ServerError>>, Lost> {
        let mut error = None;
        while self.state.owed() > 0 {
            if let Message::ErrorResponse(body) = self.next().await? {
                error.get_or_insert_with(|| Box::new(ServerError::read(&body)));
            }
        }
        Ok(error)
    }

    /// Takes in what an idle session was told meanwhile. `false` when it is
    /// gone. Costs no system call unless something came.
    pub fn is_alive(&mut self) -> bool {
        match self.next().now_or_never() {
            None => !self.state.is_broken(),
            // Nothing is owed, so nothing may come.
            Some(_) => false,
        }
    }

    /// Says good-bye and waits for the server to close.
    pub async fn close(mut self) {
        self.output.clear();
        frontend::terminate(&mut self.output);
        while poll_fn(|context| self.poll_exchange(context)).await.is_ok() {
            self.input.clear();
        }
    }

    fn parse(&mut self) -> Result<Option<Message>, Lost> {
        loop {
            if let Some(header) = Header::parse(&self.input).map_err(|_| Lost::Protocol)? {
                let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
                if length > MAX_FRAME_BYTES {
                    return Err(Lost::TooLarge);
                }
                self.swollen |= length > KEPT_BYTES;
            }
            let message = Message::parse(&mut self.input).map_err(|_| Lost::Protocol)?;
            let Some(message) = message else {
                return Ok(None);
            };
            if self.state.received(&message)? {
                return Ok(Some(message));
            }
        }
    }

    /// Sends what is queued as far as it goes and reads once: a server that is
    /// busy sending reads nothing, so neither may wait for the other.
    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if let Poll::Ready(Err(_)) = self.poll_output(context) {
            // A server that ended the session has said why before, and reading
            // comes to its end behind that.
            self.output.clear();
        }
        self.input.reserve(READ_BYTES);
        let transport = Pin::new(&mut self.transport);
        match ready!(poll_read_buf(transport, context, &mut self.input)) {
            Ok(0) => Poll::Ready(Err(Lost::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(Lost::Io(error.kind()))),
        }
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut transport = Pin::new(&mut self.transport);
        while !self.output.is_empty() {
            match ready!(transport.as_mut().poll_write(context, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.output.advance(count),
            }
        }
        transport.poll_flush(context)
    }
}
