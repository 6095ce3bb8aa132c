//! A hundred reloads under steady keep-alive load lose nothing, every request
//! follows a version at least as new as the one acknowledged before it began,
//! and a slow download survives them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request, Response, accepts};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::{STEP, key, open};
use crate::support::load::{Load, Work};
use crate::support::ports::free_ports;
use crate::support::scripts::{self, Routes};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, wait_until, whole_machine};

const RELOADS: u64 = 100;
const DOWNLOAD: u64 = 24 * 1024 * 1024;

/// Version `step` accepts the keys `step ..= step + 3`: a client that knows the
/// newest one is never behind, however slowly it runs.
fn file(port: u16, app: u16, step: u64) -> String {
    let keys: String = (step..=step + 3)
        .map(|number| format!("      - {{id: web-{number}, key: {}}}\n", key(number)))
        .collect();
    format!(
        "port: {port}\nupstream: {app}\nauth:\n  apiKey:\n    keys:\n{keys}  \
         appToken: {{header: {STEP}, value: \"{step}\"}}\n\
         limits: {{headerCount: {}, uriBytes: {}KiB, inFlight: {}}}\n",
        // Changes on every fifth reload only: it closes connections.
        90 + step / 5,
        8 + step % 3,
        1000 + step,
    )
}

struct Following {
    acknowledged: Arc<AtomicU64>,
}

impl Work for Following {
    fn request(&self) -> (Request, u64) {
        let step = self.acknowledged.load(Ordering::Acquire);
        (Request::get("/step").key(&key(step + 3)), step)
    }

    fn check(&self, step: u64, response: &Response) -> Result<(), String> {
        let seen: Option<u64> = response.text().parse().ok();
        match (response.status, seen) {
            (200, Some(seen)) if seen >= step => Ok(()),
            _ => Err(format!(
                "begun after version {step}: {} {}",
                response.status,
                response.text()
            )),
        }
    }
}

/// Everything that happens between two reloads.
struct Run {
    app: App,
    ports: Vec<u16>,
    tree: Tree,
    daemon: Daemon,
    kept_alive: Client,
    /// Newest version known to be in force.
    acknowledged: Arc<AtomicU64>,
    times: Vec<Duration>,
}

impl Run {
    fn start() -> Self {
        let app = App::start(Routes(vec![
            ("/download", Box::new(scripts::download(DOWNLOAD))),
            ("/step", Box::new(scripts::say_header(STEP))),
        ]));
        let ports = free_ports(2);
        let tree = Tree::with(&[("shop/cart", &file(ports[0], app.port(), 0))]);
        let daemon = Setup::new(&tree).start();
        Self {
            kept_alive: Client::connect(ports[0]).unwrap(),
            app,
            ports,
            tree,
            daemon,
            acknowledged: Arc::default(),
            times: Vec::new(),
        }
    }

    /// Changes the files and waits until the change is acknowledged.
    fn reload(&mut self, step: u64) {
        let app = self.app.port();
        self.tree
            .replace("shop/cart", file(self.ports[0], app, step));
        match step % 10 {
            3 => self
                .tree
                .write("shop/extra", open(self.ports[1], app, step)),
            8 => self.tree.remove("shop/extra"),
            _ => {}
        }
        let started = Instant::now();
        let removes = if step % 10 == 8 {
            "?confirm=removals"
        } else {
            ""
        };
        let outcome = self.daemon.admin_post(&format!("/reload{removes}"), "");
        assert_eq!(outcome.status, 200, "{}", outcome.text());
        self.times.push(started.elapsed());
        self.acknowledged.store(step, Ordering::Release);
    }

    /// The rotated key is refused at once, on new and on open connections; the
    /// other service is there, or not.
    fn check(&mut self, step: u64) {
        let stale = Request::get("/step").key(&key(step - 1));
        assert_eq!(stale.send(self.ports[0]).status, 401, "version {step}");
        let answer = self.kept_alive.exchange(&stale).unwrap();
        assert_eq!(answer.status, 401, "version {step}, an open connection");
        if answer.closes() {
            self.kept_alive = Client::connect(self.ports[0]).unwrap();
        }
        let extra = self.ports[1];
        match step % 10 {
            3 => assert_eq!(Request::get("/").send(extra).status, 200),
            8 => {
                wait_until("the removed port closes", SOON, || !accepts(extra));
            }
            _ => {}
        }
    }
}

#[test]
fn a_hundred_reloads_lose_no_request() {
    let _machine = whole_machine();
    let mut run = Run::start();
    let port = run.ports[0];
    let mut download = Client::connect(port).unwrap();
    let request = Request::get("/download").key(&key(0));
    download.send(&request.bytes()).unwrap();
    assert_eq!(download.head().unwrap().0, 200);
    let work = Following {
        acknowledged: Arc::clone(&run.acknowledged),
    };
    let load = Load::start(port, 4, Duration::from_millis(2), work);

    let mut received = Vec::new();
    for step in 1..=RELOADS {
        run.reload(step);
        run.check(step);
        received.extend(download.exactly(64 * 1024).unwrap());
    }
    let report = load.stop();
    received.extend(download.exactly(DOWNLOAD - received.len() as u64).unwrap());

    run.times.sort();
    figure!(
        "{RELOADS} reloads: {} requests, {} failures, {} announced closes; acknowledged after {:?} (median), {:?} (slowest); slowest request {:?}",
        report.requests,
        report.failures,
        report.announced_closes,
        run.times[run.times.len() / 2],
        run.times[run.times.len() - 1],
        report.slowest,
    );
    assert_eq!(report.failures, 0, "{:#?}", report.words);
    assert!(
        report.requests > RELOADS * 10,
        "the load was no load: {report:?}"
    );
    let intact = (0..)
        .zip(&received)
        .all(|(at, byte)| scripts::pattern(at) == *byte);
    assert!(intact, "the download was damaged");
    assert_eq!(run.app.faults(), [""; 0]);
    assert_eq!(run.daemon.service("shop/cart")["state"], "serving");
}
