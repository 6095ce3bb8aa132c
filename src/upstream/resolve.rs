//! Names to addresses, without a look-up per connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::UpstreamError;
use super::lookup::{Lookup, PAUSE};
use crate::model::{Kind, UpstreamTarget};

/// After this long an answer is asked for again, in the background; the last
/// good one is used meanwhile and for as long as there is no better (SPEC §6).
const REFRESH: Duration = Duration::from_secs(5);

/// The addresses of a TCP target, shared by all workers.
#[derive(Debug, Clone)]
pub(super) enum Resolver {
    /// Known without asking.
    Fixed(Vec<SocketAddr>),
    Name(Arc<NameResolver>),
}

/// A host name and when it is asked for.
#[derive(Debug)]
pub(super) struct NameResolver {
    lookup: Arc<Lookup>,
    refreshing: AtomicBool,
    /// The last refresh failed, and was told of.
    failing: AtomicBool,
}

impl Resolver {
    /// For a TCP target; `None` for a Unix socket.
    pub(super) fn new(target: &UpstreamTarget) -> Option<Self> {
        match target {
            UpstreamTarget::Unix { .. } => None,
            UpstreamTarget::Loopback { port } => Some(Self::Fixed(vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, *port)),
            ])),
            UpstreamTarget::Tcp { host, port } => Some(match host.parse::<IpAddr>() {
                Ok(address) => Self::Fixed(vec![SocketAddr::new(address, *port)]),
                Err(_) => Self::Name(Arc::new(NameResolver {
                    lookup: Lookup::new(Arc::clone(host), *port),
                    refreshing: AtomicBool::new(false),
                    failing: AtomicBool::new(false),
                })),
            }),
        }
    }

    /// There never was an answer.
    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Name(resolver) => resolver.lookup.good().is_none(),
        }
    }

    /// Addresses to try, in order; waits only while there never was an answer.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        match self {
            Self::Fixed(addresses) => Ok(addresses.clone()),
            Self::Name(resolver) => resolver.addresses().await,
        }
    }
}

impl NameResolver {
    async fn addresses(self: &Arc<Self>) -> Result<Vec<SocketAddr>, UpstreamError> {
        let Some(answer) = self.lookup.good() else {
            return self.first_answer().await;
        };
        if answer.at.elapsed() >= REFRESH && !self.refreshing.swap(true, Ordering::Relaxed) {
            // Ends by itself; nobody waits for it.
            tokio::spawn(Arc::clone(self).refresh());
        }
        Ok(answer.addresses.clone())
    }

    async fn first_answer(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        let outcome = match self.lookup.just_failed() {
            Some(why) => Err(why),
            None => self.lookup.asker().ask().await,
        };
        match outcome {
            Ok(answer) => Ok(answer.addresses.clone()),
            Err(why) => {
                let detail = format!("{}: {why}", self.lookup.host);
                Err(UpstreamError::connecting(Kind::Dns, detail))
            }
        }
    }

    /// One line per change, not one per look-up.
    async fn refresh(self: Arc<Self>) {
        let outcome = self.lookup.asker().ask().await;
        let was_failing = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        let host = &*self.lookup.host;
        match &outcome {
            Err(error) if !was_failing => {
                tracing::warn!(host, %error, "look-up failed, keeping what is known");
            }
            Ok(_) if was_failing => tracing::info!(host, "look-up works again"),
            Ok(_) | Err(_) => {}
        }
        if outcome.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        self.refreshing.store(false, Ordering::Relaxed);
    }
}
