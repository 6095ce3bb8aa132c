//! Clients under whom a port goes away: what they sent before must be answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::app::{Connection, Next, Received, Script};
use super::client::{Client, Request, accepts};
use super::scripts;
use super::wait::pause;

/// Between the moments at which it is looked whether a port accepts.
pub(crate) const LOOK: Duration = Duration::from_millis(4);

/// A request that got no good answer.
pub(crate) struct Lost {
    /// Just before its first byte.
    sent: Instant,
    why: String,
}

/// Fails with the reasons, if there are any.
#[track_caller]
pub(crate) fn assert_none(lost: &[Lost]) {
    let why: Vec<&str> = lost.iter().map(|lost| lost.why.as_str()).collect();
    assert!(why.is_empty(), "{} lost:\n{}", why.len(), why.join("\n"));
}

/// Clients that ask until the port is closed.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    lost: Arc<Mutex<Vec<Lost>>>,
    threads: Vec<JoinHandle<u64>>,
}

impl Crowd {
    /// Half of them keep their connections, half make one per request.
    pub(crate) fn start(port: u16, clients: u64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(Mutex::new(Vec::new()));
        let threads = (0..clients)
            .map(|number| {
                let (stop, lost) = (Arc::clone(&stop), Arc::clone(&lost));
                let random = fastrand::Rng::with_seed(seed ^ number);
                thread::spawn(move || ask(port, number % 2 == 0, random, &stop, &lost))
            })
            .collect();
        Self {
            stop,
            lost,
            threads,
        }
    }

    /// Ends it; gives the number of good answers, and what was lost although it
    /// was begun while the port accepted.
    pub(crate) fn end(self, accepted_until: Instant) -> (u64, Vec<Lost>) {
        self.stop.store(true, Ordering::Release);
        let good = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        let mut lost = std::mem::take(&mut *self.lost.lock().unwrap());
        lost.retain(|lost| lost.sent <= accepted_until);
        (good, lost)
    }
}

fn ask(
    port: u16,
    keeps: bool,
    mut random: fastrand::Rng,
    stop: &AtomicBool,
    lost: &Mutex<Vec<Lost>>,
) -> u64 {
    let mut kept: Option<Client> = None;
    let mut good = 0;
    while !stop.load(Ordering::Acquire) {
        let request = match random.u8(0..3) {
            0 => Request::post("/", vec![b'x'; random.usize(0..20_000)]),
            _ => Request::get("/"),
        };
        let client = kept.take().or_else(|| Client::connect(port).ok());
        let Some(mut client) = client else {
            // Closed: not a byte was sent.
            break;
        };
        let sent = Instant::now();
        match client.exchange(&request) {
            Ok(response) if response.status == 200 => {
                good += 1;
                if keeps && !response.closes() {
                    kept = Some(client);
                }
            }
            Ok(response) => {
                let why = format!("{} {}", response.status, response.text());
                lost.lock().unwrap().push(Lost { sent, why });
            }
            Err(error) => {
                let why = format!("{error:?}");
                lost.lock().unwrap().push(Lost { sent, why });
            }
        }
        // Some connections idle for longer than the listeners stay open.
        pause(Duration::from_millis(random.u64(0..30)));
    }
    good
}

/// Answers `ok` after up to 40 ms.
pub(crate) struct Slow(Mutex<fastrand::Rng>);

impl Slow {
    pub(crate) fn new(random: fastrand::Rng) -> Self {
        Self(Mutex::new(random))
    }
}

impl Script for Slow {
    fn answer(&self, request: &Received, stream: &mut Connection) -> std::io::Result<Next> {
        let delay = self.0.lock().unwrap().u64(0..40);
        stream.wait(Duration::from_millis(delay));
        scripts::ok(request, stream)
    }
}

/// Looks until the port refuses; gives the last moment at which it accepted.
pub(crate) fn watch_port(port: u16) -> JoinHandle<Instant> {
    thread::spawn(move || {
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            if !accepts(port) {
                return last;
            }
            last = now;
            pause(LOOK);
        }
    })
}
