//! What is known of a session, changed here and nowhere else.

use std::collections::VecDeque;

use postgres_protocol::message::backend::Message;

use crate::model::DatabaseReset;
use crate::pg::failure::{Lost, ServerError};

/// The transaction status byte of `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    Idle,
    Open,
    /// Every statement is refused until it is rolled back.
    Failed,
}

/// Messages that one `ReadyForQuery` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flight {
    /// Statements of whoever borrowed the session: anything may be left behind.
    Work,
    /// Statements of ours that leave nothing behind.
    Own,
    /// The reset; ends what was left behind, if it succeeds outside a transaction.
    Reset,
}

/// The state of a session.
#[derive(Debug)]
pub(super) struct State {
    transaction: Transaction,
    /// Flights whose `ReadyForQuery` is still to come, oldest first.
    owed: VecDeque<Flight>,
    /// Whether the flight being answered has failed.
    failed: bool,
    used: bool,
    /// Work counts as leaving nothing behind until it is seen to (`reset: dirty`).
    lenient: bool,
    lost: Option<Lost>,
    /// `in_hot_standby` (PostgreSQL 14 and later).
    pub(super) standby: bool,
    /// `default_transaction_read_only` (PostgreSQL 14 and later).
    pub(super) read_only: bool,
    /// `is_superuser`, as of the login.
    pub(super) superuser: bool,
}

impl State {
    /// Of a session that is being opened: `ReadyForQuery` is to come.
    pub(super) fn opening(reset: DatabaseReset) -> Self {
        Self {
            transaction: Transaction::Idle,
            owed: VecDeque::from([Flight::Own]),
            failed: false,
            used: false,
            lenient: reset == DatabaseReset::Dirty,
            lost: None,
            standby: false,
            read_only: false,
            superuser: false,
        }
    }

    pub(super) fn transaction(&self) -> Transaction {
        self.transaction
    }

    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn owes_work(&self) -> bool {
        self.owed.contains(&Flight::Work)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.transaction == Transaction::Idle
            && self.owed.is_empty()
            && !self.used
            && self.lost.is_none()
    }

    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    pub(super) fn is_broken(&self) -> bool {
        self.lost.is_some()
    }

    /// A flight was queued.
    pub(super) fn sent(&mut self, flight: Flight) {
        self.used |= flight == Flight::Work && !self.lenient;
        self.owed.push_back(flight);
    }

    /// The session is over.
    pub(super) fn lost(&mut self, lost: Lost) -> Lost {
        self.lost.get_or_insert(lost).clone()
    }

    /// Takes a message in; whether it is the caller's to see.
    ///
    /// # Errors
    /// The server ended the session, or spoke out of turn.
    pub(super) fn received(&mut self, message: &Message) -> Result<bool, Lost> {
        match message {
            Message::ReadyForQuery(ready) => {
                self.transaction = match ready.status() {
                    b'I' => Transaction::Idle,
                    b'T' => Transaction::Open,
                    b'E' => Transaction::Failed,
                    _ => return Err(Lost::Protocol),
                };
                let flight = self.owed.pop_front().ok_or(Lost::Protocol)?;
                let done = !self.failed && self.transaction == Transaction::Idle;
                let more_work = self.owed.contains(&Flight::Work);
                if flight == Flight::Reset && done && !more_work {
                    self.used = false;
                }
                self.failed = false;
                Ok(true)
            }
            Message::ErrorResponse(body) => {
                let error = ServerError::read(body);
                if error.is_fatal() {
                    return Err(Lost::Server(Box::new(error)));
                }
                self.failed = true;
                Ok(true)
            }
            Message::ParameterStatus(setting) => {
                let is_on = setting.value().is_ok_and(|value| value == "on");
                match setting.name() {
                    Ok("in_hot_standby") => self.standby = is_on,
                    Ok("default_transaction_read_only") => self.read_only = is_on,
                    Ok("is_superuser") => self.superuser = is_on,
                    _ => {}
                }
                self.used |= self.owes_work();
                Ok(false)
            }
            Message::CommandComplete(done) => {
                let harmless = done.tag().is_ok_and(leaves_nothing);
                self.used |= !harmless && self.owed.front() == Some(&Flight::Work);
                Ok(true)
            }
            // The server waits for data, or sends what may never end.
            Message::CopyInResponse(_) | Message::CopyOutResponse(_) => Err(Lost::Copy),
            Message::NoticeResponse(_) | Message::NotificationResponse(_) => Ok(false),
            _ => Ok(true),
        }
    }
}

/// Whether a command tag is one of those that change nothing in the session;
/// `set_config` and advisory locks inside a SELECT are not seen.
fn leaves_nothing(tag: &str) -> bool {
    let command = tag.split(' ').next().unwrap_or_default();
    matches!(
        command,
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "BEGIN" | "COMMIT" | "ROLLBACK"
    )
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn ready(status: u8) -> Message {
        let mut bytes = BytesMut::from(&[b'Z', 0, 0, 0, 5, status][..]);
        Message::parse(&mut bytes)
            .expect("well-formed")
            .expect("whole")
    }

    fn error(severity: &str) -> Message {
        let fields = format!("S{severity}\0V{severity}\0C57014\0Mno\0\0");
        let length = u32::try_from(fields.len() + 4).expect("short");
        let mut bytes = BytesMut::from(&b"E"[..]);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(fields.as_bytes());
        Message::parse(&mut bytes)
            .expect("well-formed")
            .expect("whole")
    }

    fn opened() -> State {
        let mut state = State::opening(DatabaseReset::Always);
        state.received(&ready(b'I')).expect("a good start");
        assert!(state.is_clean());
        state
    }

    #[test]
    fn work_is_used_until_a_reset_succeeds() {
        let mut state = opened();
        state.sent(Flight::Work);
        state.sent(Flight::Reset);
        assert_eq!(state.owed(), 2);
        state.received(&ready(b'I')).expect("fine");
        assert!(!state.is_clean() && state.is_used());
        state.received(&ready(b'I')).expect("fine");
        assert!(state.is_clean());
    }

    #[test]
    fn a_reset_that_fails_or_runs_in_a_transaction_is_none() {
        for (failing, status) in [(true, b'I'), (false, b'T'), (true, b'E')] {
            let mut state = opened();
            state.sent(Flight::Work);
            state.sent(Flight::Reset);
            state.received(&ready(status)).expect("fine");
            if failing {
                state.received(&error("ERROR")).expect("no end");
            }
            state.received(&ready(status)).expect("fine");
            assert!(state.is_used() && !state.is_clean());
        }
    }

    #[test]
    fn a_lenient_session_is_used_by_what_is_seen_to_change_it() {
        for (tag, used) in [("SELECT 1", false), ("SET", true), ("CREATE TABLE", true)] {
            let mut state = State::opening(DatabaseReset::Dirty);
            state.received(&ready(b'I')).expect("a good start");
            state.sent(Flight::Work);
            let length = u32::try_from(tag.len() + 5).expect("short");
            let mut bytes = BytesMut::from(&b"C"[..]);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(format!("{tag}\0").as_bytes());
            let done = Message::parse(&mut bytes).expect("well-formed");
            state.received(&done.expect("whole")).expect("fine");
            state.received(&ready(b'I')).expect("fine");
            assert_eq!(state.is_used(), used, "{tag}");
        }
    }

    #[test]
    fn what_was_not_asked_for_or_is_fatal_ends_it() {
        let mut state = opened();
        assert!(state.received(&ready(b'I')).is_err());
        let mut state = opened();
        let fatal = state.received(&error("FATAL"));
        assert!(matches!(fatal, Err(Lost::Server(_))));
    }
}
