//! Nothing is lost when a port is given up, or changes hands.

use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::crowd::{Crowd, Slow, assert_none, watch_port};
use crate::support::daemon::Setup;
use crate::support::figures::figure;
use crate::support::files::{STEP, open};
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::seed::seed;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_until};

#[test]
fn a_removed_port_drains_like_a_process() {
    let _machine = shared_machine();
    let seed = seed("a_removed_port_drains_like_a_process");
    let mut random = fastrand::Rng::with_seed(seed);
    let app = App::start(Slow::new(random.fork()));
    let ports = free_ports(2);
    let files = [open(ports[0], app.port(), 0), open(ports[1], app.port(), 0)];
    let tree = Tree::with(&[("shop/cart", &files[0]), ("shop/user", &files[1])]);
    let shutdown = "shutdown: {accept: 700ms, deadline: 6s}";
    let daemon = Setup::new(&tree).process(shutdown).start();
    let bystanders = Crowd::start(ports[1], 2, random.u64(..));
    let mut good = 0;
    for _ in 0..4 {
        let crowd = Crowd::start(ports[0], 6, random.u64(..));
        pause(Duration::from_millis(random.u64(50..400)));
        let watched = watch_port(ports[0]);
        tree.remove("shop/cart");
        let removed = Instant::now();
        let reloaded = daemon.admin_post("/reload?confirm=removals", "");
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        let accepted_until = watched.join().unwrap();
        let (answered, lost) = crowd.end(accepted_until);
        assert_none(&lost);
        assert!(accepted_until.duration_since(removed) >= Duration::from_millis(600));
        good += answered;
        tree.write("shop/cart", &files[0]);
        assert_eq!(daemon.reload().status, 200);
        wait_until("the port is back", SOON, || {
            Request::get("/").status(ports[0]) == Some(200)
        });
    }
    let (others, lost) = bystanders.end(Instant::now());
    assert_none(&lost);
    assert!(daemon.output().contains("\"ready\""));
    figure!("4 ports removed under load: {good} requests there and {others} beside, none lost");
}

#[test]
fn a_port_given_up_can_be_had_again_at_once() {
    let _machine = shared_machine();
    let app = App::start(scripts::say_header(STEP));
    let port = free_port();
    let tree = Tree::with(&[
        ("shop/cart", &open(port, app.port(), 1)),
        ("shop/user", &open(free_port(), app.port(), 1)),
    ]);
    let shutdown = "shutdown: {accept: 20s, deadline: 25s}";
    let daemon = Setup::new(&tree).process(shutdown).start();
    tree.remove("shop/cart");
    assert_eq!(
        daemon.admin_post("/reload?confirm=removals", "").status,
        200
    );
    // Still announced as closing: another service takes the port over.
    assert!(Request::get("/").send(port).closes());
    tree.write("shop/order", open(port, app.port(), 2));
    let reloaded = daemon.reload();
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    for _ in 0..50 {
        assert_eq!(Request::get("/").send(port).text(), "2");
    }
}

#[test]
fn ports_are_exchanged_under_load() {
    let _machine = shared_machine();
    let mut random = fastrand::Rng::with_seed(seed("ports_are_exchanged_under_load"));
    let app = App::start(Slow::new(random.fork()));
    let ports = free_ports(2);
    let files = [open(ports[0], app.port(), 0), open(ports[1], app.port(), 0)];
    let tree = Tree::with(&[("shop/cart", &files[0]), ("shop/user", &files[1])]);
    let shutdown = "shutdown: {accept: 2s, deadline: 10s}";
    let daemon = Setup::new(&tree).process(shutdown).start();
    let crowds = [0, 1].map(|index| Crowd::start(ports[index], 4, random.u64(..)));
    for round in 1..=5 {
        tree.replace("shop/cart", &files[round % 2]);
        tree.replace("shop/user", &files[(round + 1) % 2]);
        let reloaded = daemon.reload();
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        pause(Duration::from_millis(random.u64(100..500)));
    }
    for crowd in crowds {
        let (good, lost) = crowd.end(Instant::now());
        assert_none(&lost);
        assert!(good > 50, "no load: {good}");
    }
}

#[test]
fn a_drain_does_not_wait_for_a_port_that_was_emptied_before_it() {
    let _machine = shared_machine();
    let app = App::start(scripts::slow(Duration::from_secs(3)));
    let ports = free_ports(2);
    let tree = Tree::with(&[
        ("shop/cart", &open(ports[0], app.port(), 0)),
        ("shop/user", &open(ports[1], app.port(), 0)),
    ]);
    let shutdown = "shutdown: {accept: 200ms, deadline: 30s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    let mut client = Client::connect(ports[1]).unwrap();
    client.send(&Request::get("/").bytes()).unwrap();
    wait_until("the app is asked", SOON, || app.count() == 1);
    tree.remove("shop/user");
    let reloaded = daemon.admin_post("/reload?confirm=removals", "");
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    // Two wait for the port's end from now on: its own drain, and this one.
    daemon.signal("TERM");
    assert_eq!(client.response().unwrap().status, 200);
    let answered = Instant::now();
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    let took = answered.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
