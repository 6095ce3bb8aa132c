//! Interactive transactions, bound to an id and not to a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};

use crate::model::Kind;
use crate::pg::pool::Checkout;
use crate::pg::{Database, Databases};

/// Rolled back after so long without a request.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Rolled back after so long in all.
pub(super) const LIFE: Duration = Duration::from_secs(300);
/// How often it is looked which are over.
pub(super) const SWEEP: Duration = Duration::from_millis(500);
/// Bytes of an id.
const ID_BYTES: usize = 24;

/// All that are open, by id.
#[derive(Default)]
pub(super) struct Transactions {
    open: Mutex<HashMap<String, Arc<Transaction>>>,
}

struct Transaction {
    database: Arc<Database>,
    began: Instant,
    used: Mutex<Instant>,
    /// `None` while a request has it, and after one that vanished with it.
    session: Arc<TurnMutex<Option<Checkout>>>,
}

/// A request's turn in a transaction. The session goes back with
/// [`Turn::keep`]; otherwise the transaction is over, and dropping the session
/// rolls it back.
pub(super) struct Turn {
    transaction: Arc<Transaction>,
    session: OwnedMutexGuard<Option<Checkout>>,
    checkout: Option<Checkout>,
}

impl Transactions {
    /// Whether one more of this service fits into half of its pool.
    pub(super) fn has_room(&self, database: &Arc<Database>) -> bool {
        let open = self.open();
        let of_service = open
            .values()
            .filter(|one| Arc::ptr_eq(&one.database, database));
        of_service.count() < (database.pool.max() / 2).max(1)
    }

    /// Takes in a session whose transaction has begun; its id.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub(super) fn insert(
        &self,
        database: &Arc<Database>,
        checkout: Checkout,
    ) -> Result<String, Kind> {
        let mut bytes = [0; ID_BYTES];
        rand::fill(&mut bytes).map_err(|_| Kind::Internal)?;
        let id = URL_SAFE_NO_PAD.encode(bytes);
        let now = Instant::now();
        let transaction = Transaction {
            database: Arc::clone(database),
            began: now,
            used: Mutex::new(now),
            session: Arc::new(TurnMutex::new(Some(checkout))),
        };
        self.open().insert(id.clone(), Arc::new(transaction));
        Ok(id)
    }

    /// The next turn in a transaction of this service, and how long it may take.
    ///
    /// # Errors
    /// `TransactionExpired`: over, rolled back, or never there.
    pub(super) async fn turn(
        &self,
        database: &Arc<Database>,
        id: &str,
    ) -> Result<(Turn, Duration), Kind> {
        let expired = Kind::TransactionExpired;
        let found = self.open().get(id).cloned();
        let transaction = found
            .filter(|found| Arc::ptr_eq(&found.database, database))
            .ok_or(expired)?;
        let mut session = Arc::clone(&transaction.session).lock_owned().await;
        let rest = LIFE.saturating_sub(transaction.began.elapsed());
        let checkout = session.take().filter(|_| !rest.is_zero()).ok_or(expired)?;
        let turn = Turn {
            transaction,
            session,
            checkout: Some(checkout),
        };
        Ok((turn, rest))
    }

    /// Forgets a transaction that is over.
    pub(super) fn remove(&self, id: &str) {
        self.open().remove(id);
    }

    /// Ends those that have been idle for too long, are too old, lost their
    /// session to a request that vanished, or whose service is gone.
    pub(super) fn sweep(&self, databases: &Databases) {
        self.open().retain(|_, transaction| {
            let database = &transaction.database;
            let served = databases.get(&database.pool.name);
            let served = served.is_some_and(|served| Arc::ptr_eq(&served, database));
            let Ok(session) = transaction.session.try_lock() else {
                // A request has it; its own limit ends it.
                return true;
            };
            let used = *transaction
                .used
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_young = used.elapsed() < IDLE && transaction.began.elapsed() < LIFE;
            session.is_some() && is_young && served
        });
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Transaction>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(super) fn checkout(&mut self) -> &mut Checkout {
        self.checkout.as_mut().expect("given back only at the end")
    }

    /// The transaction goes on.
    pub(super) fn keep(mut self) {
        *self.session = self.checkout.take();
        let mut used = self
            .transaction
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *used = Instant::now();
    }
}
