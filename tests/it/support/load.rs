//! Steady keep-alive load that counts every failure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Client, Request, Response};
use super::message::Unread;

/// Failures kept with words; all are counted.
const KEPT: usize = 50;

/// What each request is and what a right answer looks like.
pub(crate) trait Work: Send + Sync + 'static {
    /// The next request, and a note for [`Work::check`].
    fn request(&self) -> (Request, u64);

    /// A new connection.
    fn connect(&self, port: u16) -> std::io::Result<Client> {
        Client::connect(port)
    }

    /// Says what is wrong with the answer.
    fn check(&self, note: u64, response: &Response) -> Result<(), String>;
}

/// The same GET every time, answered 200.
pub(crate) struct Plain(pub(crate) Request);

impl Work for Plain {
    fn request(&self) -> (Request, u64) {
        (self.0.clone(), 0)
    }

    fn check(&self, _: u64, response: &Response) -> Result<(), String> {
        match response.status {
            200 => Ok(()),
            other => Err(format!("{other} {}", response.text())),
        }
    }
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
    /// Connections the server announced as closing.
    closed: AtomicU64,
    words: Mutex<Vec<String>>,
    slowest_us: AtomicU64,
}

/// The figures of a finished load.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) announced_closes: u64,
    pub(crate) words: Vec<String>,
    pub(crate) slowest: Duration,
}

/// A running load; stopped by [`Load::stop`], or when dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// `connections` clients, each with `pause` between its requests; ends by
    /// itself after five minutes.
    pub(crate) fn start(port: u16, connections: usize, pause: Duration, work: impl Work) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let work: Arc<dyn Work> = Arc::new(work);
        let threads = (0..connections)
            .map(|_| {
                let (stop, counts, work) =
                    (Arc::clone(&stop), Arc::clone(&counts), Arc::clone(&work));
                thread::spawn(move || run(port, pause, &stop, &counts, &*work))
            })
            .collect();
        Self {
            stop,
            counts,
            threads,
        }
    }

    /// Requests answered so far.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Acquire)
    }

    /// Failures so far.
    pub(crate) fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Acquire)
    }

    pub(crate) fn stop(mut self) -> Report {
        self.end();
        let counts = &self.counts;
        Report {
            requests: counts.requests.load(Ordering::Acquire),
            failures: counts.failures.load(Ordering::Acquire),
            announced_closes: counts.closed.load(Ordering::Acquire),
            words: std::mem::take(&mut counts.words.lock().unwrap_or_else(PoisonError::into_inner)),
            slowest: Duration::from_micros(counts.slowest_us.load(Ordering::Acquire)),
        }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().expect("a load thread does not panic");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(port: u16, pause: Duration, stop: &AtomicBool, counts: &Counts, work: &dyn Work) {
    let started = Instant::now();
    let mut connection: Option<Client> = None;
    while !stop.load(Ordering::Acquire) && started.elapsed() < Duration::from_secs(300) {
        let begun = Instant::now();
        let outcome = one(port, &mut connection, counts, work);
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.slowest_us.fetch_max(took, Ordering::AcqRel);
        counts.requests.fetch_add(1, Ordering::AcqRel);
        if let Err(why) = outcome {
            connection = None;
            counts.failures.fetch_add(1, Ordering::AcqRel);
            let mut words = counts.words.lock().unwrap_or_else(PoisonError::into_inner);
            if words.len() < KEPT {
                words.push(format!("after {:?}: {why}", started.elapsed()));
            }
        }
        super::wait::pause(pause);
    }
}

fn one(
    port: u16,
    connection: &mut Option<Client>,
    counts: &Counts,
    work: &dyn Work,
) -> Result<(), String> {
    let (request, note) = work.request();
    let mut client = match connection.take() {
        Some(client) => client,
        None => work
            .connect(port)
            .map_err(|error| format!("connect: {error}"))?,
    };
    let response = client
        .exchange(&request)
        .map_err(|error| describe(&error))?;
    work.check(note, &response)?;
    if response.closes() {
        counts.closed.fetch_add(1, Ordering::AcqRel);
    } else {
        *connection = Some(client);
    }
    Ok(())
}

fn describe(error: &Unread) -> String {
    match error {
        Unread::Closed => "closed before the answer, unannounced".to_owned(),
        other => format!("{other:?}"),
    }
}
