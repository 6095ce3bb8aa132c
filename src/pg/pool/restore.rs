//! Making a session fit for the next borrower.

use std::time::{Duration, Instant};

use tokio::task::yield_now;
use tokio::time::timeout;

use super::checkout::Lent;
use crate::pg::backend::{Connection, Flight, RESET, Transaction};
use crate::pg::failure::Lost;

/// For everything; what takes longer is closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives a session back, clean, or closes it.
pub(super) async fn restore(lent: Lent) {
    // Whoever asks just now may have it as it is.
    yield_now().await;
    let Some(mut lent) = lent.handed_on() else {
        return;
    };
    let connection = lent.pooled.connection();
    if !lent.spoiled && !connection.is_broken() && !connection.is_clean() {
        // Whatever comes of it, the session itself knows whether it is clean.
        let _ = timeout(PATIENCE, clean(connection)).await;
    }
    if lent.spoiled {
        // An answer that is never read: not clean, so not kept.
        lent.pooled.connection().sync(Flight::Own);
    }
    if let Some(lent) = lent.handed_on() {
        give_back(lent);
    }
}

/// Puts a session among the idle ones if it is clean, else closes it.
pub(super) fn give_back(mut lent: Lent) {
    lent.pooled.connection().trim();
    lent.pooled.last_used = Instant::now();
    let Lent {
        pooled,
        pool,
        place,
        ..
    } = lent;
    drop(pooled);
    // Who waits for leave to open another comes before who waits in turn.
    pool.returned.notify_one();
    drop(place);
}

/// Once is enough, unless a request to cancel hit the reset, or a transaction
/// was open when the reset came.
async fn clean(connection: &mut Connection) -> Result<(), Lost> {
    if connection.owes_work() {
        connection.cancel_token().cancel().await;
    }
    connection.settle().await?;
    for _ in 0..2 {
        if connection.transaction() != Transaction::Idle {
            connection.simple("ROLLBACK", Flight::Own);
        }
        if connection.is_used() {
            connection.simple(RESET, Flight::Reset);
        }
        connection.settle().await?;
        if connection.is_clean() {
            break;
        }
    }
    Ok(())
}
