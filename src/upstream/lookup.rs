//! Asking what a name means, without ever waiting in line behind another name.
//!
//! `getaddrinfo` cannot be given up: where no resolver answers it takes ten
//! seconds and more. In a shared pool of threads a few such names, asked for
//! again and again, would keep every other from being looked up; so each name
//! has a thread of its own while it is asked for, and never two.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

/// Nobody waits longer than this for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure nobody is asked again for this long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// A host name with a port, and what it was last known to mean. Shared by all
/// who need it.
pub(super) struct Lookup {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    resolve: Resolve,
    /// A thread asks.
    under_way: AtomicBool,
    good: ArcSwapOption<Answer>,
    ended: watch::Sender<Option<Ended>>,
}

/// Blocks until there is an answer.
type Resolve = Box<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Addresses of a name; never empty.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) at: Instant,
}

/// How a look-up ended; `Err` says why there is no answer.
#[derive(Debug, Clone)]
struct Ended {
    outcome: Result<Arc<Answer>, Arc<str>>,
    at: Instant,
}

/// Somebody who asks, perhaps again and again: what came too late for one
/// question is the answer to the next.
pub(super) struct Asker {
    lookup: Arc<Lookup>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Lookup {
    pub(super) fn new(host: Arc<str>, port: u16) -> Arc<Self> {
        Self::by(host, port, |host, port| {
            (host, port).to_socket_addrs().map(Iterator::collect)
        })
    }

    fn by(
        host: Arc<str>,
        port: u16,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            port,
            resolve: Box::new(resolve),
            under_way: AtomicBool::new(false),
            good: ArcSwapOption::empty(),
            ended: watch::Sender::new(None),
        })
    }

    /// The last good answer, however old.
    pub(super) fn good(&self) -> Option<Arc<Answer>> {
        self.good.load_full()
    }

    /// Why there is no answer, where that was found a moment ago.
    pub(super) fn just_failed(&self) -> Option<Arc<str>> {
        let ended = self.ended.borrow();
        let ended = ended.as_ref().filter(|ended| ended.at.elapsed() < PAUSE)?;
        ended.outcome.as_ref().err().cloned()
    }

    pub(super) fn asker(self: &Arc<Self>) -> Asker {
        Asker {
            lookup: Arc::clone(self),
            ended: self.ended.subscribe(),
        }
    }

    /// Asks, unless somebody does already.
    fn begin(self: &Arc<Self>) {
        if self.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let lookup = Arc::clone(self);
        let asking = thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || lookup.end((lookup.resolve)(&lookup.host, lookup.port)));
        if let Err(error) = asking {
            self.end(Err(error));
        }
    }

    fn end(&self, found: io::Result<Vec<SocketAddr>>) {
        let at = Instant::now();
        let outcome = match found {
            Ok(addresses) if addresses.is_empty() => Err(Arc::from("no address")),
            Ok(addresses) => Ok(Arc::new(Answer { addresses, at })),
            Err(error) => Err(Arc::from(error.to_string())),
        };
        if let Ok(answer) = &outcome {
            self.good.store(Some(Arc::clone(answer)));
        }
        self.under_way.store(false, Ordering::Release);
        self.ended.send_replace(Some(Ended { outcome, at }));
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lookup({}:{})", self.host, self.port)
    }
}

impl Asker {
    /// The next answer.
    ///
    /// # Errors
    /// Why there is none, or none in time: then the look-up goes on.
    pub(super) async fn ask(&mut self) -> Result<Arc<Answer>, Arc<str>> {
        // Nothing changes any more: cannot be, for `lookup` holds the sender.
        if !self.ended.has_changed().unwrap_or(false) {
            self.lookup.begin();
        }
        let news = tokio::time::timeout(PATIENCE, self.ended.changed()).await;
        match &*self.ended.borrow() {
            Some(ended) if news.is_ok() => ended.outcome.clone(),
            Some(_) | None => Err(Arc::from("no answer in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A resolver that answers when it is told to.
    #[derive(Default)]
    struct Hanging {
        asked: AtomicUsize,
        answers: (Mutex<bool>, Condvar),
    }

    impl Hanging {
        fn lookup(self: &Arc<Self>) -> Arc<Lookup> {
            let resolver = Arc::clone(self);
            Lookup::by(Arc::from("slow"), 80, move |_, port| {
                resolver.asked.fetch_add(1, Ordering::AcqRel);
                let (may, bell) = &resolver.answers;
                let may = may.lock().expect("no test panics in it");
                drop(bell.wait_while(may, |may| !*may));
                Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
            })
        }

        fn answer(&self) {
            *self.answers.0.lock().expect("no test panics in it") = true;
            self.answers.1.notify_all();
        }
    }

    #[tokio::test]
    async fn a_name_that_hangs_is_asked_for_once_and_its_late_answer_counts() {
        let resolver = Arc::new(Hanging::default());
        let lookup = resolver.lookup();
        let mut patient = lookup.asker();
        let mut others: Vec<Asker> = (0..50).map(|_| lookup.asker()).collect();
        let (first, rest) = tokio::join!(
            patient.ask(),
            futures_util::future::join_all(others.iter_mut().map(Asker::ask)),
        );
        assert_eq!(&*first.expect_err("it hangs"), "no answer in time");
        assert!(rest.iter().all(Result::is_err));
        let again = lookup.asker().ask().await;
        assert!(again.is_err() && lookup.good().is_none());
        assert_eq!(resolver.asked.load(Ordering::Acquire), 1);

        resolver.answer();
        let late = patient.ask().await.expect("it came at last");
        assert_eq!(late.addresses, [SocketAddr::from(([127, 0, 0, 1], 80))]);
        assert_eq!(resolver.asked.load(Ordering::Acquire), 1);
        assert!(lookup.good().is_some() && lookup.just_failed().is_none());
        patient.ask().await.expect("asked anew");
        assert_eq!(resolver.asked.load(Ordering::Acquire), 2);
    }

    #[tokio::test]
    async fn a_failure_keeps_the_last_good_answer() {
        let turns = AtomicUsize::new(0);
        let lookup = Lookup::by(Arc::from("gone"), 80, move |_, _| {
            match turns.fetch_add(1, Ordering::AcqRel) {
                0 => Ok(vec![SocketAddr::from(([127, 0, 0, 1], 80))]),
                1 => Ok(Vec::new()),
                _ => Err(io::Error::other("broken")),
            }
        });
        let mut asker = lookup.asker();
        asker.ask().await.expect("it has an address");
        assert_eq!(&*asker.ask().await.expect_err("none"), "no address");
        assert_eq!(&*asker.ask().await.expect_err("broken"), "broken");
        assert_eq!(lookup.just_failed().as_deref(), Some("broken"));
        assert!(lookup.good().is_some());
    }
}
