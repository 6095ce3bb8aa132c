//! A bad network between sidecar and app, for a minute, drawn from a seed: every
//! 2xx was executed exactly as it was sent, nothing is executed twice that may
//! not be, nobody gets another's answer, and afterwards all is well.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::ports::free_port;
use crate::support::seed::{seconds, seed};
use crate::support::shim::{Fault, Shim};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_until};

const CLIENTS: u64 = 8;
/// Larger bodies are not kept for a retry (RETRY-2).
const KEPT_BYTES: usize = 16 * 1024;

/// What was sent, or executed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    method: String,
    target: String,
    body: Vec<u8>,
}

/// Executions by number of the order.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HashMap<u64, Vec<Order>>>>);

impl Script for Ledger {
    fn answer(&self, request: &Received, stream: &mut Connection) -> io::Result<Next> {
        let number = request.header("x-order").and_then(|text| text.parse().ok());
        let Some(number) = number else {
            stream.respond(400, "", b"no number")?;
            return Ok(Next::KeepAlive);
        };
        let order = Order {
            method: request.method.clone(),
            target: request.target.clone(),
            body: request.body.clone(),
        };
        let mut executed = self.0.lock().unwrap();
        executed.entry(number).or_default().push(order);
        drop(executed);
        let body = format!("{number}:{}", "y".repeat(number as usize % 700));
        if number % 5 == 0 {
            use io::Write as _;
            let (first, second) = body.split_at(body.len() / 2);
            let text = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len()
            );
            stream.write_all(text.as_bytes())?;
        } else {
            stream.respond(200, "", body.as_bytes())?;
        }
        Ok(Next::KeepAlive)
    }
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    good: u64,
    /// By status, or 0 without a whole answer.
    bad: HashMap<u16, u64>,
    wrong: Vec<String>,
    sent: Vec<(u64, Order, bool)>,
}

struct Caller {
    port: u16,
    numbers: Arc<AtomicU64>,
    random: fastrand::Rng,
    connection: Option<Client>,
    seen: Seen,
}

impl Caller {
    fn order(&mut self) -> (u64, Order) {
        let number = self.numbers.fetch_add(1, Ordering::AcqRel);
        let (method, length) = match self.random.u8(0..10) {
            0..=3 => ("GET", 0),
            4..=6 => ("POST", self.random.usize(0..3000)),
            7 => ("PUT", self.random.usize(1..3000)),
            8 => ("PUT", KEPT_BYTES + self.random.usize(1..40_000)),
            _ => ("DELETE", 0),
        };
        let body = (0..length).map(|_| self.random.u8(..)).collect();
        let order = Order {
            method: method.to_owned(),
            target: format!("/orders/{number}?q=%20{}", self.random.u16(..)),
            body,
        };
        (number, order)
    }

    fn call(&mut self) {
        let (number, order) = self.order();
        let mut request =
            Request::new(&order.method, &order.target).header("x-order", &number.to_string());
        if !order.body.is_empty() {
            request = request.body(order.body.clone());
        }
        let client = self.connection.take();
        let Some(mut client) = client.or_else(|| Client::connect(self.port).ok()) else {
            self.seen.wrong.push("the port does not accept".to_owned());
            return;
        };
        client.patience(Duration::from_secs(15));
        let answer = client.exchange(&request);
        let mut good = false;
        match answer {
            Ok(response) if response.status == 200 => {
                good = true;
                self.seen.good += 1;
                let expected = format!("{number}:{}", "y".repeat(number as usize % 700));
                if response.text() != expected {
                    let text = response.text();
                    self.seen.wrong.push(format!("order {number} got {text}"));
                }
                if !response.closes() {
                    self.connection = Some(client);
                }
            }
            Ok(response) => {
                *self.seen.bad.entry(response.status).or_default() += 1;
                if !matches!(response.status, 502..=504) || response.cause().is_empty() {
                    let (status, text) = (response.status, response.text());
                    self.seen.wrong.push(format!("{status} {text}"));
                }
                if !response.closes() {
                    self.connection = Some(client);
                }
            }
            Err(error) => {
                *self.seen.bad.entry(0).or_default() += 1;
                // Half an answer of the app's ends the connection; none at all
                // is never left without words.
                if !matches!(error, crate::support::message::Unread::Cut(_)) {
                    self.seen.wrong.push(format!("order {number}: {error:?}"));
                }
            }
        }
        self.seen.sent.push((number, order, good));
    }
}

/// Holds what was seen against what was executed.
fn check(seen: &[Seen], ledger: &Ledger) -> Vec<String> {
    let executed = ledger.0.lock().unwrap();
    let mut wrong: Vec<String> = seen.iter().flat_map(|seen| seen.wrong.clone()).collect();
    for (number, order, good) in seen.iter().flat_map(|seen| &seen.sent) {
        let runs = executed.get(number).map_or(&[][..], Vec::as_slice);
        if *good && runs.is_empty() {
            wrong.push(format!("order {number} was answered and not executed"));
        }
        if runs.iter().any(|run| run != order) {
            wrong.push(format!("order {number} was executed as something else"));
        }
        let idempotent = order.method != "POST" && order.body.len() <= KEPT_BYTES;
        let most = if idempotent { 2 } else { 1 };
        if runs.len() > most {
            let method = &order.method;
            let times = runs.len();
            wrong.push(format!("{method} {number} was executed {times} times"));
        }
    }
    wrong
}

fn faults(shim: &Shim, random: &mut fastrand::Rng) {
    let fault = match random.u8(0..12) {
        0 | 1 => Fault::None,
        2 => Fault::Delay(Duration::from_millis(random.u64(1..50))),
        3 => Fault::ResetAnswerAt(random.usize(0..900)),
        4 => Fault::ResetRequestAt(random.usize(0..3000)),
        5 => Fault::CloseAnswerAt(random.usize(0..900)),
        6 => Fault::Dribble(random.usize(1..60), Duration::from_millis(1)),
        7 => Fault::Refuse,
        _ => Fault::Any,
    };
    shim.set(fault);
    // Connections that idle in the pool, or carry a request, end.
    if random.u8(0..3) == 0 {
        shim.cut(random.bool());
    }
}

fn start(shim: &Shim) -> (Tree, Daemon, u16) {
    let port = free_port();
    let file = format!(
        "port: {port}\nhealthCheck: false\nauth: {{strategy: none}}\nupstream: {{url: 'http://127.0.0.1:{}', \
         connectTimeout: 300ms, responseTimeout: 700ms, bodyIdleTimeout: 700ms}}\n",
        shim.port()
    );
    let tree = Tree::with(&[("shop/cart", &file)]);
    let daemon = Setup::new(&tree).start();
    (tree, daemon, port)
}

#[test]
fn whatever_the_network_does_a_2xx_was_executed_as_sent_and_once() {
    let _machine = shared_machine();
    let seed = seed("nemesis of the upstream");
    let length = seconds("OUTRIGGER_TEST_NEMESIS_SECONDS", 60);
    let mut random = fastrand::Rng::with_seed(seed);
    let ledger = Ledger::default();
    let app = App::start(ledger.clone());
    let shim = Shim::start(app.port(), random.u64(..));
    let (_tree, daemon, port) = start(&shim);
    assert_eq!(Request::get("/").send(port).status, 400);
    let before = daemon.descriptors();
    let numbers = Arc::new(AtomicU64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut caller = Caller {
                port,
                numbers: Arc::clone(&numbers),
                random: random.fork(),
                connection: None,
                seen: Seen::default(),
            };
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    caller.call();
                    pause(Duration::from_millis(2));
                }
                caller.seen
            })
        })
        .collect();
    let begun = Instant::now();
    while begun.elapsed() < length {
        faults(&shim, &mut random);
        pause(Duration::from_millis(random.u64(20..400)));
    }
    shim.set(Fault::None);
    shim.cut(true);
    stop.store(true, Ordering::Release);
    let seen: Vec<Seen> = callers
        .into_iter()
        .map(|caller| caller.join().unwrap())
        .collect();
    let wrong = check(&seen, &ledger);
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert_eq!(app.faults(), [""; 0], "seed {seed}");
    for _ in 0..20 {
        assert_eq!(
            Request::get("/").send(port).status,
            400,
            "all is well again"
        );
    }
    wait_until("descriptors are given back", SOON, || {
        daemon.descriptors() <= before + 4
    });
    let good: u64 = seen.iter().map(|seen| seen.good).sum();
    let mut bad: HashMap<u16, u64> = HashMap::new();
    for (status, count) in seen.iter().flat_map(|seen| &seen.bad) {
        *bad.entry(*status).or_default() += count;
    }
    let retried = daemon.metrics().count("outrigger_retries_total", &[]);
    assert!(good > 100, "{good} good, {bad:?}");
    figure!(
        "nemesis of the upstream: {good} answers of the app, others by status {bad:?}, \
         {retried} retries, {} connections; none wrong, none twice",
        shim.connections()
    );
}
