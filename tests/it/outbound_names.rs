//! Names whose addresses change, and resolvers that do not answer.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::Request;
use crate::support::daemon::Setup;
use crate::support::isolation::Wrapper;
use crate::support::ports::{free_port, free_ports};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, holds_for, shared_machine, wait_until};

const NAME: &str = "billing.test.internal";

fn says(text: &'static str) -> impl Script {
    move |_: &Received, stream: &mut Connection| -> io::Result<Next> {
        stream.respond(200, "", text.as_bytes())?;
        Ok(Next::KeepAlive)
    }
}

/// What names mean; written in place, so that the daemon sees it.
struct Names(PathBuf);

impl Names {
    fn set(&self, lines: &[String]) {
        let text = format!("127.0.0.1 localhost\n{}\n", lines.join("\n"));
        fs::write(&self.0, text).unwrap();
    }

    fn point_to(&self, address: &str) {
        self.set(&[format!("{address} {NAME}")]);
    }
}

#[test]
fn names_are_followed_and_the_last_good_answer_is_kept() {
    let _machine = shared_machine();
    let tree = Tree::new();
    let hosts = tree.put("names/hosts", "127.0.0.1 localhost\n");
    // Nobody answers there.
    let resolver = tree.put(
        "names/resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    );
    let Some(wrapper) = Wrapper::own_names(&hosts, &resolver) else {
        return;
    };
    let names = Names(hosts);
    let port = free_port();
    let at = |ip: [u8; 4]| SocketAddr::from((ip, port));
    let _first = App::start_at(at([127, 0, 0, 1]), says("first"));
    let _second = App::start_at(at([127, 0, 0, 2]), says("second"));
    let local = free_port();
    let public = free_ports(2);
    let text = |timeout: &str| {
        format!(
            "port: {}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\ndependencies:\n  - {{name: billing, \
             address: \"{NAME}:{port}\", localPort: {local}, timeout: {timeout}, healthCheck: false}}\n",
            public[0], public[1]
        )
    };
    tree.write("shop/orders", text("30s"));
    let daemon = Setup::new(&tree).within(wrapper).start();
    let ask = || Request::get("/").send(local);

    // Down at start: the promised cause, and no harm to anything else.
    for _ in 0..3 {
        let answer = ask();
        assert_eq!((answer.status, answer.cause().as_str()), (502, "dns"));
    }
    assert_eq!(
        Request::get("/health?scope=self").status(public[0]),
        Some(200)
    );

    names.point_to("127.0.0.1");
    let found = wait_until("the name is found", SOON, || ask().text() == "first");
    assert!(found < Duration::from_secs(5), "{found:?}");

    names.point_to("127.0.0.2");
    let followed = wait_until("the change is followed", SOON, || ask().text() == "second");
    assert!(followed <= Duration::from_secs(5), "{followed:?}");

    // Down later: what was known stays good, for longer than two look-ups.
    names.set(&[]);
    let mut asked = 0;
    holds_for("the last answer is kept", Duration::from_secs(11), || {
        asked += 1;
        ask().text() == "second"
    });
    daemon.wait_for_line(&["look-up failed, keeping what is known"]);
    // Nor does another version of the same dependency forget it.
    tree.write("shop/orders", text("29s"));
    let before = daemon.generation();
    assert_eq!(daemon.reload().status, 200);
    wait_until("the new version is in force", SOON, || {
        daemon.generation() > before
    });
    holds_for("the answer outlives it", Duration::from_secs(4), || {
        ask().text() == "second"
    });

    names.point_to("127.0.0.1");
    let again = wait_until("it comes back", SOON, || ask().text() == "first");
    assert!(again <= Duration::from_secs(5), "{again:?}");
    println!(
        "found after {found:?}, change followed after {followed:?}, {asked} calls on the last answer, \
         back after {again:?}"
    );
}

/// A resolver that takes every question and never answers.
fn mute_resolver() -> Option<(UdpSocket, IpAddr)> {
    let addresses = (64..128).map(|last| IpAddr::from([127, 0, 0, last]));
    let found = addresses
        .filter_map(|address| Some((UdpSocket::bind((address, 53)).ok()?, address)))
        .next();
    if found.is_none() {
        println!("skipped: this machine does not let port 53 be bound");
    }
    found
}

#[test]
fn a_name_that_hangs_holds_up_no_other() {
    let _machine = shared_machine();
    let tree = Tree::new();
    let Some((_resolver, address)) = mute_resolver() else {
        return;
    };
    let hosts = tree.put("names/hosts", format!("127.0.0.1 localhost {NAME}\n"));
    let text = format!("nameserver {address}\noptions timeout:10 attempts:2\n");
    let resolver = tree.put("names/resolv.conf", text);
    let Some(wrapper) = Wrapper::own_names(&hosts, &resolver) else {
        return;
    };
    let app = App::start(says("well"));
    let public = free_ports(3);
    let file = |port: u16, host: &str, more: &str| {
        format!(
            "port: {port}\nupstream: \"{host}:{}\"\nhealthCheck: false\nauth: {{strategy: none}}\n{more}",
            app.port()
        )
    };
    let local = free_port();
    let calls = format!(
        "dependencies:\n  - {{name: billing, address: \"{NAME}:{}\", localPort: {local}, healthCheck: false}}\n",
        app.port()
    );
    tree.write("shop/stuck", file(public[0], "hangs.test.internal", ""));
    tree.write("shop/orders", file(public[1], NAME, &calls));
    let daemon = Setup::new(&tree).within(wrapper).start();
    let stuck = public[0];
    let waiting: Vec<_> = (0..48)
        .map(|_| thread::spawn(move || Request::get("/").send(stuck).cause()))
        .collect();
    wait_until("all of them wait", SOON, || {
        let labels = [("service", "shop/stuck"), ("direction", "inbound")];
        let metrics = daemon.metrics();
        metrics.count("outrigger_http_requests_in_flight", &labels) >= 40.0
    });
    // Neither has been asked for before.
    let answer = Request::get("/").send(public[1]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "well"));
    let answer = Request::get("/").send(local);
    assert_eq!((answer.status, answer.text().as_str()), (200, "well"));
    for one in waiting {
        assert_eq!(one.join().unwrap(), "dns");
    }
}
