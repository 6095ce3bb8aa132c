//! HTTP/2 connections when what holds for a whole connection changes: told by
//! GOAWAY at once, and no request of theirs is lost (SPEC §1.3, §2.5).

use std::fs;
use std::time::Duration;

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::daemon::{Daemon, Setup};
use crate::support::frames::{
    ACK, DATA, END_STREAM, FrameClient, GOAWAY, HEADERS, PING, frame, get, headers,
};
use crate::support::pki::{Authority, Dates, Secure};
use crate::support::ports::free_port;
use crate::support::tree::{Tree, replace};
use crate::support::wait::{SOON, shared_machine, wait_until};

/// Answers `/slow` after a while, everything else at once.
fn script(request: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    if request.target == "/slow" && !stream.wait(Duration::from_millis(1500)) {
        return Ok(Next::Close);
    }
    stream.respond(200, "", b"ok")?;
    Ok(Next::KeepAlive)
}

struct House {
    app: App,
    port: u16,
    tree: Tree,
    authority: Authority,
}

impl House {
    fn new() -> Self {
        let house = Self {
            app: App::start(script),
            port: free_port(),
            tree: Tree::new(),
            authority: Authority::new("shop"),
        };
        let folder = house.tree.folder("shop/cart");
        house.authority.server().write(&folder, "server");
        fs::write(folder.join("ca.pem"), house.authority.pem()).unwrap();
        house.write("clientCert: require", "");
        house
    }

    fn write(&self, tls: &str, more: &str) {
        let text = format!(
            "port: {}\nupstream: {}\nhealthCheck: false\nauth: none\n\
             tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, {tls}}}\n{more}",
            self.port,
            self.app.port()
        );
        self.tree.write("shop/cart", text);
    }

    /// As a client of the shop.
    fn secure(&self) -> Secure {
        let pair = self.authority.issue(&["orders.shop"], Dates::Now);
        Secure::new(&[&self.authority], Some(&pair))
    }
}

/// Everything that came until the end: frames by kind and stream, and the code
/// of the first GOAWAY.
struct Heard {
    goaway_before_answer: bool,
    code: u32,
    answered: bool,
    complete: bool,
}

/// Reads to the end as a good client does, with `stream` open.
fn hear(client: &mut FrameClient, stream: u32) -> Heard {
    let mut heard = Heard {
        goaway_before_answer: false,
        code: u32::MAX,
        answered: false,
        complete: false,
    };
    while let Some(came) = client.frame().expect("frames in time, and then the end") {
        match came.kind {
            PING if came.flags & ACK == 0 => {
                // At the end nobody may be there to take it.
                let _ = client.send(&frame(PING, ACK, 0, &came.payload));
            }
            GOAWAY if heard.code == u32::MAX => {
                heard.code = u32::from_be_bytes(came.payload[4..8].try_into().unwrap());
                heard.goaway_before_answer = !heard.answered;
            }
            HEADERS if came.stream == stream => {
                heard.answered = came.payload.first() == Some(&0x88);
                heard.complete |= came.flags & END_STREAM != 0;
            }
            DATA if came.stream == stream => heard.complete |= came.flags & END_STREAM != 0,
            _ => {}
        }
    }
    heard
}

#[test]
fn a_change_is_told_at_once_and_loses_no_request() {
    let _machine = shared_machine();
    let house = House::new();
    let folder = house.tree.folder("shop/cart");
    let daemon = Setup::new(&house.tree)
        .reload("{poll: 1s, quiet: 20ms, max: 50ms}")
        .start();
    let secure = house.secure();
    let change = |what: &str| match what {
        "certificate" => {
            house.authority.server().write(&folder, "server");
        }
        "another authority beside the old one" => {
            let both = [house.authority.pem(), Authority::new("new").pem()].concat();
            replace(&folder.join("ca.pem"), both);
        }
        "who must show a certificate" => house.write("clientCert: optional", ""),
        "limits" => house.write("clientCert: optional", "limits: {h2Streams: 64}\n"),
        other => panic!("{other}"),
    };
    for what in [
        "certificate",
        "another authority beside the old one",
        "who must show a certificate",
        "limits",
    ] {
        let before = daemon.generation();
        let mut client = FrameClient::connect_secure(house.port, &secure);
        assert!(client.answers(1), "{what}");
        let asked = house.app.count();
        client.send(&headers(3, &get("/slow"), true)).unwrap();
        wait_until("the app has the request", SOON, || {
            house.app.count() > asked
        });
        change(what);
        assert_eq!(daemon.reload().status, 200, "{what}");
        assert!(daemon.generation() > before, "{what}");
        let heard = hear(&mut client, 3);
        assert_eq!(heard.code, 0, "{what}: no GOAWAY, or one with an error");
        assert!(heard.goaway_before_answer, "{what}: told only afterwards");
        assert!(
            heard.answered && heard.complete,
            "{what}: a request is lost"
        );
        is_well(&house, &secure, what);
    }
    // What concerns no connection ends none.
    let mut client = FrameClient::connect_secure(house.port, &secure);
    assert!(client.answers(1));
    house.write(
        "clientCert: optional",
        "limits: {h2Streams: 64}\nversion: 2.0.0\n",
    );
    daemon.reload();
    assert!(client.answers(3) && client.answers(5));
    counted(&daemon);
}

/// The next connection is served under what is in force.
fn is_well(house: &House, secure: &Secure, what: &str) {
    assert!(
        FrameClient::connect_secure(house.port, secure).answers(1),
        "{what}"
    );
    let mut client = Client::connect_secure(house.port, secure).unwrap();
    let answer = client.exchange(&Request::get("/")).unwrap();
    assert_eq!(answer.status, 200, "{what}");
}

/// Nobody saw a failure.
fn counted(daemon: &Daemon) {
    let metrics = daemon.metrics();
    for result in ["misbehaved", "incompatible", "timeout", "bad_certificate"] {
        let labels = [("service", "shop/cart"), ("result", result)];
        let count = metrics.count("outrigger_tls_handshakes_total", &labels);
        assert_eq!(count, 0.0, "{result}");
    }
    assert_eq!(
        metrics
            .sum("outrigger_proxy_errors_total", &[])
            .unwrap_or(0.0),
        0.0
    );
}

#[test]
fn frames_are_counted_from_the_first_one() {
    let _machine = shared_machine();
    let house = House::new();
    let daemon = Setup::new(&house.tree).start();
    let mut client = FrameClient::connect_secure(house.port, &house.secure());
    assert!(client.answers(1));
    let many = frame(0xee, 0, 1, b"x").repeat(100_000);
    let labels = [("service", "shop/cart"), ("cause", "bad_request")];
    wait_until("the flood is seen", SOON, || {
        let _ = client.send(&many);
        let metrics = daemon.metrics();
        metrics.count("outrigger_proxy_errors_total", &labels) >= 1.0
    });
}
