//! Names to addresses, without a look-up per connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::error::UpstreamError;
use crate::model::{Kind, UpstreamTarget};

/// After this long an answer is asked for again, in the background; the last
/// good one is used meanwhile and for as long as there is no better (SPEC §6).
const REFRESH: Duration = Duration::from_secs(5);
/// A look-up that takes longer counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The addresses of a TCP target, shared by all workers.
#[derive(Debug)]
pub(super) enum Resolver {
    /// Known without asking.
    Fixed(Vec<SocketAddr>),
    Name(Arc<NameResolver>),
}

/// A host name's last good answer.
#[derive(Debug)]
pub(super) struct NameResolver {
    host: Arc<str>,
    port: u16,
    answer: ArcSwapOption<Answer>,
    refreshing: AtomicBool,
}

#[derive(Debug)]
struct Answer {
    addresses: Vec<SocketAddr>,
    asked: Instant,
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
                    host: Arc::clone(host),
                    port: *port,
                    answer: ArcSwapOption::empty(),
                    refreshing: AtomicBool::new(false),
                })),
            }),
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
        let Some(answer) = self.answer.load_full() else {
            return self.look_up().await;
        };
        if answer.asked.elapsed() >= REFRESH && !self.refreshing.swap(true, Ordering::Relaxed) {
            let resolver = Arc::clone(self);
            // Ends by itself within LOOKUP_TIMEOUT; nobody waits for it.
            tokio::spawn(async move {
                let outcome = resolver.look_up().await;
                resolver.refreshing.store(false, Ordering::Relaxed);
                if let Err(error) = outcome {
                    tracing::warn!(host = %resolver.host, %error, "keeping the last addresses");
                }
            });
        }
        Ok(answer.addresses.clone())
    }

    async fn look_up(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        let failed = |detail: String| UpstreamError::connecting(Kind::Dns, detail);
        let lookup = tokio::net::lookup_host((&*self.host, self.port));
        let addresses: Vec<SocketAddr> = tokio::time::timeout(LOOKUP_TIMEOUT, lookup)
            .await
            .map_err(|_| failed(format!("looking up {} took too long", self.host)))?
            .map_err(|error| failed(format!("{}: {error}", self.host)))?
            .collect();
        if addresses.is_empty() {
            return Err(failed(format!("{} has no address", self.host)));
        }
        let answer = Answer {
            addresses: addresses.clone(),
            asked: Instant::now(),
        };
        self.answer.store(Some(Arc::new(answer)));
        Ok(addresses)
    }
}
