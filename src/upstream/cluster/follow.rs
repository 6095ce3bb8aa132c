//! Names to addresses, again and again, on the control runtime.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::Cluster;
use crate::model::Address;
use crate::telemetry::supervise::Supervisor;

/// A look-up that takes longer counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed look-up the next one comes this soon.
const RETRY: Duration = Duration::from_secs(1);
/// Share of `discovery.refresh` between two look-ups: what changes is to be
/// followed within that time, look-up included.
const EARLY: f64 = 0.8;
/// Pauses vary by this share, so that sidecars do not ask in step.
const JITTER: f64 = 0.1;

impl Cluster {
    /// Starts to look the names up; dropping the handle ends it. `None` where
    /// all addresses are IP literals. `lookups` bounds how many threads wait
    /// for a resolver that hangs.
    pub fn follow(
        self: &Arc<Self>,
        refresh: Duration,
        lookups: Arc<Semaphore>,
        supervisor: &Supervisor,
    ) -> Option<AbortOnDropHandle<()>> {
        if self
            .addresses
            .iter()
            .all(|address| literal(address).is_some())
        {
            return None;
        }
        let cluster = Arc::clone(self);
        let look_up = move || {
            let (cluster, lookups) = (Arc::clone(&cluster), Arc::clone(&lookups));
            async move { cluster.look_up(refresh, lookups).await }
        };
        let task = supervisor.clone().keep("names", look_up);
        Some(AbortOnDropHandle::new(tokio::spawn(task)))
    }

    async fn look_up(&self, refresh: Duration, lookups: Arc<Semaphore>) {
        let mut good: Vec<Vec<SocketAddr>> = self
            .addresses
            .iter()
            .map(|address| literal(address).into_iter().collect())
            .collect();
        let mut failing = false;
        loop {
            let answers = join_all(self.addresses.iter().map(|one| ask(one, &lookups))).await;
            let mut complaint = None;
            for ((address, answer), good) in self.addresses.iter().zip(answers).zip(&mut good) {
                match answer {
                    Ok(found) => *good = found,
                    Err(why) => complaint = Some(format!("{}: {why}", address.host)),
                }
            }
            self.adopt(&good);
            self.looked_up.send_modify(|count| *count += 1);
            self.report(&mut failing, complaint.as_deref());
            let pause = match failing {
                true => refresh.min(RETRY),
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

fn literal(address: &Address) -> Option<SocketAddr> {
    let ip = address.host.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(ip, address.port))
}

/// All addresses of a name, sorted so that an equal answer is an equal list.
async fn ask(address: &Address, lookups: &Arc<Semaphore>) -> Result<Vec<SocketAddr>, String> {
    if let Some(known) = literal(address) {
        return Ok(vec![known]);
    }
    let look_up = async {
        let permit = Arc::clone(lookups).acquire_owned().await.ok();
        let (host, port) = (Arc::clone(&address.host), address.port);
        // Holds its permit to its own end, however long the resolver hangs.
        let asked = tokio::spawn(async move {
            let found = tokio::net::lookup_host((&*host, port)).await;
            drop(permit);
            found.map(Iterator::collect::<Vec<SocketAddr>>)
        });
        asked.await
    };
    let answer = tokio::time::timeout(LOOKUP_TIMEOUT, look_up)
        .await
        .map_err(|_| "no answer in time".to_owned())?;
    let mut found = answer
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    found.sort_unstable();
    found.dedup();
    match found.is_empty() {
        true => Err("no address".to_owned()),
        false => Ok(found),
    }
}
