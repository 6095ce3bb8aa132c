//! One call's leave to ask, and its one word to the breaker.

use std::sync::Arc;

use super::Cluster;
use super::breaker::{Circuit, Gate};
use crate::model::Kind;
use crate::upstream::error::UpstreamError;

/// Leave to ask; carries the breaker's probe where this call is it. However
/// often a call is tried, it counts once: as good with the first good answer,
/// as failed when it is dropped after attempts that failed only.
#[derive(Debug)]
pub struct Admission {
    pub(super) cluster: Arc<Cluster>,
    probe: bool,
    failed: bool,
}

impl Cluster {
    /// Asks the breaker.
    ///
    /// # Errors
    /// `circuit_open`.
    pub fn admit(self: &Arc<Self>) -> Result<Admission, UpstreamError> {
        let gate = match &self.breaker {
            None => Gate::Closed,
            Some(breaker) => breaker.admit(|| self.now_ms()),
        };
        let probe = match gate {
            Gate::Closed => false,
            Gate::Probe => {
                self.show(Circuit::HalfOpen);
                true
            }
            Gate::Open => {
                return Err(UpstreamError::connecting(
                    Kind::CircuitOpen,
                    "failures in a row opened the circuit",
                ));
            }
        };
        Ok(Admission {
            cluster: Arc::clone(self),
            probe,
            failed: false,
        })
    }

    /// Failures in a row reached the limit.
    pub(super) fn opened(&self) {
        self.show(Circuit::Open);
        let (service, peer) = (&*self.service, self.peer());
        tracing::warn!(service, peer, "circuit opened");
    }
}

impl Admission {
    /// As a call that was admitted before.
    #[cfg(test)]
    pub(super) fn without_asking(cluster: &Arc<Cluster>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            probe: false,
            failed: false,
        }
    }

    /// Whether another attempt may be made for the same request.
    pub fn allows_another(&self) -> bool {
        let breaker = self.cluster.breaker.as_ref();
        !self.probe
            && breaker
                .is_none_or(|breaker| breaker.circuit(self.cluster.now_ms()) == Circuit::Closed)
    }

    /// Whether this call finds out how the dependency is.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Leaves finding out to the next call.
    pub fn give_probe_back(&mut self) {
        if let (true, Some(breaker)) = (std::mem::take(&mut self.probe), &self.cluster.breaker) {
            breaker.abandoned();
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failed = false;
        self.cluster.traffic.succeeded();
        let probe = std::mem::take(&mut self.probe);
        let Some(breaker) = &self.cluster.breaker else {
            return;
        };
        if breaker.succeeded(probe) {
            self.cluster.show(Circuit::Closed);
            let (service, peer) = (&*self.cluster.service, self.cluster.peer());
            tracing::info!(service, peer, "circuit closed");
        }
    }

    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    /// Failures that an ejection answers do not open the circuit besides.
    pub(super) fn forget(&self) {
        if let Some(breaker) = &self.cluster.breaker {
            breaker.forget();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.failed {
            self.give_probe_back();
            return;
        }
        self.cluster.traffic.failed();
        let Some(breaker) = &self.cluster.breaker else {
            return;
        };
        if breaker.failed(self.probe, self.cluster.now_ms()) {
            self.cluster.opened();
        }
    }
}
