//! What a target is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::probe::{Expectation, Probe, ProbeError};
use crate::model::{AppHealthCheck, HealthCheckSpec};
use crate::upstream::cluster::{Cluster, Endpoint};
use crate::upstream::pool::Upstream;
use crate::upstream::traffic::Traffic;

/// The path asked for where no `healthCheck` is written: an app that has no
/// such route answers 404, and so is up.
const DEFAULT_PATH: &str = "/health";
/// Addresses of a dependency that are asked at once, at most; where none of
/// them is up, the next look asks others.
const MAX_ADDRESSES: usize = 8;

/// One look at a target. Whoever asks limits the time.
pub trait Question: Send + Sync + 'static {
    /// Asks once; an error says why the target is not up.
    fn ask(&self) -> Asking<'_>;

    /// Where, for the log.
    fn address(&self) -> String;

    /// What requests that are made anyway say of the target.
    fn traffic(&self) -> Option<&Traffic> {
        None
    }
}

/// A look under way.
pub type Asking<'a> = BoxFuture<'a, Result<(), ProbeError>>;

/// Asks the app.
pub struct AppQuestion {
    upstream: Arc<Upstream>,
    probe: Probe,
}

impl AppQuestion {
    /// `None` where `healthCheck` is off.
    pub fn new(upstream: &Arc<Upstream>, check: &HealthCheckSpec) -> Option<Self> {
        Some(Self {
            upstream: Arc::clone(upstream),
            probe: probe(check)?,
        })
    }
}

impl Question for AppQuestion {
    fn ask(&self) -> Asking<'_> {
        Box::pin(async move {
            let host = self.upstream.authority();
            self.probe.ask(&self.upstream, &host).await
        })
    }

    fn address(&self) -> String {
        self.upstream.spec().target.to_string()
    }

    fn traffic(&self) -> Option<&Traffic> {
        Some(self.upstream.traffic())
    }
}

/// Asks a dependency, which is up where any of its addresses is.
pub struct DependencyQuestion {
    cluster: Arc<Cluster>,
    probe: Probe,
    /// How long the first address has before the others are asked too.
    patience: Duration,
    /// Index of the address that answered well last.
    preferred: AtomicUsize,
}

impl DependencyQuestion {
    /// `None` where `healthCheck` is off.
    pub fn new(cluster: &Arc<Cluster>, check: &HealthCheckSpec) -> Option<Self> {
        Some(Self {
            cluster: Arc::clone(cluster),
            probe: probe(check)?,
            patience: check.probe()?.timeout / 2,
            preferred: AtomicUsize::new(0),
        })
    }

    async fn one(&self, endpoints: &[Arc<Endpoint>], index: usize) -> (usize, Outcome) {
        let Some(endpoint) = endpoints.get(index) else {
            return (index, Err(ProbeError::Timeout));
        };
        let host = endpoint.host().to_str().unwrap_or_default();
        (index, self.probe.ask(endpoint.upstream(), host).await)
    }

    async fn any(&self) -> Outcome {
        let known = self.cluster.known().await;
        known.map_err(ProbeError::Connect)?;
        let endpoints = self.cluster.endpoints();
        let all = endpoints.len().max(1);
        let count = all.min(MAX_ADDRESSES);
        let first = self.preferred.load(Ordering::Relaxed) % all;
        let mut asked = FuturesUnordered::new();
        asked.push(self.one(&endpoints, first));
        let mut last = ProbeError::Timeout;
        if count > 1 {
            match tokio::time::timeout(self.patience, asked.next()).await {
                Ok(Some((_, Ok(())))) => return Ok(()),
                Ok(Some((_, Err(error)))) => last = error,
                Ok(None) | Err(_) => {}
            }
            let others = (1..count).map(|further| (first + further) % all);
            asked.extend(others.map(|index| self.one(&endpoints, index)));
        }
        while let Some((index, outcome)) = asked.next().await {
            match outcome {
                Ok(()) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        if all > count {
            self.preferred.store(first + count, Ordering::Relaxed);
        }
        Err(last)
    }
}

type Outcome = Result<(), ProbeError>;

impl Question for DependencyQuestion {
    fn ask(&self) -> Asking<'_> {
        Box::pin(self.any())
    }

    fn address(&self) -> String {
        let endpoints = self.cluster.endpoints();
        let shown: Vec<&str> = endpoints
            .iter()
            .take(MAX_ADDRESSES)
            .filter_map(|endpoint| endpoint.host().to_str().ok())
            .collect();
        shown.join(" ")
    }

    fn traffic(&self) -> Option<&Traffic> {
        Some(self.cluster.traffic())
    }
}

fn probe(check: &HealthCheckSpec) -> Option<Probe> {
    Some(match check {
        HealthCheckSpec::Check(AppHealthCheck::Grpc, _) => Probe::Grpc,
        HealthCheckSpec::Check(AppHealthCheck::Path(path), _) => Probe::Http {
            path: Arc::clone(path),
            expects: Expectation::Success,
        },
        HealthCheckSpec::Unset(_) => Probe::Http {
            path: Arc::from(DEFAULT_PATH),
            expects: Expectation::AnyAnswer,
        },
        HealthCheckSpec::Off => return None,
    })
}
