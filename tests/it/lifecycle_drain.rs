//! Nothing is lost when a process or a port comes to its end (SPEC §11).
//!
//! The rule: a request of which the client had sent a byte before the listener
//! closed is answered, unless its connection was announced as closing.

use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::{Client, Request, accepts};
use crate::support::crowd::{Crowd, LOOK, Slow, assert_none, watch_port};
use crate::support::daemon::Setup;
use crate::support::figures::figure;
use crate::support::files::open;
use crate::support::message::Unread;
use crate::support::pki::{Authority, Secure};
use crate::support::ports::free_port;
use crate::support::scripts::{self, Routes};
use crate::support::seed::{seconds, seed};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, pause, shared_machine, wait_until};

/// Asks a probe until the door is gone; gives every status there was.
fn watch_probe(observe: u16, path: &'static str) -> JoinHandle<Vec<u16>> {
    thread::spawn(move || {
        let mut seen = Vec::new();
        while accepts(observe) {
            if let Some(status) = Request::get(path).status(observe)
                && seen.last() != Some(&status)
            {
                seen.push(status);
            }
            pause(LOOK);
        }
        seen
    })
}

#[test]
fn sigterm_under_load_loses_nothing() {
    let _machine = shared_machine();
    let seed = seed("sigterm_under_load_loses_nothing");
    let mut random = fastrand::Rng::with_seed(seed);
    let app = App::start(Slow::new(random.fork()));
    let until = Instant::now() + seconds("OUTRIGGER_TEST_DRAIN_SECONDS", 20);
    let (mut drains, mut good) = (0, 0);
    while drains < 3 || Instant::now() < until {
        drains += 1;
        good += drain_once(&app, &mut random);
    }
    assert_eq!(app.faults(), [""; 0]);
    figure!("{drains} drains under load: {good} requests, none lost, liveness never failed");
}

/// One process from start to end; the number of requests it answered.
fn drain_once(app: &App, random: &mut fastrand::Rng) -> u64 {
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let accept = random.u64(0..900);
    let shutdown = format!("shutdown: {{accept: {accept}ms, deadline: 10s}}");
    let mut daemon = Setup::new(&tree).process(&shutdown).start();
    let crowd = Crowd::start(port, 8, random.u64(..));
    let live = watch_probe(daemon.observe, "/livez");
    let ready = watch_probe(daemon.observe, "/readyz");
    pause(Duration::from_millis(random.u64(50..500)));
    let watched = watch_port(port);
    let begun = Instant::now();
    daemon.signal("TERM");
    let (status, _) = daemon.wait_for_exit(Duration::from_secs(10));
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0));
    let accepted_until = watched.join().unwrap();
    let (good, lost) = crowd.end(accepted_until);
    assert_none(&lost);
    assert!(good > 0, "no load");
    assert!(took >= Duration::from_millis(accept), "{took:?}");
    assert_eq!(live.join().unwrap(), [200]);
    let ready = ready.join().unwrap();
    assert!(ready == [200, 503] || ready == [200], "{ready:?}");
    good
}

#[test]
fn readiness_goes_first_and_responses_announce_the_end() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let shutdown = "shutdown: {accept: 2s, deadline: 10s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    let mut kept = Client::connect(port).unwrap();
    assert!(!kept.exchange(&Request::get("/")).unwrap().closes());
    let mut http2 = Http2::connect(port);
    let begun = Instant::now();
    assert_eq!(daemon.admin_post("/drain", "").status, 202);
    wait_until("readiness is 503", SOON, || {
        Request::get("/readyz").status(daemon.observe) == Some(503)
    });
    assert_eq!(Request::get("/livez").status(daemon.observe), Some(200));
    assert!(kept.exchange(&Request::get("/")).unwrap().closes());
    let fresh = Request::get("/").send(port);
    assert!(fresh.closes() && fresh.status == 200);
    let health = Request::get("/health").send(port);
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("stopped"))
    );
    http2.wait_for_goaway();
    assert!(
        begun.elapsed() < Duration::from_millis(1900),
        "too slow to tell"
    );
    // A change asked for now is refused rather than left hanging.
    assert_eq!(daemon.reload().status, 503);
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// An HTTP/2 connection, frame by frame.
struct Http2(Client);

impl Http2 {
    fn connect(port: u16) -> Self {
        let mut client = Client::connect(port).unwrap();
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        // Empty SETTINGS.
        client.send(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        let mut http2 = Self(client);
        // Its own SETTINGS: from now on the connection is there.
        assert_eq!(http2.frame(), 4);
        http2
    }

    /// Reads a frame; its type.
    fn frame(&mut self) -> u8 {
        let head = self.0.exactly(9).unwrap();
        let length = u64::from(head[0]) << 16 | u64::from(head[1]) << 8 | u64::from(head[2]);
        self.0.exactly(length).unwrap();
        head[3]
    }

    /// Reads frames until GOAWAY (RFC 9113 §6.8).
    fn wait_for_goaway(&mut self) {
        while self.frame() != 7 {}
    }
}

#[test]
fn streams_tunnels_and_downloads_end_as_promised() {
    let _machine = shared_machine();
    let download = 400_000;
    let app = App::start(Routes(vec![
        ("/events", Box::new(scripts::hung_stream)),
        ("/socket", Box::new(switch)),
        ("/download", Box::new(trickle(download))),
    ]));
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let shutdown = "shutdown: {accept: 500ms, deadline: 6s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    let begin = |target: &str, upgrade: bool| {
        let mut client = Client::connect(port).unwrap();
        let mut request = Request::get(target);
        if upgrade {
            request = request
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket");
        }
        client.send(&request.bytes()).unwrap();
        let (status, _) = client.head().unwrap();
        (client, status)
    };
    let (mut events, _) = begin("/events", false);
    let (mut socket, status) = begin("/socket", true);
    assert_eq!(status, 101);
    let (mut download_client, _) = begin("/download", false);
    let begun = Instant::now();
    daemon.signal("TERM");
    let ended = |mut client: Client| {
        thread::spawn(move || {
            let mut count = 0;
            loop {
                match client.some(usize::MAX) {
                    Ok(bytes) if bytes.is_empty() => return (count, true, begun.elapsed()),
                    Ok(bytes) => count += bytes.len(),
                    Err(_) => return (count, false, begun.elapsed()),
                }
            }
        })
    };
    for client in [&mut events, &mut socket, &mut download_client] {
        client.patience(SOON);
    }
    let threads = [events, socket, download_client].map(ended);
    let (status, _) = daemon.wait_for_exit(Duration::from_secs(6));
    let took = begun.elapsed();
    let [events, socket, downloaded] = threads.map(|thread| thread.join().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(6), "{took:?}");
    // The stream is cut at the deadline, and that can be told from its end.
    assert!(!events.1, "a cut stream must not look complete");
    assert!(events.2 > Duration::from_secs(5), "{:?}", events.2);
    // The tunnel two seconds before, a little earlier than that to be gone in time.
    let tunnel = Duration::from_millis(3500)..Duration::from_millis(4600);
    assert!(tunnel.contains(&socket.2), "{:?}", socket.2);
    // What had time to end did.
    assert_eq!(downloaded.0, download);
    figure!(
        "drain with a deadline of 6 s: tunnel ended at {:.2?}, hung stream cut at {:.2?}, exit at {took:.2?}",
        socket.2,
        events.2
    );
}

fn switch(_: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    use std::io::Write as _;
    let head = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head)?;
    while stream.wait(Duration::from_secs(1)) {}
    Ok(Next::Close)
}

/// A body that takes about two seconds.
fn trickle(length: usize) -> impl Script {
    move |_: &Received, stream: &mut Connection| {
        use std::io::Write as _;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        )?;
        for _ in 0..20 {
            stream.write_all(&vec![b'x'; length / 20])?;
            stream.wait(Duration::from_millis(100));
        }
        Ok(Next::KeepAlive)
    }
}

#[test]
fn half_a_request_counts() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 0))]);
    let shutdown = "shutdown: {accept: 300ms, deadline: 8s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    let bytes = Request::get("/").bytes();
    let (first, rest) = bytes.split_at(7);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(port).unwrap()).collect();
    for client in clients.iter_mut().take(3) {
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    for client in &mut clients {
        client.send(first).unwrap();
    }
    let mut silent = Client::connect(port).unwrap();
    daemon.signal("TERM");
    wait_until("the port is closed", SOON, || !accepts(port));
    pause(Duration::from_millis(600));
    assert!(daemon.is_running());
    for client in &mut clients {
        client.send(rest).unwrap();
        let response = client.response().unwrap();
        assert!(response.status == 200 && response.closes());
    }
    // One that never said a word is let go.
    assert!(matches!(silent.head(), Err(Unread::Closed)));
    let (status, _) = daemon.wait_for_exit(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_waits_in_the_accept_queue_is_served() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let port = free_port();
    // The app's own queue is short: some connections to it take a second.
    let file = format!(
        "port: {port}\nauth: {{strategy: none}}\n\
         upstream: {{url: 'http://127.0.0.1:{}', connectTimeout: 8s}}\n",
        app.port()
    );
    let tree = Tree::with(&[("shop/cart", &file)]);
    let shutdown = "shutdown: {accept: 0s, deadline: 10s}";
    let mut daemon = Setup::new(&tree).process(shutdown).start();
    // Stopped, it accepts nobody; the kernel completes the connections.
    daemon.signal("STOP");
    let mut clients: Vec<Client> = (0..400).map(|_| Client::connect(port).unwrap()).collect();
    for client in &mut clients {
        client.send(&Request::get("/").bytes()).unwrap();
    }
    daemon.signal("TERM");
    daemon.signal("CONT");
    for client in &mut clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
    let (status, _) = daemon.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0));
}

/// Load balancers and browsers hold connections open that they may never use.
#[test]
fn a_client_that_said_nothing_holds_up_no_drain() {
    let _machine = shared_machine();
    let (app, authority) = (App::start(scripts::ok), Authority::new("shop"));
    for tls in ["", "tls: {cert: server.pem, key: server.key}\n"] {
        let (port, tree) = (free_port(), Tree::new());
        authority
            .server()
            .write(&tree.folder("shop/cart"), "server");
        let text = format!(
            "port: {port}\nupstream: {}\nhealthCheck: false\nauth: none\n{tls}",
            app.port()
        );
        tree.write("shop/cart", text);
        let mut daemon = Setup::new(&tree)
            .process("shutdown: {accept: 200ms, deadline: 25s}")
            .start();
        let silent = [(); 3].map(|()| TcpStream::connect(("127.0.0.1", port)).unwrap());
        let secure = Secure::new(&[&authority], None);
        let mut client = match tls {
            "" => Client::connect(port).unwrap(),
            _ => Client::connect_secure(port, &secure).unwrap(),
        };
        // Served, so those before it were accepted.
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
        daemon.signal("TERM");
        let (status, _) = daemon.wait_for_exit(Duration::from_secs(5));
        assert_eq!(status.code(), Some(0), "{tls}");
        drop((silent, client));
    }
}
