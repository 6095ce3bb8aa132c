//! One at a time: an advisory lock that is asked for again and again.
//!
//! A waiter of `pg_advisory_lock` holds a snapshot, and `CREATE INDEX
//! CONCURRENTLY` of whoever has the lock waits for that snapshot: a deadlock.
//! Asking holds none.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

use super::super::session::{Session, SessionError};

/// Given up after this.
pub(in crate::pg) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Who has it is said this often.
const REPORT: Duration = Duration::from_secs(5);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(in crate::pg) enum LockError {
    #[error("somebody else was at it for {} s: {holder}", PATIENCE.as_secs())]
    Held { holder: String },
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Asks until it is ours; `waiting` is told of the holder now and then. The
/// session's end gives it back.
///
/// # Errors
/// [`LockError`].
pub(in crate::pg) async fn take(
    session: &Session,
    key: i64,
    mut waiting: impl FnMut(&str),
) -> Result<(), LockError> {
    let began = Instant::now();
    let mut report_at = began;
    loop {
        let query = "SELECT pg_try_advisory_lock($1)";
        let answer = session
            .client
            .query_typed(query, &[(&key, Type::INT8)])
            .await;
        let answer = answer.map_err(SessionError::from)?;
        if answer.first().is_some_and(|row| row.get(0)) {
            return Ok(());
        }
        let now = Instant::now();
        let late = now.duration_since(began) >= PATIENCE;
        if late || now >= report_at {
            let holder = holder(session, key).await?;
            if late {
                return Err(LockError::Held { holder });
            }
            waiting(&holder);
            report_at = now + REPORT;
        }
        // Ten that began at once must not keep in step.
        sleep(PAUSE.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}

/// Whether the session still has it.
///
/// # Errors
/// [`SessionError`].
pub(in crate::pg) async fn is_held(session: &Session, key: i64) -> Result<bool, SessionError> {
    let query =
        format!("SELECT EXISTS (SELECT FROM pg_locks l WHERE {ONE} AND l.pid = pg_backend_pid())");
    let rows = session
        .client
        .query_typed(&query, &[(&key, Type::INT8)])
        .await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Gives it back before the session ends.
///
/// # Errors
/// [`SessionError`].
pub(in crate::pg) async fn release(session: &Session, key: i64) -> Result<(), SessionError> {
    let query = "SELECT pg_advisory_unlock($1)";
    session
        .client
        .query_typed(query, &[(&key, Type::INT8)])
        .await?;
    Ok(())
}

/// An advisory lock by its one 64-bit key.
const ONE: &str = "l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                   AND (l.classid::bigint << 32 | l.objid::bigint) = $1";

/// `outrigger/shop/users at 10.0.0.7, process 4711 of the server`.
async fn holder(session: &Session, key: i64) -> Result<String, SessionError> {
    let query = format!(
        "SELECT l.pid, a.application_name, host(a.client_addr) \
         FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE {ONE} LIMIT 1"
    );
    let rows = session
        .client
        .query_typed(&query, &[(&key, Type::INT8)])
        .await?;
    let Some(row) = rows.first() else {
        return Ok("gone a moment ago".to_owned());
    };
    let (pid, name, address): (i32, Option<String>, Option<String>) =
        (row.get(0), row.get(1), row.get(2));
    let name = name.filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "a session".to_owned());
    let place = address.map_or(String::new(), |address| format!(" at {address}"));
    Ok(format!("{name}{place}, process {pid} of the server"))
}
