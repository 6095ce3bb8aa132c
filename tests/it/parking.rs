//! Connections that are silent between requests hold little, and lose nothing
//! by it.

use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::Setup;
use crate::support::figures::figure;
use crate::support::files::{STEP, open};
use crate::support::ports::free_port;
use crate::support::scripts::{self, echo};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, whole_machine};

/// A connection is parked after a second at least, and two at most.
const SILENCE: Duration = Duration::from_millis(2_500);

/// Enough for a mean; less than any limit.
const MANY: u64 = 2_000;

/// KiB each in a build that is not optimized, where a task is three times as large;
/// buffers alone would take 16.
const LITTLE: f64 = 13.0;

#[test]
fn a_silent_connection_goes_on_where_it_was() {
    let _machine = shared_machine();
    let app = App::start(echo);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let daemon = Setup::new(&tree).start();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(port).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    pause(SILENCE);
    // A head in two pieces.
    clients[0].send(b"GET /again HTTP/1.1\r\nHo").unwrap();
    pause(Duration::from_millis(100));
    clients[0].send(b"st: shop\r\n\r\n").unwrap();
    assert_eq!(clients[0].response().unwrap().status, 200);
    // A body, and a request right behind it.
    let mut bytes = Request::post("/", vec![b'x'; 100_000]).bytes();
    bytes.extend(Request::post("/", b"second".to_vec()).bytes());
    clients[1].send(&bytes).unwrap();
    let echoed = |client: &mut Client| {
        let answer = client.response().unwrap().json();
        answer["body"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(echoed(&mut clients[1]).len(), 100_000);
    assert_eq!(echoed(&mut clients[1]), "second");
    // One that has only closed, and one that broke off.
    clients[2].finish_sending().unwrap();
    assert_eq!(clients[2].until_close(), b"");
    let reset = clients.pop().unwrap();
    reset.reset();
    // The ones that are still there are silent again, and not for ever.
    pause(SILENCE);
    for client in clients.iter_mut().take(2) {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    assert_eq!(app.faults(), [""; 0]);
    assert!(!daemon.output().contains("panic"));
}

#[test]
fn the_idle_time_and_a_drain_hold_for_silent_connections() {
    let _machine = shared_machine();
    let app = App::start(scripts::say_header(STEP));
    let port = free_port();
    let limits = "limits: {idleTimeout: 3s}\n";
    let tree = Tree::with(&[(
        "shop/cart",
        &format!("{}{limits}", open(port, app.port(), 0)),
    )]);
    let mut daemon = Setup::new(&tree).process("shutdown: {accept: 0s}").start();
    let mut client = Client::connect(port).unwrap();
    assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    let silent_since = Instant::now();
    assert_eq!(client.until_close(), b"");
    let silent = silent_since.elapsed();
    let fair = Duration::from_millis(2_900)..Duration::from_millis(4_900);
    assert!(fair.contains(&silent), "closed after {silent:?}");

    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(port).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    pause(Duration::from_millis(2_200));
    // A new version of the service closes none of them.
    tree.replace(
        "shop/cart",
        format!("{}{limits}", open(port, app.port(), 1)),
    );
    assert_eq!(daemon.reload().status, 200);
    let answer = clients[0].exchange(&Request::get("/")).unwrap();
    assert_eq!(answer.text(), "1");
    daemon.signal("TERM");
    // One was under way when the listener closed.
    clients[1].send(&Request::get("/").bytes()).unwrap();
    assert_eq!(clients[1].response().unwrap().status, 200);
    let (status, output) = daemon.wait_for_exit(SOON);
    assert!(status.success(), "{status}: {output}");
    for mut client in clients {
        assert_eq!(client.until_close(), b"");
    }
}

#[test]
fn silent_connections_hold_little() {
    let _machine = whole_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let daemon = Setup::new(&tree).process("workers: 1").start();
    // What is taken once: pools, buffers, the allocator's own.
    let ask = |client: &mut Client| client.exchange(&Request::get("/")).unwrap().status;
    assert_eq!(ask(&mut Client::connect(port).unwrap()), 200);
    let before = daemon.resident_kib();
    let mut clients = Vec::new();
    for number in 0..MANY {
        let mut client = Client::connect(port).unwrap();
        // Half of them never say anything.
        if number % 2 == 0 {
            assert_eq!(ask(&mut client), 200);
        }
        clients.push(client);
    }
    let each = |now: u64| now.saturating_sub(before) as f64 / MANY as f64;
    // Given back a second or two after the last of them was heard.
    let mut least = f64::MAX;
    let begun = Instant::now();
    while least > LITTLE && begun.elapsed() < SOON {
        pause(Duration::from_millis(200));
        least = least.min(each(daemon.resident_kib()));
    }
    figure!("{MANY} silent connections: {least:.1} KiB each");
    assert!(least <= LITTLE, "{least:.1} KiB each");
    for client in clients.iter_mut().step_by(2) {
        assert_eq!(ask(client), 200);
    }
}
