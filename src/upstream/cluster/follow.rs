//! Names to addresses, again and again, on the control runtime.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::task::AbortOnDropHandle;

use super::{Cluster, Name};
use crate::telemetry::supervise::Supervisor;
use crate::upstream::lookup::{Asker, PAUSE};

/// Share of `discovery.refresh` between two look-ups: what changes is to be
/// followed within that time, look-up included.
const EARLY: f64 = 0.8;
/// Pauses vary by this share, so that sidecars do not ask in step.
const JITTER: f64 = 0.1;

impl Cluster {
    /// Starts to look the names up; dropping the handle ends it. `None` where
    /// all addresses are IP literals.
    pub fn follow(
        self: &Arc<Self>,
        refresh: Duration,
        supervisor: &Supervisor,
    ) -> Option<AbortOnDropHandle<()>> {
        if !self.names.iter().any(|name| matches!(name, Name::Asked(_))) {
            return None;
        }
        let cluster = Arc::clone(self);
        let look_up = move || {
            let cluster = Arc::clone(&cluster);
            async move { cluster.look_up(refresh).await }
        };
        let task = supervisor.clone().keep("names", look_up);
        Some(AbortOnDropHandle::new(tokio::spawn(task)))
    }

    async fn look_up(&self, refresh: Duration) {
        let askers = self.names.iter().filter_map(|name| match name {
            Name::Literal(_) => None,
            Name::Asked(lookup) => Some((&lookup.host, lookup.asker())),
        });
        let mut askers: Vec<(&Arc<str>, Asker)> = askers.collect();
        let mut failing = false;
        loop {
            let answers = join_all(askers.iter_mut().map(|(_, asker)| asker.ask())).await;
            self.adopt(&self.resolved());
            self.looked_up.send_modify(|count| *count += 1);
            let complaint = askers.iter().zip(answers).find_map(|((host, _), answer)| {
                let why = answer.err()?;
                Some(format!("{host}: {why}"))
            });
            self.report(&mut failing, complaint.as_deref());
            let pause = match failing {
                true => refresh.min(PAUSE),
                false => refresh.mul_f64(EARLY * (1.0 - JITTER * fastrand::f64())),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One line per change, not one per look-up.
    fn report(&self, failing: &mut bool, complaint: Option<&str>) {
        let was_failing = std::mem::replace(failing, complaint.is_some());
        let (service, peer) = (&*self.service, self.peer());
        match complaint {
            Some(error) if !was_failing => {
                tracing::warn!(
                    service,
                    peer,
                    error,
                    "look-up failed, keeping what is known"
                );
            }
            None if was_failing => tracing::info!(service, peer, "look-up works again"),
            Some(_) | None => {}
        }
    }
}
