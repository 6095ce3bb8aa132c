//! Minutes of everything at once: nothing grows, nothing slows down.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::{STEP, open};
use crate::support::ports::free_ports;
use crate::support::scripts::{self, Routes};
use crate::support::seed::{seconds, seed};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, wait_until, whole_machine};

const DOWNLOAD: u64 = 300_000;

/// Per second of the run.
struct Sample {
    at: Duration,
    resident_kib: u64,
    descriptors: usize,
}

/// Begin and time of each short request.
type Times = Arc<Mutex<Vec<(Duration, Duration)>>>;

struct Traffic {
    ports: Vec<u16>,
    begun: Instant,
    stop: Arc<AtomicBool>,
    times: Times,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Traffic {
    fn client(&self, mut random: fastrand::Rng) -> thread::JoinHandle<()> {
        let port = self.ports[random.usize(0..self.ports.len())];
        let (stop, begun) = (Arc::clone(&self.stop), self.begun);
        let (times, wrong) = (Arc::clone(&self.times), Arc::clone(&self.wrong));
        thread::spawn(move || {
            let mut kept: Option<Client> = None;
            while !stop.load(Ordering::Acquire) {
                let sent = Instant::now();
                if let Err(why) = one(port, &mut kept, &mut random) {
                    kept = None;
                    wrong.lock().unwrap().push(why);
                }
                let mut times = times.lock().unwrap();
                times.push((begun.elapsed(), sent.elapsed()));
                drop(times);
                pause(Duration::from_millis(8));
            }
        })
    }
}

/// One request of some kind, on a kept connection or its own.
fn one(port: u16, kept: &mut Option<Client>, random: &mut fastrand::Rng) -> Result<(), String> {
    let (request, length) = match random.u8(0..20) {
        0 => (Request::get("/download"), Some(DOWNLOAD as usize)),
        1..=4 => (
            Request::post("/", vec![b'x'; random.usize(0..30_000)]),
            None,
        ),
        5 => (Request::get("/fails"), None),
        _ => (Request::get("/"), None),
    };
    let client = kept.take().map_or_else(|| Client::connect(port), Ok);
    let mut client = client.map_err(|error| format!("connect: {error}"))?;
    let response = client
        .exchange(&request)
        .map_err(|error| format!("{error:?}"))?;
    let expected = match (response.status, length) {
        (200, Some(length)) => response.body.len() == length,
        (200 | 502, None) => true,
        _ => false,
    };
    if !expected {
        return Err(format!("{} {}", response.status, response.text()));
    }
    if !response.closes() && random.u8(0..10) != 0 {
        *kept = Some(client);
    }
    Ok(())
}

/// Hangs up without an answer.
fn fails(_: &Received, _: &mut Connection) -> io::Result<Next> {
    Ok(Next::Close)
}

/// The slope of a line through the samples, in MiB a minute.
fn slope(samples: &[&Sample]) -> f64 {
    let count = samples.len() as f64;
    let points = || {
        samples.iter().map(|sample| {
            (
                sample.at.as_secs_f64() / 60.0,
                sample.resident_kib as f64 / 1024.0,
            )
        })
    };
    let (sum_x, sum_y) = points().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let above: f64 = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let below: f64 = points().map(|(x, _)| (x - mean_x).powi(2)).sum();
    above / below
}

fn p99(times: &[(Duration, Duration)], from: Duration, to: Duration) -> Duration {
    let within = times.iter().filter(|(at, _)| (from..to).contains(at));
    let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

/// The middle one of the p99 of twelve pieces: a machine that was busy with
/// something else for a moment does not count.
fn usual_p99(times: &[(Duration, Duration)], from: Duration, to: Duration) -> Duration {
    let piece = (to - from) / 12;
    let mut each: Vec<Duration> = (0..12)
        .map(|number| p99(times, from + piece * number, from + piece * (number + 1)))
        .collect();
    each.sort_unstable();
    each[6]
}

fn most_descriptors(samples: &[Sample], from: Duration, to: Duration) -> usize {
    let within = samples
        .iter()
        .filter(|sample| (from..to).contains(&sample.at));
    within.map(|sample| sample.descriptors).max().unwrap_or(0)
}

/// The house of the soak.
struct Soak {
    app: App,
    ports: Vec<u16>,
    tree: Tree,
    daemon: Daemon,
}

const NAMES: [&str; 3] = ["shop/cart", "shop/user", "bank/ledger"];

impl Soak {
    fn start() -> Self {
        let app = App::start(Routes(vec![
            ("/download", Box::new(scripts::download(DOWNLOAD))),
            ("/events", Box::new(scripts::hung_stream)),
            ("/fails", Box::new(fails)),
            ("/", Box::new(scripts::say_header(STEP))),
        ]));
        let ports = free_ports(3);
        let tree = Tree::new();
        for (name, port) in NAMES.iter().zip(&ports) {
            tree.write(name, open(*port, app.port(), 0));
        }
        let daemon = Setup::new(&tree).process("accessLog: all").start();
        Self {
            app,
            ports,
            tree,
            daemon,
        }
    }

    /// Changes a file each second, and measures.
    fn reload_each_second(
        &self,
        begun: Instant,
        length: Duration,
        random: &mut fastrand::Rng,
    ) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut step = 0;
        while begun.elapsed() < length {
            step += 1;
            let which = random.usize(0..NAMES.len());
            let file = open(self.ports[which], self.app.port(), step);
            self.tree.replace(NAMES[which], file);
            assert_eq!(self.daemon.reload().status, 200);
            samples.push(Sample {
                at: begun.elapsed(),
                resident_kib: self.daemon.resident_kib(),
                descriptors: self.daemon.descriptors(),
            });
            let next = Duration::from_secs(step);
            pause(next.saturating_sub(begun.elapsed()));
        }
        samples
    }
}

#[test]
fn nothing_grows_and_nothing_slows_down() {
    // Times are compared, so nothing else may run.
    let _machine = whole_machine();
    let seed = seed("soak");
    let length = seconds("OUTRIGGER_TEST_SOAK_SECONDS", 180);
    let soak = Soak::start();
    let mut hung = Client::connect(soak.ports[0]).unwrap();
    hung.send(&Request::get("/events").bytes()).unwrap();
    hung.head().unwrap();
    let traffic = Traffic {
        ports: soak.ports.clone(),
        begun: Instant::now(),
        stop: Arc::default(),
        times: Arc::default(),
        wrong: Arc::default(),
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let clients: Vec<_> = (0..12).map(|_| traffic.client(random.fork())).collect();
    let samples = soak.reload_each_second(traffic.begun, length, &mut random);
    traffic.stop.store(true, Ordering::Release);
    for client in clients {
        client.join().unwrap();
    }
    let wrong = traffic.wrong.lock().unwrap().clone();
    assert!(
        wrong.is_empty(),
        "{} wrong: {:?}",
        wrong.len(),
        wrong.first()
    );
    assert_eq!(soak.app.faults(), [""; 0]);
    let times = traffic.times.lock().unwrap();
    let most = judge(&samples, &times, length);
    drop(hung);
    wait_until("descriptors are given back", SOON, || {
        soak.daemon.descriptors() < most
    });
}

/// Holds the last third against the one before; the first is for warming up.
/// Gives the most descriptors there were.
fn judge(samples: &[Sample], times: &[(Duration, Duration)], length: Duration) -> usize {
    let third = length / 3;
    let warm = samples.iter().filter(|sample| sample.at >= third);
    let growth = slope(&warm.collect::<Vec<_>>());
    let second = usual_p99(times, third, third * 2);
    let last = usual_p99(times, third * 2, length);
    let (before, after) = (
        most_descriptors(samples, third, third * 2),
        most_descriptors(samples, third * 2, length),
    );
    figure!(
        "soak of {length:?}: {} requests, {} reloads, {growth:.2} MiB/min, p99 {second:.1?} \
         then {last:.1?} ({:.1?} and {:.1?} over each third), descriptors at most {before} then {after}",
        times.len(),
        samples.len(),
        p99(times, third, third * 2),
        p99(times, third * 2, length),
    );
    // A slope needs minutes: a shorter run is for trying the test itself.
    let long = length >= Duration::from_secs(120);
    assert!(growth < 1.0 || !long, "{growth} MiB/min");
    assert!(after <= before + 4, "{before} descriptors, then {after}");
    assert!(last <= second.mul_f64(1.5), "p99 {second:?}, then {last:?}");
    before
}
