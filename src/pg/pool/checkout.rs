//! Lending a session.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bb8::PooledConnection;
use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::limit::{Place, Turn};
use super::manager::{GOODBYE, Manager, open_place};
use super::restore::{give_back, restore};
use super::{Generation, ServicePool};
use crate::pg::Login;
use crate::pg::backend::{Connection, Flight};
use crate::pg::failure::ConnectFailure;

/// A session that was idle for longer is asked before it is lent.
const TRUSTED: Duration = Duration::from_secs(30);
/// For that answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Why nothing was lent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutFailure {
    #[error("every connection of the pool was in use for too long")]
    Exhausted,
    #[error(transparent)]
    Unreachable(Arc<ConnectFailure>),
    /// Not prepared yet, or preparing it failed.
    #[error("the pool is not open")]
    NotOpen,
}

impl CheckoutFailure {
    /// One word for clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Exhausted => "pool_exhausted",
            Self::Unreachable(failure) => failure.reason(),
            Self::NotOpen => "not_ready",
        }
    }
}

/// A session on loan. When it is dropped, whatever is still under way is
/// cancelled, what was left behind is undone, and the session goes back, or is
/// closed if that cannot be done in time. One that is at rest goes straight to
/// who waits, if anybody does.
pub struct Checkout {
    lent: Option<Lent>,
}

/// The session and its place in the queue, which is given up last.
pub(super) struct Lent {
    pub(super) pooled: PooledConnection<'static, Manager>,
    pub(super) spoiled: bool,
    pub(super) pool: Arc<ServicePool>,
    pub(super) place: Place<Checkout>,
}

impl Checkout {
    /// The session.
    pub fn connection(&mut self) -> &mut Connection {
        let lent = self.lent.as_mut().expect("taken only when it is dropped");
        lent.pooled.connection()
    }

    /// The session is closed instead of going back.
    pub fn spoil(&mut self) {
        if let Some(lent) = &mut self.lent {
            lent.spoiled = true;
        }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(lent) = self.lent.take() else {
            return;
        };
        // Without a runtime the process ends, and the sockets with it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        lent.pool.pulse.beat();
        let Some(mut lent) = lent.handed_on() else {
            return;
        };
        if !lent.spoiled && lent.pooled.connection().is_clean() {
            return give_back(lent);
        }
        // Ends by its own bound.
        runtime.spawn(restore(lent));
    }
}

impl Lent {
    /// Passes it on to who waits longest; given back if it may not be, or if
    /// nobody waits.
    pub(super) fn handed_on(mut self) -> Option<Self> {
        let pool = Arc::clone(&self.pool);
        let connection = self.pooled.connection();
        let may_be = !self.spoiled && connection.may_be_handed_on();
        if !may_be || !pool.is_wanted() || !self.pooled.may_stay() {
            return Some(self);
        }
        let connection = self.pooled.connection();
        connection.trim();
        connection.hand_on();
        let back = pool.work.hand_on(Checkout { lent: Some(self) });
        back.and_then(|mut checkout| checkout.lent.take())
    }
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ServicePool {
    /// Borrows a session: in turn, and for no longer than the connection timeout
    /// plus the time it takes to connect. Fails at once while the server is
    /// known to be away.
    ///
    /// # Errors
    /// [`CheckoutFailure`], with the real cause.
    pub async fn checkout(self: &Arc<Self>) -> Result<Checkout, CheckoutFailure> {
        let asked = Instant::now();
        let generation = self
            .generation()
            .map_err(|closed| match self.standing.failure() {
                Some(failure) => CheckoutFailure::Unreachable(failure),
                None => closed,
            })?;
        self.bar(&generation)?;
        self.pulse.beat();
        let turn = match self.work.try_acquire() {
            Some(place) => Ok(Turn::Place(place)),
            None => self.wait(generation.timeout).await,
        };
        drop(generation);
        let checkout = match turn {
            Ok(Turn::Handed(checkout)) => checkout,
            Ok(Turn::Place(place)) => {
                let lent = Some(self.lend(place).await?);
                Checkout { lent }
            }
            Err(_) => {
                self.metrics.timed_out();
                let failure = self.standing.failure();
                return Err(
                    failure.map_or(CheckoutFailure::Exhausted, CheckoutFailure::Unreachable)
                );
            }
        };
        self.metrics.waited(asked.elapsed());
        Ok(checkout)
    }

    async fn wait(&self, time: Duration) -> Result<Turn<Checkout>, Elapsed> {
        let _waiting = Waiting::begin(&self.waiting);
        let mut turn = pin!(timeout(time, self.work.acquire()));
        // Stands in the queue from the first look on.
        if let Some(turn) = turn.as_mut().now_or_never() {
            return turn;
        }
        if self.is_crowded() {
            self.pulse.crowded();
        }
        turn.await
    }

    fn generation(&self) -> Result<Arc<Generation>, CheckoutFailure> {
        self.current.load_full().ok_or(CheckoutFailure::NotOpen)
    }

    /// Says no at once where an attempt would only fail like the last one.
    fn bar(&self, generation: &Generation) -> Result<(), CheckoutFailure> {
        match self.standing.barred(Instant::now()) {
            Some(failure) if failure.is_silence() || generation.idle() == 0 => {
                Err(CheckoutFailure::Unreachable(failure))
            }
            _ => Ok(()),
        }
    }

    async fn lend(self: &Arc<Self>, place: Place<Checkout>) -> Result<Lent, CheckoutFailure> {
        // Mostly one lies idle, and nothing has to be waited for.
        let pooled = match self.generation()?.take_idle().await {
            Some(pooled) => pooled,
            None => self.idle_or_new().await?,
        };
        Ok(Lent {
            pooled,
            spoiled: false,
            pool: Arc::clone(self),
            place,
        })
    }

    /// A session that comes back, or else a new one. Never only a new one: all
    /// that may be open can be, and lie idle, by the time its turn comes.
    async fn idle_or_new(&self) -> Result<PooledConnection<'static, Manager>, CheckoutFailure> {
        // What comes back is theirs before it is handed on.
        let _seeking = Waiting::begin(&self.seeking);
        loop {
            let generation;
            let (_connecting, place) = {
                // Gone before a session is opened: it would keep a wake-up
                // from who still waits.
                let mut returned = std::pin::pin!(self.returned.notified());
                // From here on nothing is missed.
                returned.as_mut().enable();
                // Other settings may be in force by now.
                generation = self.generation()?;
                if let Some(pooled) = generation.take_idle().await {
                    return Ok(pooled);
                }
                let leave = async {
                    let connecting = generation.connecting.acquire().await;
                    let connecting = connecting.expect("the semaphore is never closed");
                    (connecting, open_place(&self.open).await)
                };
                tokio::select! {
                    biased;
                    () = returned => continue,
                    leave = leave => leave,
                }
            };
            if generation.idle() > 0 {
                continue;
            }
            self.bar(&generation)?;
            self.connect(&generation, place)
                .await
                .map_err(CheckoutFailure::Unreachable)?;
        }
    }

    /// Opens a session and puts it among the idle ones.
    async fn connect(
        &self,
        generation: &Generation,
        place: Place<Infallible>,
    ) -> Result<(), Arc<ConnectFailure>> {
        match generation.manager.open_session(place).await {
            Ok(mut pooled) => {
                self.standing.good(Instant::now());
                if pooled.connection().is_superuser() && !self.warned.swap(true, Ordering::Relaxed)
                {
                    let service = &self.name;
                    tracing::warn!(
                        %service,
                        "the service logs in as a superuser: whatever SQL it sends may do anything"
                    );
                }
                // Refused only when other settings are in force.
                let _ = generation.pool.add(pooled);
                Ok(())
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// The server was found to be away by somebody else.
    pub fn missed(&self, failure: ConnectFailure) {
        self.failed(failure);
    }

    fn failed(&self, failure: ConnectFailure) -> Arc<ConnectFailure> {
        let failure = Arc::new(failure);
        self.metrics.connect_error(failure.reason());
        if self.standing.bad(&failure, Instant::now()) {
            let service = &self.name;
            let reason = failure.reason();
            tracing::warn!(%service, reason, error = %failure, "the database cannot be reached");
        }
        failure
    }

    /// Asks the server whether it is there: over an idle session or a new one of
    /// the pool; while all are in use, without a session, so that there are never
    /// more than the limit.
    ///
    /// # Errors
    /// Why there is no session to be had.
    pub async fn probe(&self) -> Result<(), Arc<ConnectFailure>> {
        let Ok(generation) = self.generation() else {
            return Ok(());
        };
        let Some(_place) = self.work.try_acquire() else {
            return self.knock(&generation).await;
        };
        if generation.take_asked().await {
            self.standing.good(Instant::now());
            self.returned.notify_one();
            return Ok(());
        }
        // Those that say good-bye are gone by then.
        match timeout(GOODBYE, open_place(&self.open)).await {
            Ok(place) => {
                let connected = self.connect(&generation, place).await;
                self.returned.notify_one();
                connected
            }
            Err(_) => self.knock(&generation).await,
        }
    }

    /// Asks without a session.
    async fn knock(&self, generation: &Generation) -> Result<(), Arc<ConnectFailure>> {
        match generation.manager.target.knock().await {
            Ok(()) => {
                self.standing.good(Instant::now());
                Ok(())
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// What sessions log in as; `None` before the pool is open.
    pub fn login(&self) -> Option<Login> {
        let current = self.current.load();
        current
            .as_ref()
            .map(|open| open.manager.target.login.clone())
    }
}

impl Generation {
    /// An idle session that is still there; those that are not are closed.
    async fn take_idle(&self) -> Option<PooledConnection<'static, Manager>> {
        while self.idle() > 0 {
            let mut pooled = self.pool.get_owned().await.ok()?;
            let rested = pooled.last_used.elapsed();
            let connection = pooled.connection();
            if connection.is_read_only() || !connection.is_alive() {
                continue;
            }
            if rested < TRUSTED || answers(connection).await {
                return Some(pooled);
            }
        }
        None
    }

    /// Whether an idle session answers.
    async fn take_asked(&self) -> bool {
        match self.take_idle().await {
            Some(mut pooled) => answers(pooled.connection()).await,
            None => false,
        }
    }
}

/// Asks for nothing but an answer.
async fn answers(connection: &mut Connection) -> bool {
    connection.sync(Flight::Own);
    matches!(timeout(ANSWER, connection.settle()).await, Ok(Ok(None)))
}
