//! What bb8 manages: sessions with a place among the open ones.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bb8::ManageConnection;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::limit::{Limit, Place, Turn};
use crate::pg::backend::{Connection, Target};
use crate::pg::failure::ConnectFailure;

/// For a server to close what was said good-bye to.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// Lifetimes vary by this share, so that sessions do not end all at once.
const JITTER: f64 = 0.1;

/// Opens sessions of one generation of a pool.
#[derive(Clone)]
pub(super) struct Manager {
    pub(super) target: Arc<Target>,
    /// Sessions that are open, whichever generation they belong to.
    pub(super) open: Arc<Limit<Infallible>>,
    pub(super) max_lifetime: Duration,
    /// A newer generation took over: whatever comes back is closed.
    pub(super) retired: Arc<AtomicBool>,
}

/// A session of a pool. Dropping it says good-bye; its place is free once the
/// server has closed, so that no more than the limit are ever open.
pub(super) struct Pooled {
    connection: Option<Connection>,
    place: Option<Place<Infallible>>,
    /// Of the generation it belongs to.
    retired: Arc<AtomicBool>,
    pub(super) expires: Instant,
    pub(super) last_used: Instant,
}

impl Pooled {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("taken only when it is dropped")
    }

    /// Whether it may be lent again: it is neither too old nor of settings that
    /// are not in force any more.
    pub(super) fn may_stay(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && self.expires > Instant::now()
    }
}

/// A place among the open sessions; waits for one.
pub(super) async fn open_place(open: &Arc<Limit<Infallible>>) -> Place<Infallible> {
    match open.acquire().await {
        Turn::Place(place) => place,
        Turn::Handed(never) => match never {},
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let (Some(connection), place) = (self.connection.take(), self.place.take()) else {
            return;
        };
        if connection.is_gone() {
            return;
        }
        // Without a runtime the process ends, and the sockets with it.
        if let Ok(runtime) = Handle::try_current() {
            // Ends by its own bound.
            runtime.spawn(async move {
                let _ = timeout(GOODBYE, connection.close()).await;
                drop(place);
            });
        }
    }
}

impl Manager {
    /// Opens a session at this place among the open ones.
    pub(super) async fn open_session(
        &self,
        place: Place<Infallible>,
    ) -> Result<Pooled, ConnectFailure> {
        let connection = Connection::connect(&self.target).await?;
        let now = Instant::now();
        let lifetime = self.max_lifetime.mul_f64(1.0 - JITTER * fastrand::f64());
        Ok(Pooled {
            connection: Some(connection),
            place: Some(place),
            retired: Arc::clone(&self.retired),
            expires: now + lifetime,
            last_used: now,
        })
    }
}

impl ManageConnection for Manager {
    type Connection = Pooled;
    type Error = ConnectFailure;

    /// Never asked either: sessions are put in by who lends them, on the one
    /// thread of the SQL runtime.
    async fn connect(&self) -> Result<Pooled, ConnectFailure> {
        self.open_session(open_place(&self.open).await).await
    }

    /// Never asked: a round trip at every checkout costs half the throughput.
    async fn is_valid(&self, _: &mut Pooled) -> Result<(), ConnectFailure> {
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        !pooled.may_stay() || !pooled.connection().is_clean() || pooled.connection().is_read_only()
    }
}
