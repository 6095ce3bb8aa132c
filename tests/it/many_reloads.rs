//! Ten thousand reloads beside one hung stream: memory stays flat, and old
//! versions do not pile up.

use std::time::{Duration, Instant};

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::Setup;
use crate::support::figures::figure;
use crate::support::files::{STEP, open};
use crate::support::ports::free_port;
use crate::support::scripts::{self, Routes};
use crate::support::tree::Tree;
use crate::support::wait::{pause, shared_machine};

const RELOADS: u64 = 10_000;
/// Allocators and caches have reached their size by then.
const WARM: u64 = 2_000;
/// Growth of resident memory over the other 8 000 reloads.
const FLAT_KIB: u64 = 4 * 1024;

#[test]
fn ten_thousand_reloads_leave_nothing_behind() {
    let _machine = shared_machine();
    let app = App::start(Routes(vec![
        ("/events", Box::new(scripts::hung_stream)),
        ("/step", Box::new(scripts::say_header(STEP))),
    ]));
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let daemon = Setup::new(&tree)
        .reload("{poll: 60s, quiet: 1ms, max: 2ms}")
        .start();
    let first = daemon.generation();

    let mut stream = Client::connect(port).unwrap();
    stream.send(&Request::get("/events").bytes()).unwrap();
    assert_eq!(stream.head().unwrap().0, 200);
    assert_eq!(stream.chunk().unwrap(), b"data: 1\n\n");

    let mut admin = Client::connect(daemon.admin).unwrap();
    let mut sizes = Vec::new();
    let mut most_alive = 0.0_f64;
    let started = Instant::now();
    let reload = Request::post("/reload", "").header("Host", "127.0.0.1");
    for step in 1..=RELOADS {
        tree.replace("shop/cart", open(port, app.port(), step));
        let outcome = admin.exchange(&reload).unwrap();
        assert_eq!(outcome.status, 200, "{}", outcome.text());
        // Connections to the admin port live a minute at most.
        if step % 100 == 0 {
            admin = Client::connect(daemon.admin).unwrap();
        }
        if step % 500 == 0 {
            let seen = Request::get("/step").send(port).text();
            assert_eq!(seen, step.to_string());
            let metrics = daemon.metrics();
            let alive = metrics
                .sum("outrigger_config_generations_alive", &[])
                .unwrap();
            most_alive = most_alive.max(alive);
            sizes.push((step, daemon.resident_kib()));
        }
    }
    let took = started.elapsed();
    let last = daemon.generation();
    figure!(
        "{RELOADS} reloads in {took:?}: generations {first}..{last}, at most {most_alive} alive; KiB {sizes:?}"
    );
    assert!(last >= first + RELOADS, "some reloads made no generation");
    assert!(most_alive <= 3.0, "{most_alive} generations alive");
    let warm = sizes.iter().find(|(step, _)| *step >= WARM).unwrap().1;
    let grown = sizes.last().unwrap().1.saturating_sub(warm);
    assert!(grown <= FLAT_KIB, "{grown} KiB more: {sizes:?}");

    // The stream is as it was: open, and silent.
    stream.patience(Duration::from_millis(50));
    pause(Duration::from_millis(1));
    assert!(matches!(
        stream.chunk(),
        Err(crate::support::message::Unread::TimedOut)
    ));
}
