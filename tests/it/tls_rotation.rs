//! Certificates replaced under load, in every order files can change in, and
//! the end of peers that a new authority does not know.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::support::app::{App, Script};
use crate::support::client::{Client, Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::load::{Load, Work};
use crate::support::moody::{status_of, wait_for_status};
use crate::support::pki::{Authority, Dates, Pair, Secure};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::tree::{Tree, replace, swap_link};
use crate::support::wait::{SOON, holds_for, shared_machine, wait_until};

const SERVICE: &str = "shop/cart";

struct House {
    app: App,
    port: u16,
    tree: Tree,
    authority: Authority,
}

impl House {
    fn new(tls: &str, auth: &str) -> Self {
        let hung: (_, Box<dyn Script>) = ("/hung", Box::new(scripts::hung_stream));
        let app = App::start(scripts::Routes(vec![hung]));
        let (port, tree) = (free_port(), Tree::new());
        let authority = Authority::new("shop");
        let text = format!(
            "port: {port}\nupstream: {}\nhealthCheck: false\nauth: {auth}\ntls: {tls}\n",
            app.port()
        );
        tree.write(SERVICE, text);
        Self {
            app,
            port,
            tree,
            authority,
        }
    }

    /// Admits `orders.shop` by certificates of its own authority.
    fn for_orders() -> Self {
        let house = Self::new(
            "{cert: server.pem, key: server.key, clientCa: ca.pem}",
            "{strategy: mtls, mtls: {allow: ['dns:orders.shop']}}",
        );
        let folder = house.folder();
        house.authority.server().write(&folder, "server");
        fs::write(folder.join("ca.pem"), house.authority.pem()).unwrap();
        house
    }

    fn start(&self) -> Daemon {
        Setup::new(&self.tree)
            .reload("{poll: 1s, quiet: 50ms, max: 200ms}")
            .start()
    }

    fn folder(&self) -> std::path::PathBuf {
        self.tree.folder(SERVICE)
    }

    /// What the port shows now to a client that was never here.
    fn shown(&self) -> Option<Vec<u8>> {
        let secure = Secure::new(&[&self.authority], None);
        let client = Client::connect_secure(self.port, &secure).ok()?;
        client.server_certificate()
    }
}

/// Requests under TLS, with a new connection every few of them.
struct Calls(Secure);

impl Work for Calls {
    fn request(&self) -> (Request, u64) {
        // Half of the connections are fresh ones: handshakes are the point.
        let close = fastrand::bool();
        let request = Request::get("/");
        match close {
            true => (request.header("Connection", "close"), 0),
            false => (request, 0),
        }
    }

    fn connect(&self, port: u16) -> std::io::Result<Client> {
        Client::connect_secure(port, &self.0)
    }

    fn check(&self, _: u64, response: &Response) -> Result<(), String> {
        match response.status {
            200 => Ok(()),
            other => Err(format!("{other} {}", response.text())),
        }
    }
}

/// Puts a pair in place, one file after the other; the state between them is
/// looked at by the daemon.
fn exchange(folder: &Path, pair: &Pair, cert_first: bool, between: impl FnOnce()) {
    let (cert, key) = (folder.join("server.pem"), folder.join("server.key"));
    let first = match cert_first {
        true => [(&cert, &pair.cert), (&key, &pair.key)],
        false => [(&key, &pair.key), (&cert, &pair.cert)],
    };
    replace(first[0].0, first[0].1);
    between();
    replace(first[1].0, first[1].1);
}

#[test]
fn pairs_are_replaced_in_both_orders_without_a_failed_handshake() {
    let _machine = shared_machine();
    let house = House::new("{cert: server.pem, key: server.key}", "none");
    let folder = house.folder();
    house.authority.server().write(&folder, "server");
    let daemon = house.start();
    let secure = Secure::new(&[&house.authority], None);
    let load = Load::start(
        house.port,
        4,
        Duration::from_millis(1),
        Calls(secure.clone()),
    );
    let mut before = house.shown();
    for round in 0..6 {
        let pair = house.authority.server();
        exchange(&folder, &pair, round % 2 == 0, || {
            // The half-way state is seen and refused: the old pair stays.
            daemon.reload();
            let state = daemon.service(SERVICE);
            let problems = state.to_string();
            assert!(problems.contains("do not belong together"), "{state:#}");
            assert_eq!(house.shown(), before, "the old pair");
        });
        daemon.reload();
        let after = house.shown();
        assert!(after.is_some() && after != before, "round {round}");
        before = after;
    }
    // Nobody rings here: the files' own events, or the clock.
    house.authority.server().write(&folder, "server");
    wait_until("a change is noticed", SOON, || house.shown() != before);
    let report = load.stop();
    figure!(
        "7 certificates under load: {} requests, {} failures, {} announced closes, slowest {:?}",
        report.requests,
        report.failures,
        report.announced_closes,
        report.slowest
    );
    assert_eq!(report.failures, 0, "{:#?}", report.words);
    assert!(report.requests > 200, "{report:?}");
    let failed = daemon.metrics();
    let labels = |result| [("service", SERVICE), ("result", result)];
    for result in ["misbehaved", "incompatible", "refused_by_client", "timeout"] {
        let count = failed.count("outrigger_tls_handshakes_total", &labels(result));
        assert_eq!(count, 0.0, "{result}");
    }
    assert_eq!(house.app.faults(), [""; 0]);
}

#[test]
fn a_mounted_secret_is_swapped() {
    let _machine = shared_machine();
    let house = House::new("{cert: tls/tls.crt, key: tls/tls.key}", "none");
    let mount = house.folder().join("tls");
    fs::create_dir_all(&mount).unwrap();
    let version = |number: u32| {
        let folder = mount.join(format!("..2026_{number}"));
        let pair = house.authority.server();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), &pair.cert).unwrap();
        fs::write(folder.join("tls.key"), &pair.key).unwrap();
    };
    version(1);
    symlink("..2026_1", mount.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let daemon = house.start();
    let secure = Secure::new(&[&house.authority], None);
    let load = Load::start(
        house.port,
        4,
        Duration::from_millis(1),
        Calls(secure.clone()),
    );
    for number in 2..=4 {
        let before = house.shown();
        version(number);
        swap_link(&mount.join("..data"), &format!("..2026_{number}"));
        fs::remove_dir_all(mount.join(format!("..2026_{}", number - 1))).unwrap();
        let took = wait_until("a swap is in force", SOON, || {
            house.shown().is_some_and(|now| Some(now) != before)
        });
        figure!("a swapped TLS secret: in force after {took:?}");
    }
    let report = load.stop();
    assert_eq!(report.failures, 0, "{:#?}", report.words);
    drop(daemon);
}

#[test]
fn peers_of_a_former_authority_are_ended() {
    let _machine = shared_machine();
    let house = House::for_orders();
    let folder = house.folder();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let ca = folder.join("ca.pem");
    fs::write(&ca, [old.pem(), new.pem()].concat()).unwrap();
    let daemon = house.start();
    let orders = |authority: &Authority| {
        let pair = authority.issue(&["orders.shop"], Dates::Now);
        Secure::new(&[&house.authority], Some(&pair))
    };
    let (by_old, by_new) = (orders(&old), orders(&new));
    let open = |secure| {
        let mut client = Client::connect_secure(house.port, secure).unwrap();
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
        client
    };
    let (former, mut present) = (open(&by_old), open(&by_new));
    let mut busy = open(&by_old);
    busy.send(&Request::get("/hung").bytes()).unwrap();
    assert_eq!(busy.head().unwrap().0, 200);
    assert_eq!(busy.exactly(14).unwrap(), b"9\r\ndata: 1\n\n\r\n");
    // Another key for the server alone ends nobody.
    house.authority.server().write(&folder, "server");
    daemon.reload();
    holds_for(
        "a new server certificate cuts no connection",
        Duration::from_millis(300),
        || former.is_open(),
    );

    replace(&ca, new.pem());
    let took = wait_until("the former peer is cut", Duration::from_secs(5), || {
        !former.is_open() && !busy.is_open()
    });
    figure!("a peer of a former authority: ended after {took:?}");
    daemon.wait_for_line(&["connections ended"]);
    // With its ticket, too.
    let refused = Client::connect_secure(house.port, &by_old)
        .map_err(|error| error.to_string())
        .and_then(|mut client| {
            let answer = client.exchange(&Request::get("/"));
            answer.map_err(|error| format!("{error:?}"))
        });
    assert!(refused.is_err(), "{refused:?}");
    // The others are told to come again, not cut.
    let answer = present.exchange(&Request::get("/")).unwrap();
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    holds_for("new peers get in", Duration::from_millis(200), || {
        let mut client = Client::connect_secure(house.port, &by_new).unwrap();
        client.exchange(&Request::get("/")).unwrap().status == 200
    });
}

#[test]
fn a_name_that_is_no_longer_listed_is_refused_from_the_next_request_on() {
    let _machine = shared_machine();
    let house = House::for_orders();
    let daemon = house.start();
    let pair = house.authority.issue(&["orders.shop"], Dates::Now);
    let secure = Secure::new(&[&house.authority], Some(&pair));
    let mut client = Client::connect_secure(house.port, &secure).unwrap();
    let text = fs::read_to_string(house.tree.file(SERVICE)).unwrap();
    for (listed, status) in [
        ("dns:orders.shop", 200),
        ("dns:cart.shop", 403),
        ("dns:orders.shop", 200),
    ] {
        house
            .tree
            .replace(SERVICE, text.replace("dns:orders.shop", listed));
        daemon.reload();
        // On the connection that was open before.
        let answer = client.exchange(&Request::get("/")).unwrap();
        assert_eq!(answer.status, status, "{listed}");
        // And with the session of before, on a new one.
        let mut again = Client::connect_secure(house.port, &secure).unwrap();
        let answer = again.exchange(&Request::get("/")).unwrap();
        assert_eq!(answer.status, status, "{listed}");
    }
}

/// A caller's certificate is replaced every hour or so; what is known of the
/// dependency does not rest on it.
#[test]
fn a_client_certificate_is_replaced_without_a_moment_of_doubt() {
    let _machine = shared_machine();
    let house = House::for_orders();
    let port = free_port();
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth: {{strategy: none}}\n\
         dependencies:\n  - {{name: cart, required: true, address: \"https://localhost:{}\", \
         tls: {{ca: ca.pem, cert: client.pem, key: client.key}}}}\n",
        house.app.port(),
        house.port
    );
    house.tree.write("shop/orders", text);
    let caller = house.tree.folder("shop/orders");
    fs::write(caller.join("ca.pem"), house.authority.pem()).unwrap();
    let issue = || house.authority.issue(&["orders.shop"], Dates::Now);
    issue().write(&caller, "client");
    let daemon = house.start();
    wait_for_status(port, "healthy");
    for _ in 0..4 {
        issue().write(&caller, "client");
        daemon.reload();
        holds_for("cart is up", Duration::from_millis(200), || {
            status_of(port) == "healthy"
        });
    }
    let told = daemon.output().matches("is up").count();
    assert_eq!(told, 1, "{}", daemon.output());
}

#[test]
fn expiry_is_measured_and_told() {
    let _machine = shared_machine();
    let house = House::new("{cert: server.pem, key: server.key}", "none");
    let folder = house.folder();
    let day = Duration::from_secs(24 * 60 * 60);
    let issue = |days| {
        let names = ["localhost"];
        house.authority.issue(&names, Dates::EndsIn(day * days))
    };
    issue(10).write(&folder, "server");
    let daemon = house.start();
    let line = daemon.wait_for_line(&["a certificate expires soon", SERVICE, "tls.cert"]);
    assert!(
        line.contains("WARN") && line.contains("\"days\":9"),
        "{line}"
    );
    let expiry = || {
        let metrics = daemon.metrics();
        let labels = [("service", SERVICE), ("certificate", "tls.cert")];
        let name = "outrigger_tls_certificate_expiry_timestamp_seconds";
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        (metrics.count(name, &labels) - now) / day.as_secs_f64()
    };
    assert!((9.9..10.1).contains(&expiry()), "{}", expiry());
    issue(30).write(&folder, "server");
    daemon.reload();
    wait_until("the new date is measured", SOON, || {
        (29.9..30.1).contains(&expiry())
    });
}
