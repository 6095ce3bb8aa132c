//! A `localPort` passes from one service to another without a gap.

use std::time::Duration;

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::load::{Load, Plain};
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_until};

struct Two {
    apps: [App; 2],
    public: Vec<u16>,
    tree: Tree,
}

impl Two {
    fn new() -> Self {
        let apps = ["0", "1"].map(|name| {
            App::start(move |_: &Received, stream: &mut Connection| {
                stream.respond(200, "", name.as_bytes())?;
                Ok(Next::KeepAlive)
            })
        });
        Self {
            apps,
            public: free_ports(2),
            tree: Tree::new(),
        }
    }

    /// Service `index` calls its own app through `local`.
    fn write(&self, index: usize, public: u16, local: Option<u16>) {
        let local = local.map_or_else(String::new, |port| format!(", localPort: {port}"));
        let text = format!(
            "port: {public}\nupstream: {app}\nhealthCheck: false\nauth: {{strategy: none}}\n\
             dependencies:\n  - {{name: far-{index}, address: \"127.0.0.1:{app}\", \
             healthCheck: false{local}}}\n",
            app = self.apps[index].port()
        );
        self.tree.write(["shop/a", "shop/b"][index], text);
    }

    fn both(&self, first: Option<u16>, second: Option<u16>) {
        self.write(0, self.public[0], first);
        self.write(1, self.public[1], second);
    }

    /// Which app a port leads to.
    #[track_caller]
    fn leads_to(port: u16) -> usize {
        let answer = Request::get("/").send(port);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().parse().expect("an app's number")
    }
}

#[track_caller]
fn assert_serving(daemon: &Daemon) {
    let services = daemon.services();
    for service in services["services"].as_array().unwrap() {
        assert_eq!(service["state"], "serving", "{service:#}");
        assert_eq!(service["problems"], serde_json::json!([]), "{service:#}");
    }
}

#[test]
fn ports_for_calls_are_swapped_and_handed_over_in_one_reload() {
    let _machine = shared_machine();
    let two = Two::new();
    let local = free_ports(2);
    two.both(Some(local[0]), Some(local[1]));
    let daemon = Setup::new(&two.tree)
        .reload("{poll: 60s, quiet: 300ms, max: 1s}")
        .start();
    let loads = [local[0], local[1]].map(|port| {
        let work = Plain(Request::get("/").header("Connection", "close"));
        Load::start(port, 2, Duration::from_millis(2), work)
    });
    assert_eq!([Two::leads_to(local[0]), Two::leads_to(local[1])], [0, 1]);
    for (first, second) in [(1, 0), (0, 1)] {
        two.both(Some(local[first]), Some(local[second]));
        assert_eq!(daemon.reload().status, 200);
        assert_serving(&daemon);
        pause(Duration::from_millis(100));
        assert_eq!(Two::leads_to(local[first]), 0);
        assert_eq!(Two::leads_to(local[second]), 1);
    }
    for load in loads {
        let report = load.stop();
        // What was accepted for the one may no longer mean anything to it, but
        // a port that is held is never refused.
        let unanswered = report.words.iter().filter(|word| !word.contains("404"));
        let unanswered: Vec<&String> = unanswered.collect();
        assert!(unanswered.is_empty(), "{unanswered:?}");
        assert!(report.requests > 100, "{report:?}");
    }
    // Handed over: the one gives it up, the other takes it.
    two.both(None, Some(local[0]));
    assert_eq!(daemon.reload().status, 200);
    assert_serving(&daemon);
    assert_eq!(Two::leads_to(local[0]), 1);
    wait_until("the other is closed", SOON, || {
        Request::get("/").status(local[1]).is_none()
    });
    // A public port may become one for calls, and back.
    let given_up = two.public[0];
    two.write(0, free_port(), None);
    two.write(1, two.public[1], Some(given_up));
    assert_eq!(daemon.reload().status, 200);
    assert_serving(&daemon);
    // Connections already on their way to the old one are served by it.
    wait_until("it leads to the new one", SOON, || {
        Request::get("/").send(given_up).text() == "1"
    });
    for _ in 0..50 {
        assert_eq!(Two::leads_to(given_up), 1);
    }
}

/// What the kernel has queued at a socket is lost with it: who takes a port
/// takes its socket. With sockets of its own for each version, a few clients in
/// a hundred changes were reset.
#[test]
fn public_ports_change_hands_and_nobody_is_reset() {
    let _machine = shared_machine();
    let two = Two::new();
    two.both(None, None);
    let daemon = Setup::new(&two.tree)
        .reload("{poll: 60s, quiet: 1ms, max: 1s}")
        .start();
    let loads = [two.public[0], two.public[1]].map(|port| {
        let work = Plain(Request::get("/").header("Connection", "close"));
        Load::start(port, 2, Duration::ZERO, work)
    });
    let reload = |public: [u16; 2]| {
        two.write(0, public[0], None);
        two.write(1, public[1], None);
        assert_eq!(daemon.reload().status, 200);
    };
    let [first, second, aside] = [two.public[0], two.public[1], free_port()];
    for _ in 0..30 {
        reload([second, first]);
        reload([first, second]);
        // Given up by the one before the other asks for it.
        reload([aside, second]);
        reload([aside, first]);
        reload([second, first]);
        reload([first, second]);
    }
    assert_serving(&daemon);
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failures, 0, "{report:?}");
        assert!(report.requests > 500, "{report:?}");
    }
}

#[test]
fn a_port_for_calls_that_is_kept_is_not_shared() {
    let _machine = shared_machine();
    let two = Two::new();
    let (local, taken) = (free_port(), free_port());
    let _stranger = App::start_on(taken, scripts::ok);
    two.both(Some(local), None);
    let daemon = Setup::new(&two.tree).start();
    // The one would give it up, but its new version cannot be had: it keeps it.
    two.write(0, taken, None);
    two.write(1, two.public[1], Some(local));
    assert_eq!(daemon.reload().status, 422);
    for _ in 0..20 {
        assert_eq!(Two::leads_to(local), 0);
    }
    let message = daemon.service("shop/b")["problems"].to_string();
    assert!(
        message.contains(&format!("port {local} belongs to shop/a")),
        "{message}"
    );
    drop(_stranger);
    wait_until("both are in force", SOON, || {
        daemon.reload();
        daemon.service("shop/b")["state"] == "serving"
    });
    assert_eq!(Two::leads_to(local), 1);
}
