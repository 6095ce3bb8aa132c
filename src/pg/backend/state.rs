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

/// A flight under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    One(Flight),
    /// The reset, and behind it work that the server skips if the reset fails.
    ResetThenWork,
}

/// What may have been left behind since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    /// By work that shows nothing of the kind.
    Unseen,
    /// By work that is seen to change the session.
    Seen,
}

/// The state of a session.
#[derive(Debug)]
pub(super) struct State {
    transaction: Transaction,
    /// Flights whose `ReadyForQuery` is still to come, oldest first.
    owed: VecDeque<Owed>,
    /// Whether the flight being answered has failed.
    failed: bool,
    /// Whether the reset of the flight being answered has succeeded.
    reset: bool,
    left: Left,
    /// Work counts as leaving nothing behind until it is seen to (`reset: dirty`).
    lenient: bool,
    lost: Option<Lost>,
    /// `in_hot_standby` (PostgreSQL 14 and later).
    pub(super) standby: bool,
    /// `default_transaction_read_only` (PostgreSQL 14 and later).
    pub(super) read_only: bool,
    /// `is_superuser`, as of the login.
    pub(super) superuser: bool,
    /// Whether a reset is committed before the server looks at what follows it
    /// in the same flight (PostgreSQL 15 and later).
    pub(super) commits_reset: bool,
}

impl State {
    /// Of a session that is being opened: `ReadyForQuery` is to come.
    pub(super) fn opening(reset: DatabaseReset) -> Self {
        Self {
            transaction: Transaction::Idle,
            owed: VecDeque::from([Owed::One(Flight::Own)]),
            failed: false,
            reset: false,
            left: Left::Nothing,
            lenient: reset == DatabaseReset::Dirty,
            lost: None,
            standby: false,
            read_only: false,
            superuser: false,
            commits_reset: false,
        }
    }

    pub(super) fn transaction(&self) -> Transaction {
        self.transaction
    }

    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn owes_work(&self) -> bool {
        self.owed.iter().any(|owed| owed.is_work())
    }

    pub(super) fn is_clean(&self) -> bool {
        self.is_at_rest() && self.left == Left::Nothing
    }

    /// Whether it is for the next one's reset to undo what is left, if anything
    /// is: nothing is under way, and nothing was seen that may make it slow or
    /// fail.
    pub(super) fn may_be_handed_on(&self) -> bool {
        self.is_at_rest() && self.left != Left::Seen && (self.is_clean() || self.commits_reset)
    }

    fn is_at_rest(&self) -> bool {
        self.transaction == Transaction::Idle && self.owed.is_empty() && self.lost.is_none()
    }

    pub(super) fn is_used(&self) -> bool {
        self.left != Left::Nothing
    }

    pub(super) fn is_broken(&self) -> bool {
        self.lost.is_some()
    }

    /// Why it is over.
    pub(super) fn loss(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    /// A flight was queued.
    pub(super) fn sent(&mut self, flight: Flight) {
        if flight == Flight::Work {
            self.work_begins();
        }
        self.owed.push_back(Owed::One(flight));
    }

    /// A flight of the reset and work was queued.
    pub(super) fn sent_behind_reset(&mut self) {
        self.owed.push_back(Owed::ResetThenWork);
    }

    fn work_begins(&mut self) {
        if !self.lenient {
            self.left = self.left.max(Left::Unseen);
        }
    }

    /// The session is over.
    pub(super) fn lost(&mut self, lost: Lost) -> Lost {
        self.lost.get_or_insert(lost).clone()
    }

    /// Takes a message in; whether it is the caller's to see.
    ///
    /// # Errors
    /// The server ended the session, spoke out of turn, or could not reset it
    /// for the work behind.
    pub(super) fn received(&mut self, message: &Message) -> Result<bool, Lost> {
        if self.owed.front() == Some(&Owed::ResetThenWork)
            && !self.reset
            && let Some(step) = self.received_in_reset(message)
        {
            return step.map(|()| false);
        }
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
                if flight == Owed::One(Flight::Reset) && done && !self.owes_work() {
                    self.left = Left::Nothing;
                }
                self.failed = false;
                self.reset = false;
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
                    Ok("server_version") => {
                        self.commits_reset = setting.value().is_ok_and(commits_reset);
                    }
                    _ => {}
                }
                if self.owes_work() {
                    self.left = Left::Seen;
                }
                Ok(false)
            }
            Message::CommandComplete(done) => {
                let harmless = done.tag().is_ok_and(leaves_nothing);
                if !harmless && self.owed.front().is_some_and(|owed| owed.is_work()) {
                    self.left = Left::Seen;
                }
                Ok(true)
            }
            // The server waits for data, or sends what may never end.
            Message::CopyInResponse(_) | Message::CopyOutResponse(_) => Err(Lost::Copy),
            Message::NoticeResponse(_) | Message::NotificationResponse(_) => Ok(false),
            _ => Ok(true),
        }
    }

    /// A message that answers the reset before some work; `None` where it does
    /// not.
    fn received_in_reset(&mut self, message: &Message) -> Option<Result<(), Lost>> {
        match message {
            Message::ParseComplete | Message::BindComplete => Some(Ok(())),
            Message::CommandComplete(done) if done.tag().is_ok_and(|tag| tag == RESET) => {
                self.reset = true;
                self.left = Left::Nothing;
                self.work_begins();
                Some(Ok(()))
            }
            // Whatever it is about. While no message is being executed the
            // server fails by ending the session only, so an error that does
            // not end it is the reset's, and what is behind is skipped. Of
            // connections (class 08) somebody in between may have spoken, who
            // knows nothing of what was run.
            Message::ErrorResponse(body) => {
                let error = ServerError::read(body);
                if error.code.starts_with("08") {
                    return Some(Err(Lost::Server(Box::new(error))));
                }
                let last_word = error.is_fatal().then(|| Box::new(error));
                Some(Err(Lost::Unreset(last_word)))
            }
            Message::ParameterStatus(_)
            | Message::NoticeResponse(_)
            | Message::NotificationResponse(_) => None,
            _ => Some(Err(Lost::Protocol)),
        }
    }
}

impl Owed {
    fn is_work(self) -> bool {
        matches!(self, Self::One(Flight::Work) | Self::ResetThenWork)
    }
}

/// Undoes everything a session can keep, and says so in its command tag.
pub const RESET: &str = "DISCARD ALL";

/// Whether a server commits `DISCARD ALL` as soon as it is executed, by
/// `server_version` ("15.4 (Debian …)"). Others are sent nothing behind it.
fn commits_reset(version: &str) -> bool {
    let major = version
        .split(|letter: char| !letter.is_ascii_digit())
        .next();
    major
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major >= 15)
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
#[path = "state_tests.rs"]
mod tests;
