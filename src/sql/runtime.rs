//! The thread that pools and door live on.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::door::{self, Door};
use super::follow::{Following, follow};
use super::pace;
use crate::drain::DrainWatcher;
use crate::health::CheckCell;
use crate::model::{DatabaseSpec, DoorListen, ServiceName};
use crate::net::bind_alone;
use crate::pg::Databases;
use crate::snapshot::{Current, Service};
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::{HealthKind, Metrics};
use crate::telemetry::readiness::Readiness;
use crate::telemetry::spans::SpanQueue;
use crate::telemetry::supervise::Supervisor;

/// Threads for look-ups, certificate files and the like.
const BLOCKING_THREADS: usize = 4;
/// For open transactions to be rolled back when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the wing needs of the process.
pub struct Parts {
    pub current: Current,
    pub databases: Databases,
    pub metrics: Metrics,
    pub supervisor: Supervisor,
    /// Told what start-up has to wait for.
    pub startup: Readiness,
    pub drain: DrainWatcher,
    pub spans: SpanQueue,
    pub log: LogHandle,
}

/// The Postgres wing. Cheap to clone.
#[derive(Clone)]
pub struct Sql {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    services: BTreeMap<ServiceName, Followed>,
    bind_error: Option<(SocketAddr, io::Error)>,
}

/// The thread and what runs on it; dropping it ends both.
struct Running {
    handle: Handle,
    door: Option<AbortOnDropHandle<()>>,
    /// Held for its drop.
    pace: AbortOnDropHandle<()>,
    /// Dropped to end the thread.
    stop: oneshot::Sender<()>,
}

/// What looks after one service's database.
struct Followed {
    spec: Arc<DatabaseSpec>,
    cell: Arc<CheckCell>,
    _task: AbortOnDropHandle<()>,
}

impl Sql {
    /// Nothing is started before the first service with a database.
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                state: Mutex::default(),
            }),
        }
    }

    /// A version of a service is in force. What concerns a database that did not
    /// change is kept.
    pub fn serving(&self, service: &Arc<Service>) {
        let name = &service.name;
        let ready = service.as_ready();
        let wanted = ready.and_then(|ready| {
            let spec = ready.spec.database.as_ref()?;
            let watched = ready.health.database.as_ref()?;
            Some((Arc::new(spec.clone()), watched.clone()))
        });
        let Some((spec, watched)) = wanted else {
            if ready.is_some() {
                self.gone(name);
            }
            return;
        };
        let mut state = self.inner.state();
        let same =
            |known: &Followed| *known.spec == *spec && Arc::ptr_eq(&known.cell, &watched.check);
        if state.services.get(name).is_some_and(same) {
            return;
        }
        let Some(handle) = self.inner.started(&mut state) else {
            return;
        };
        let parts = &self.inner.parts;
        let database = parts.databases.ensure(name, &spec, &parts.metrics);
        database.set_spec(Arc::clone(&spec));
        let following = Following {
            database,
            spec: Arc::clone(&spec),
            watched: watched.clone(),
            gauge: parts.metrics.health(name.key(), HealthKind::Database),
            migrations: parts.metrics.migrations(name),
            drain: parts.drain.clone(),
            // Only a start waits: what is up stays ready whatever is changed.
            pending: (spec.required && !parts.startup.is_ready())
                .then(|| parts.startup.wait_for(&format!("database of {name}"))),
        };
        let task = handle.spawn(follow(following, parts.supervisor.clone()));
        let followed = Followed {
            spec,
            cell: watched.check,
            _task: AbortOnDropHandle::new(task),
        };
        state.services.insert(name.clone(), followed);
    }

    /// A service is no longer served, or has no database any more.
    pub fn gone(&self, name: &ServiceName) {
        let mut state = self.inner.state();
        state.services.remove(name);
        if let Some(database) = self.inner.parts.databases.remove(name)
            && let Some(running) = &state.running
        {
            // Sessions say good-bye on the runtime they live on.
            running.handle.spawn(async move { database.pool.close() });
        }
    }

    /// Whether the door could be had, once services with a database are served.
    ///
    /// # Errors
    /// The address that is taken.
    pub fn bound(&self) -> Result<(), (SocketAddr, io::Error)> {
        match self.inner.state().bind_error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Ends door, transactions and pools.
    pub fn stop(&self) {
        let databases = &self.inner.parts.databases;
        let running = {
            let mut state = self.inner.state();
            state.services.clear();
            state.running.take()
        };
        let Some(running) = running else { return };
        let Running {
            handle,
            door,
            pace,
            stop,
        } = running;
        // With their connections, open transactions go.
        drop((door, pace));
        let (done, ended) = std_mpsc::sync_channel(1);
        let all = databases.list();
        handle.spawn(async move {
            for database in all {
                database.pool.close();
                database.pool.returned().await;
            }
            // Nobody may be waiting any more.
            let _ = done.send(());
        });
        // What is left then is cut, which the server sees.
        let _ = ended.recv_timeout(FAREWELL);
        drop(stop);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime, made now if there is none yet.
    fn started(&self, state: &mut State) -> Option<Handle> {
        if let Some(running) = &state.running {
            return Some(running.handle.clone());
        }
        match start_thread() {
            Ok((handle, stop)) => {
                let door = self.open_door(&handle, state);
                let pace = handle.spawn(pace::keep(self.parts.databases.clone()));
                state.running = Some(Running {
                    handle: handle.clone(),
                    door,
                    pace: AbortOnDropHandle::new(pace),
                    stop,
                });
                Some(handle)
            }
            Err(error) => {
                tracing::error!(%error, "the SQL thread cannot be started");
                None
            }
        }
    }

    fn open_door(&self, handle: &Handle, state: &mut State) -> Option<AbortOnDropHandle<()>> {
        let parts = &self.parts;
        let DoorListen::At(address) = parts.current.load().settings.sql.listen else {
            return None;
        };
        let listener = match bind_alone(address) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%address, %error, "the SQL door cannot listen");
                state.bind_error = Some((address, error));
                return None;
            }
        };
        let door = Door::new(parts, !address.ip().to_canonical().is_loopback());
        let serving = door::serve(listener, door, parts.supervisor.clone());
        Some(AbortOnDropHandle::new(handle.spawn(serving)))
    }
}

fn start_thread() -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("sql".to_owned())
        .spawn(move || {
            // Ends when the other half is dropped.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
    Ok((handle, stop))
}
