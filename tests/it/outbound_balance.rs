//! Two addresses, one of which dies, hangs, or says 503.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::{Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::load::{Load, Work};
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, wait_until, whole_machine};

/// Requests that must go well after the first ejection, for each way to fail.
const REQUESTS: u64 = 20_000;
const ID: &str = "x-id";

/// How often each POST was executed, at both addresses together.
type Executed = Arc<Mutex<HashMap<u64, u32>>>;

/// How the second address fails, once told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Dies,
    Hangs,
    Says503,
}

/// Counts POSTs when they arrive, whatever it answers.
fn recording(executed: Executed, fault: Fault, faulty: Arc<AtomicBool>) -> impl Script {
    move |request: &Received, stream: &mut Connection| -> io::Result<Next> {
        if request.method == "POST" {
            let id = request.header(ID).unwrap().parse().unwrap();
            *executed.lock().unwrap().entry(id).or_insert(0) += 1;
        }
        if faulty.load(Ordering::Acquire) {
            match fault {
                Fault::Dies => return Ok(Next::Reset),
                Fault::Hangs => return scripts::silent(request, stream),
                Fault::Says503 => {
                    stream.respond(503, "", b"no")?;
                    return Ok(Next::KeepAlive);
                }
            }
        }
        scripts::ok(request, stream)
    }
}

/// GET and POST in turn, each with an id.
struct Numbered(AtomicU64);

impl Work for Numbered {
    fn request(&self) -> (Request, u64) {
        let id = self.0.fetch_add(1, Ordering::AcqRel);
        let request = match id % 2 {
            0 => Request::get("/"),
            _ => Request::post("/", "body"),
        };
        (request.header(ID, &id.to_string()), id)
    }

    fn check(&self, id: u64, response: &Response) -> Result<(), String> {
        match response.status {
            200 => Ok(()),
            other => Err(format!("{id}: {other} {}", response.cause())),
        }
    }
}

fn states(daemon: &Daemon) -> Vec<String> {
    let service = daemon.service("shop/orders");
    let addresses = service["dependencies"][0]["addresses"].as_array().cloned();
    let text = |one: &serde_json::Value| one["state"].as_str().unwrap_or_default().to_owned();
    addresses.unwrap_or_default().iter().map(text).collect()
}

fn one_of_two_fails(fault: Fault) {
    let _machine = whole_machine();
    let executed = Executed::default();
    let faulty = Arc::new(AtomicBool::new(false));
    let never = Arc::new(AtomicBool::new(false));
    let good = App::start(recording(Arc::clone(&executed), fault, never));
    let bad = App::start(recording(Arc::clone(&executed), fault, Arc::clone(&faulty)));
    let local = free_port();
    let ports = free_ports(2);
    let text = format!(
        "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n  - {{name: payments, \
         address: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"], localPort: {local}, timeout: 500ms, healthCheck: false}}\n",
        ports[0],
        ports[1],
        good.port(),
        bad.port()
    );
    let tree = Tree::with(&[("shop/orders", &text)]);
    let daemon = Setup::new(&tree).start();
    let load = Load::start(local, 12, Duration::ZERO, Numbered(AtomicU64::new(0)));
    wait_until("both addresses are used", SOON, || {
        good.count() > 200 && bad.count() > 200
    });
    assert_eq!(load.failures(), 0);
    let share = bad.count() as f64 / (good.count() + bad.count()) as f64;
    assert!((0.3..0.7).contains(&share), "{share}");
    faulty.store(true, Ordering::Release);
    let mut bad = Some(bad);
    if fault == Fault::Dies {
        // Nobody listens there any more.
        bad = None;
    }
    let ejected = wait_until("the address is ejected", SOON, || {
        states(&daemon).contains(&"ejected".to_owned())
    });
    let (before, failed_before) = (load.requests(), load.failures());
    wait_until("the load goes on", Duration::from_secs(240), || {
        load.requests() >= before + REQUESTS
    });
    let report = load.stop();
    let requests = report.requests - before;
    let failures = report.failures - failed_before;
    let twice = executed
        .lock()
        .unwrap()
        .values()
        .filter(|count| **count > 1)
        .count();
    let posts = executed.lock().unwrap().len();
    println!(
        "{fault:?}: ejected after {ejected:?} and {failed_before} failures; then {failures} of {requests} \
         failed ({:.3} % good); {posts} POSTs executed, {twice} of them twice",
        100.0 - 100.0 * failures as f64 / requests as f64
    );
    assert!(failures * 1000 <= requests, "{:#?}", report.words);
    assert_eq!(twice, 0);
    drop(bad);
    let metrics = daemon.metrics();
    let open = metrics.count("outrigger_circuit_state", &[("peer", "payments")]);
    assert_eq!(open, 0.0, "an ejection is enough");
}

#[test]
fn one_of_two_dies() {
    one_of_two_fails(Fault::Dies);
}

#[test]
fn one_of_two_hangs() {
    one_of_two_fails(Fault::Hangs);
}

#[test]
fn one_of_two_says_503() {
    one_of_two_fails(Fault::Says503);
}
