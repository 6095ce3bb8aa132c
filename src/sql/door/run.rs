//! Statements over a borrowed session, in one flight.

use std::pin::pin;
use std::time::Duration;

use postgres_protocol::message::backend::Message;
use tokio::time::{Instant, sleep, timeout};

use super::answer::Refusal;
use super::request::{Begin, Query};
use super::rows::Rows;
use crate::model::DatabaseReset;
use crate::pg::Database;
use crate::pg::backend::{Connection, Flight, RESET, Statement};
use crate::pg::failure::ServerError;
use crate::pg::pool::{Checkout, ServicePool};

/// The server's own `statement_timeout` should come first; what the tenant did
/// to it does not matter to ours.
const GRACE: Duration = Duration::from_secs(1);
/// For a cancelled statement to end.
const CANCELLED: Duration = Duration::from_secs(5);

/// Where and for how long statements run.
pub(super) struct Ground<'a> {
    pub(super) database: &'a Database,
    pub(super) limit: Duration,
    /// Bytes of an answer.
    pub(super) max_bytes: u64,
}

impl Ground<'_> {
    /// One query in a transaction of its own.
    pub(super) async fn one(&self, query: &Query<'_>) -> Result<Vec<u8>, Refusal> {
        let mut attempts = Attempts::default();
        loop {
            let mut checkout = self.database.pool.checkout().await?;
            attempts.begin();
            let result = self
                .timed(&mut checkout, async |connection| {
                    connection.statement(&query.statement())?;
                    self.end_of_work(connection);
                    let mut rows = Rows::new(self.max_bytes);
                    rows.begin(query.shape);
                    read_one(connection, &self.database.pool, &mut rows).await?;
                    Ok(rows.finish())
                })
                .await;
            if !attempts.has_another(&mut checkout, self.database.pool.patience()) {
                return result;
            }
        }
    }

    /// A batch, in one transaction and one flight.
    pub(super) async fn batch(
        &self,
        queries: &[Query<'_>],
        begin: Begin,
    ) -> Result<Vec<u8>, Refusal> {
        if let Some(index) = queries.iter().position(Query::ends_transaction) {
            return Err(Refusal::Statement {
                code: "2D000",
                message: format!("query {index} of the batch would end its transaction"),
            });
        }
        let mut attempts = Attempts::default();
        loop {
            let mut checkout = self.database.pool.checkout().await?;
            attempts.begin();
            let result = self
                .timed(&mut checkout, async |connection| {
                    own_statement(connection, &begin.sql())?;
                    for query in queries {
                        connection.statement(&query.statement())?;
                    }
                    own_statement(connection, "COMMIT")?;
                    self.end_of_work(connection);
                    let mut rows = Rows::new(self.max_bytes);
                    rows.literal("{\"results\":[");
                    read_batch(connection, &self.database.pool, queries, &mut rows).await?;
                    rows.literal("]}");
                    Ok(rows.finish())
                })
                .await;
            if attempts.has_another(&mut checkout, self.database.pool.patience()) {
                continue;
            }
            if begin.is_read_only() {
                return result;
            }
            return spoil_if_read_only(&mut checkout, result);
        }
    }

    /// A transaction that goes on.
    pub(super) async fn begun(&self, begin: Begin) -> Result<Checkout, Refusal> {
        let mut attempts = Attempts::default();
        loop {
            let mut checkout = self.database.pool.checkout().await?;
            attempts.begin();
            let result = self.own(&mut checkout, &begin.sql()).await;
            if !attempts.has_another(&mut checkout, self.database.pool.patience()) {
                return result.map(|_| checkout);
            }
        }
    }

    /// One query of an interactive transaction.
    pub(super) async fn within(
        &self,
        checkout: &mut Checkout,
        query: &Query<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        self.timed(checkout, async |connection| {
            connection.statement(&query.statement())?;
            connection.sync(Flight::Work);
            let mut rows = Rows::new(self.max_bytes);
            rows.begin(query.shape);
            read_one(connection, &self.database.pool, &mut rows).await?;
            Ok(rows.finish())
        })
        .await
    }

    /// A statement of ours; the command it completed as.
    pub(super) async fn own(&self, checkout: &mut Checkout, sql: &str) -> Result<String, Refusal> {
        self.timed(checkout, async |connection| {
            own_statement(connection, sql)?;
            connection.sync(Flight::Work);
            let mut command = String::new();
            let mut failure = None;
            loop {
                match connection.next().await? {
                    Message::CommandComplete(body) => {
                        body.tag().unwrap_or_default().clone_into(&mut command);
                    }
                    Message::ErrorResponse(body) => {
                        failure.get_or_insert(Box::new(ServerError::read(&body)));
                    }
                    Message::ReadyForQuery(_) => break,
                    _ => {}
                }
            }
            self.database.pool.good();
            match failure {
                Some(error) => Err(Refusal::of(error, None)),
                None => Ok(command),
            }
        })
        .await
    }

    /// Ends a flight after which the session is done with.
    fn end_of_work(&self, connection: &mut Connection) {
        connection.sync(Flight::Work);
        let goes_on = connection.can_reset_later() && self.database.pool.is_wanted();
        if self.database.spec().reset == DatabaseReset::Always && !goes_on {
            // Behind the answer, so that nobody waits for it. Where somebody
            // waits for the session it goes before their work instead.
            connection.simple(RESET, Flight::Reset);
        }
    }

    /// Runs with our own clock, whatever the tenant has set, and with an eye on
    /// servers that hold connections and say nothing.
    async fn timed<T>(
        &self,
        checkout: &mut Checkout,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let pool = &self.database.pool;
        let token = checkout.connection().cancel_token();
        let result = {
            let mut work = pin!(work(checkout.connection()));
            let patience = pool.patience().min(self.limit);
            tokio::select! {
                result = &mut work => Some(result),
                () = sleep(patience) => {
                    // It may be a long query, or a server that is frozen.
                    pool.suspect();
                    let rest = (self.limit + GRACE).saturating_sub(patience);
                    tokio::select! {
                        result = &mut work => Some(result),
                        failure = pool.silent() => Some(Err(failure.into())),
                        () = sleep(rest) => {
                            token.cancel().await;
                            timeout(CANCELLED, work).await.ok()
                        }
                    }
                }
            }
        };
        if checkout.connection().is_broken() {
            pool.suspect();
        }
        match result {
            Some(result) => spoil_if_gone(checkout, result),
            None => {
                checkout.spoil();
                Err(Refusal::unavailable("statement_timeout"))
            }
        }
    }
}

/// Sessions that work was tried on. Each that fails is closed, and a new one
/// needs no reset, so this comes to an end by itself; the time is for a server
/// that ends them all, and for a reset that takes all of a statement's.
#[derive(Default)]
struct Attempts {
    /// Since the first of them was there.
    since: Option<Instant>,
}

impl Attempts {
    /// Work is tried on a session.
    fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether the work is for another session to do: the reset that went
    /// before it failed, so nothing of it was run.
    fn has_another(&self, checkout: &mut Checkout, patience: Duration) -> bool {
        checkout.connection().is_unreset()
            && self.since.is_some_and(|since| since.elapsed() < patience)
    }
}

/// A server that goes away or has become another one: its session is closed.
fn spoil_if_gone<T>(checkout: &mut Checkout, result: Result<T, Refusal>) -> Result<T, Refusal> {
    if let Err(Refusal::Kind(..)) = &result {
        let too_large = matches!(&result, Err(refusal) if refusal.kind() == Some(crate::model::Kind::AnswerTooLarge));
        if !too_large {
            checkout.spoil();
        }
    }
    result
}

fn spoil_if_read_only<T>(
    checkout: &mut Checkout,
    result: Result<T, Refusal>,
) -> Result<T, Refusal> {
    if let Err(Refusal::Sql(error, _)) = &result
        && error.spoils_connection()
    {
        checkout.spoil();
    }
    result
}

fn own_statement(connection: &mut Connection, sql: &str) -> Result<(), Refusal> {
    let statement = Statement {
        sql,
        parameters: Vec::new(),
    };
    Ok(connection.statement(&statement)?)
}

/// Reads one query's flight to its end.
async fn read_one(
    connection: &mut Connection,
    pool: &ServicePool,
    rows: &mut Rows,
) -> Result<(), Refusal> {
    let mut failure = None;
    loop {
        match connection.next().await? {
            Message::ErrorResponse(body) => {
                failure.get_or_insert(Box::new(ServerError::read(&body)));
            }
            Message::ReadyForQuery(_) => break,
            message => {
                read_into(&message, rows)?;
            }
        }
    }
    pool.good();
    match failure {
        Some(error) => Err(Refusal::of(error, None)),
        None => Ok(()),
    }
}

/// Reads a batch: BEGIN, the queries, COMMIT.
async fn read_batch(
    connection: &mut Connection,
    pool: &ServicePool,
    queries: &[Query<'_>],
    rows: &mut Rows,
) -> Result<(), Refusal> {
    let mut failure = None;
    // Statements that are done; the first is BEGIN.
    let mut done = 0_usize;
    loop {
        let message = connection.next().await?;
        match &message {
            Message::ErrorResponse(body) => {
                let index = done.checked_sub(1).filter(|index| *index < queries.len());
                failure.get_or_insert((Box::new(ServerError::read(body)), index));
                continue;
            }
            Message::ReadyForQuery(_) => break,
            _ => {}
        }
        let query = done.checked_sub(1).and_then(|index| queries.get(index));
        match (query, &message) {
            (Some(query), Message::ParseComplete) => rows.begin(query.shape),
            (Some(_), message) => done += usize::from(read_into(message, rows)?),
            (None, Message::CommandComplete(_)) => done += 1,
            (None, _) => {}
        }
    }
    pool.good();
    match failure {
        Some((error, index)) => Err(Refusal::of(error, index)),
        None => Ok(()),
    }
}

/// Takes one message in; whether it ends a statement.
fn read_into(message: &Message, rows: &mut Rows) -> Result<bool, Refusal> {
    match message {
        Message::RowDescription(body) => rows.describe(body).map(|()| false),
        Message::DataRow(body) => rows.row(body).map(|()| false),
        Message::CommandComplete(body) => {
            rows.complete(body.tag().unwrap_or_default());
            Ok(true)
        }
        Message::EmptyQueryResponse => {
            rows.complete("");
            Ok(true)
        }
        _ => Ok(false),
    }
}
