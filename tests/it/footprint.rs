//! What the daemon costs where it runs: `scripts/footprint` builds it as it is
//! shipped and prints the table of docs/performance.md.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::files::{guarded, key};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{pause, whole_machine};

/// Below the default of `limits.connections`.
const MANY: usize = 9_000;
const STARTS: usize = 15;
/// Files that were changed later than two seconds ago may still be being
/// written: a start waits until they have held still.
const AT_REST: Duration = Duration::from_secs(3);

/// The build to measure.
#[allow(
    clippy::disallowed_methods,
    reason = "settings of the tests themselves"
)]
fn binary() -> String {
    env::var("OUTRIGGER_TEST_BINARY").expect("run scripts/footprint")
}

fn settled(daemon: &Daemon) -> f64 {
    pause(Duration::from_secs(3));
    daemon.resident_kib() as f64 / 1024.0
}

fn stripped_size() -> f64 {
    let copy = tempfile::NamedTempFile::new().unwrap();
    fs::copy(binary(), copy.path()).unwrap();
    let stripped = Command::new("strip").arg(copy.path()).status().unwrap();
    assert!(stripped.success());
    fs::metadata(copy.path()).unwrap().len() as f64 / 1024.0 / 1024.0
}

/// Writes three services that ask for a key.
fn write_all(tree: &Tree, ports: &[u16], app: u16) {
    for (name, port) in ["shop/cart", "shop/user", "bank/ledger"].iter().zip(ports) {
        tree.write(name, guarded(*port, app));
    }
}

/// From the start of the process to the first answer of `/startupz`: median and
/// slowest. What goes `before` each start is not counted.
fn start_times(tree: &Tree, before: impl Fn()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..STARTS)
        .map(|_| {
            before();
            let setup = Setup::new(tree).binary(&binary());
            let begun = Instant::now();
            let daemon = setup.spawn();
            // The first connection that is accepted is answered when all is ready.
            while TcpStream::connect(("127.0.0.1", daemon.observe)).is_err()
                || Request::get("/startupz").status(daemon.observe) != Some(200)
            {
                pause(Duration::from_micros(300));
            }
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[STARTS / 2], times[STARTS - 1])
}

#[test]
#[ignore = "measures a release build: run scripts/footprint"]
fn footprint() {
    let _machine = whole_machine();
    let app = App::start(scripts::ok);
    let ports = free_ports(3);
    let tree = Tree::new();
    let fresh = start_times(&tree, || write_all(&tree, &ports, app.port()));
    pause(AT_REST);
    let rested = start_times(&tree, || {});
    let daemon = Setup::new(&tree).binary(&binary()).start();
    let idle = settled(&daemon);
    let request = Request::get("/").key(&key(1));
    let busy = under_load(&daemon, ports[0], &request);
    let mut held = Vec::with_capacity(MANY);
    for number in 0..MANY {
        let mut client = Client::connect(ports[number % 3]).unwrap();
        assert_eq!(client.exchange(&request).unwrap().status, 200);
        held.push(client);
    }
    let many = settled(&daemon);
    for client in &mut held {
        assert_eq!(client.exchange(&request).unwrap().status, 200);
    }
    let many_again = settled(&daemon);
    drop(held);
    let after = settled(&daemon);
    let each = (many - idle) * 1024.0 / MANY as f64;
    println!("| what | figure |");
    println!("|---|---|");
    println!("| stripped binary | {:.1} MiB |", stripped_size());
    let shown = |(middle, worst): (Duration, Duration)| format!("{middle:.1?}, {worst:.1?}");
    println!(
        "| start to ready: median, slowest of {STARTS} | {} |",
        shown(rested)
    );
    println!("| the same, files just written | {} |", shown(fresh));
    println!("| resident, idle | {idle:.1} MiB |");
    println!("| resident, 64 busy connections | {busy:.1} MiB |");
    println!("| resident, {MANY} idle connections | {many:.1} MiB ({each:.1} KiB each) |");
    println!("| the same after another request on each | {many_again:.1} MiB |");
    println!("| resident, 3 s after they left | {after:.1} MiB |");
}

/// The most memory while 64 connections ask for five seconds.
fn under_load(daemon: &Daemon, port: u16, request: &Request) -> f64 {
    std::thread::scope(|scope| {
        let until = Instant::now() + Duration::from_secs(5);
        for _ in 0..64 {
            scope.spawn(move || {
                let mut client = Client::connect(port).unwrap();
                while Instant::now() < until {
                    assert_eq!(client.exchange(request).unwrap().status, 200);
                }
            });
        }
        let mut most = 0;
        while Instant::now() < until {
            most = most.max(daemon.resident_kib());
            pause(Duration::from_millis(50));
        }
        most as f64 / 1024.0
    })
}
