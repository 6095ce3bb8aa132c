//! Building services on the blocking pool, so that one that hangs delays no other.
//!
//! Fast builds share a few lanes. A build that is not done after a second
//! moves to a slow lane and gives its fast lane back; when the slow lanes are
//! full too, it keeps its fast one. Threads are bounded by both together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::claims::Wanted;
use crate::model::{ProcessSettings, ServiceName};
use crate::snapshot::{BuildContext, BuildError, Service, SlotId};
use crate::telemetry::metrics::Metrics;

/// Builds at a time; more would not be faster on the cores a sidecar has.
const FAST_LANES: usize = 4;
/// Hanging builds that do not count.
const SLOW_LANES: usize = 16;
/// Builds of one service at a time: one that hangs, and one of the version that
/// may mend it.
const BUILDS_OF_ONE: usize = 2;
/// When a build counts as hanging.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// What to build.
#[derive(Debug, Clone)]
pub(super) struct BuildRequest {
    pub(super) name: ServiceName,
    pub(super) wanted: Wanted,
    pub(super) slot: SlotId,
    pub(super) settings: Arc<ProcessSettings>,
    pub(super) predecessor: Option<Arc<Service>>,
}

impl BuildRequest {
    /// For a service of which no version ever ran and this one could not be
    /// built: its port, saying so.
    pub(super) fn stand_in(&self) -> Option<Self> {
        (self.predecessor.is_none() && self.wanted.spec().is_some()).then(|| Self {
            wanted: Wanted::Invalid(self.wanted.listen(&self.settings)),
            ..self.clone()
        })
    }
}

/// Makes a service run; blocks.
pub(super) type Build =
    Arc<dyn Fn(&BuildRequest) -> Result<Service, BuildError> + Send + Sync + 'static>;

/// The one way services are built outside tests.
pub(super) fn build_service(
    request: &BuildRequest,
    metrics: &Metrics,
) -> Result<Service, BuildError> {
    let context = BuildContext {
        settings: &request.settings,
        metrics,
        predecessor: request.predecessor.as_deref(),
    };
    match &request.wanted {
        Wanted::Ready(spec) => Service::ready(Arc::clone(spec), request.slot, &context),
        Wanted::Invalid(_) => Ok(Service::invalid(
            request.name.clone(),
            request.slot,
            &context,
        )),
    }
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Built {
    /// Of the build this is the end of; an abandoned build has an old one.
    pub(super) ticket: u64,
    pub(super) request: BuildRequest,
    /// The text says why it could not be built.
    pub(super) result: Result<Service, String>,
}

/// Runs builds. Dropping it gives them up.
pub(super) struct Workshop {
    build: Build,
    fast: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    running: JoinSet<Built>,
    /// Running builds of each service, abandoned ones included.
    of_service: BTreeMap<ServiceName, usize>,
    tickets: u64,
}

impl Workshop {
    pub(super) fn new(build: Build) -> Self {
        Self {
            build,
            fast: Arc::new(Semaphore::new(FAST_LANES)),
            slow: Arc::new(Semaphore::new(SLOW_LANES)),
            running: JoinSet::new(),
            of_service: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Whether a build of this service runs, wanted or abandoned.
    pub(super) fn is_busy(&self, name: &ServiceName) -> bool {
        self.of_service.contains_key(name)
    }

    /// Whether another build of this service may begin: a service that hangs
    /// again and again must not take every lane.
    pub(super) fn has_room(&self, name: &ServiceName) -> bool {
        self.of_service
            .get(name)
            .is_none_or(|count| *count < BUILDS_OF_ONE)
    }

    /// A service that takes no work to build.
    pub(super) fn build_now(&self, request: &BuildRequest) -> Option<Service> {
        (self.build)(request).ok()
    }

    /// Begins a build.
    pub(super) fn begin(&mut self, request: BuildRequest) -> u64 {
        self.tickets += 1;
        *self.of_service.entry(request.name.clone()).or_default() += 1;
        let ticket = self.tickets;
        let build = Arc::clone(&self.build);
        let (fast, slow) = (Arc::clone(&self.fast), Arc::clone(&self.slow));
        self.running.spawn(async move {
            let mut lane = Some(fast.acquire_owned().await);
            let work = request.clone();
            let mut running = spawn_blocking(move || build(&work));
            let result = match timeout(SLOW_AFTER, &mut running).await {
                Ok(result) => result,
                Err(_) => {
                    tracing::warn!(service = %request.name, "preparing takes long");
                    let _slow_lane = slow.try_acquire_owned().inspect(|_| drop(lane.take()));
                    running.await
                }
            };
            let result = match result {
                Ok(result) => result.map_err(|error| with_sources(&error)),
                Err(_) => Err("preparing it failed inside the sidecar".to_owned()),
            };
            Built {
                ticket,
                request,
                result,
            }
        });
        ticket
    }

    /// The next build that ends; pends forever while none runs.
    pub(super) async fn next(&mut self) -> Built {
        loop {
            match self.running.join_next().await {
                Some(Ok(built)) => {
                    let name = &built.request.name;
                    if let Some(count) = self.of_service.get_mut(name) {
                        *count -= 1;
                        if *count == 0 {
                            self.of_service.remove(name);
                        }
                    }
                    return built;
                }
                // Only a cancelled task has no result, and none is cancelled.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// The error and what it came from, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;
    use crate::control::fixture::{name, settings, spec};

    fn request(service: &str) -> BuildRequest {
        BuildRequest {
            name: name(service),
            wanted: Wanted::Ready(Arc::new(spec(service, 1))),
            slot: SlotId { index: 0, epoch: 0 },
            settings: Arc::new(settings()),
            predecessor: None,
        }
    }

    #[tokio::test]
    async fn more_hanging_builds_than_lanes_still_let_others_pass() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let held = Arc::clone(&gate);
        let mut workshop = Workshop::new(Arc::new(move |request| {
            if request.name.name().starts_with("hung") {
                let (open, bell) = &*held;
                let open = open.lock().expect("gate");
                drop(bell.wait_while(open, |open| !*open).expect("gate"));
            }
            build_service(request, &Metrics::new(1))
        }));
        for index in 0..FAST_LANES * 2 {
            workshop.begin(request(&format!("hung-{index}")));
        }
        let ticket = workshop.begin(request("quick"));
        let built = timeout(Duration::from_secs(5), workshop.next()).await;
        let built = built.expect("the quick one is built");
        assert_eq!((built.ticket, built.request.name.name()), (ticket, "quick"));
        assert!(built.result.is_ok());
        *gate.0.lock().expect("gate") = true;
        gate.1.notify_all();
        for _ in 0..FAST_LANES * 2 {
            assert!(workshop.next().await.result.is_ok());
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_build() {
        let mut workshop = Workshop::new(Arc::new(|_| panic!("on purpose")));
        workshop.begin(request("cart"));
        assert!(workshop.next().await.result.is_err());
    }
}
