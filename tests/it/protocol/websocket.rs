//! WebSocket with a real client and a real server on either side.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::front::{Front, front, limited};
use super::grpc_app::runtime;
use crate::support::app::{Connection, Next, Received};
use crate::support::client::Request;
use crate::support::scripts;
use crate::support::wait::{SOON, holds_for, wait_until};

/// A server that sends back what it receives; `close` makes it close with 4001.
struct WebSocketApp {
    port: u16,
    open: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl WebSocketApp {
    fn start() -> Self {
        let runtime = runtime();
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&open);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else {
                        return;
                    };
                    counter.fetch_add(1, Ordering::AcqRel);
                    // However it ends.
                    let _ = echo(socket).await;
                    counter.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self {
            port,
            open,
            _runtime: runtime,
        }
    }

    #[track_caller]
    fn wait_for_open(&self, count: usize) {
        wait_until(&format!("{count} open at the server"), SOON, || {
            self.open.load(Ordering::Acquire) == count
        });
    }
}

async fn echo(mut socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if text.as_str() == "close" => {
                let frame = CloseFrame {
                    code: CloseCode::Library(4001),
                    reason: "as asked".into(),
                };
                socket.close(Some(frame)).await?;
            }
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn connect(front: &Front) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
    let url = "ws://shop.example/chat?room=1";
    let (socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    assert!(response.headers().contains_key("x-request-id"));
    socket
}

#[test]
fn messages_fragments_pings_and_close_codes() {
    let app = WebSocketApp::start();
    let front = Front::of(app.port, "", "");
    runtime().block_on(async {
        let mut socket = connect(&front).await;
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::text("hello")
        );
        // A message in three frames, with a ping between them.
        for (bytes, code, last) in [
            ("frag", Data::Text, false),
            ("men", Data::Continue, false),
            ("ts", Data::Continue, true),
        ] {
            let frame = Frame::message(bytes.as_bytes().to_vec(), OpCode::Data(code), last);
            socket.send(Message::Frame(frame)).await.unwrap();
            socket
                .send(Message::Ping(bytes.as_bytes().to_vec().into()))
                .await
                .unwrap();
        }
        let mut pongs = 0;
        let mut texts = Vec::new();
        while pongs < 3 || texts.is_empty() {
            match socket.next().await.unwrap().unwrap() {
                Message::Pong(_) => pongs += 1,
                other => texts.push(other),
            }
        }
        assert_eq!(texts, [Message::text("fragments")]);
        // The server's close code reaches the client …
        socket.send(Message::text("close")).await.unwrap();
        let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
            panic!("no close");
        };
        assert_eq!(
            (u16::from(frame.code), frame.reason.as_str()),
            (4001, "as asked")
        );
        assert!(socket.next().await.is_none());
        app.wait_for_open(0);
        // … and the client's the server, which answers with the same.
        let mut socket = connect(&front).await;
        let frame = CloseFrame {
            code: CloseCode::Library(4999),
            reason: "done".into(),
        };
        socket.close(Some(frame)).await.unwrap();
        let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
            panic!("no close");
        };
        assert_eq!(u16::from(frame.code), 4999);
        assert!(socket.next().await.is_none());
    });
    app.wait_for_open(0);
    front.wait_for_rest();
    assert_eq!(front.counted(101), 2.0);
}

#[test]
fn sixteen_mebibytes_both_ways() {
    let app = WebSocketApp::start();
    let front = Front::of(app.port, "", "");
    let before = front.daemon.resident_kib();
    runtime().block_on(async {
        let mut socket = connect(&front).await;
        let bytes: Vec<u8> = (0..16 * 1024 * 1024).map(scripts::pattern).collect();
        // One frame of 16 MiB is what tungstenite takes at most.
        let message = Message::binary(bytes);
        socket.send(message.clone()).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap() == message);
    });
    let grown = front.daemon.resident_kib().saturating_sub(before);
    println!("16 MiB both ways: resident memory +{grown} KiB");
    assert!(grown < 4 * 1024, "+{grown} KiB");
}

#[test]
fn an_idle_tunnel_ends_and_a_drain_ends_it() {
    let app = WebSocketApp::start();
    // None of the other limits holds for a tunnel.
    let limits = "upgradeIdleTimeout: 1s, idleTimeout: 200ms, headerTimeout: 200ms";
    let front = Front::of(
        app.port,
        "bodyIdleTimeout: 200ms, responseTimeout: 500ms",
        limits,
    );
    let runtime = runtime();
    let mut socket = runtime.block_on(connect(&front));
    runtime.block_on(async {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1800) {
            socket.send(Message::text("tick")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("tick"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(!matches!(socket.next().await, Some(Ok(_))));
    });
    app.wait_for_open(0);
    front.wait_for_rest();
    // A tunnel counts as in flight, and ends two seconds before a drain's deadline.
    let yaml = Front::yaml(app.port, "", "", "");
    let mut front = Front::with(&yaml, "shutdown: {deadline: 4s, accept: 200ms}");
    let mut socket = runtime.block_on(connect(&front));
    wait_until("it is in flight", SOON, || front.in_flight() == 1.0);
    let begun = Instant::now();
    front.daemon.signal("TERM");
    runtime.block_on(async {
        socket.send(Message::text("late")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("late"));
        assert!(!matches!(socket.next().await, Some(Ok(_))));
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1500), "{took:?}");
    let (status, _) = front.daemon.wait_for_exit(SOON);
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

const UPGRADE: &str = "GET /raw HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An app that switches, says `greeting` in the same packet, and hands over the socket.
fn raw_app() -> (u16, std::sync::mpsc::Receiver<StdStream>) {
    let listener = StdListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|count| count > 0)
            {
                head.push(byte[0]);
            }
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\ngreeting";
            if stream.write_all(answer).is_err() || sender.send(stream).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

#[test]
fn half_a_tunnel_may_close_before_the_other() {
    let (port, apps) = raw_app();
    let front = Front::of(port, "", "");
    let mut client = front.client();
    // What follows the request at once belongs to the tunnel.
    client.send(format!("{UPGRADE}early").as_bytes()).unwrap();
    let (status, head) = client.head().unwrap();
    assert_eq!(status, 101);
    assert_eq!(head.header("upgrade"), Some("WebSocket"));
    assert_eq!(client.exactly(8).unwrap(), b"greeting");
    let mut app = apps.recv().unwrap();
    let mut five = [0; 5];
    app.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"early");
    // The client is done sending; the app still speaks, then is done too.
    client.finish_sending().unwrap();
    assert_eq!(app.read(&mut five).unwrap(), 0);
    app.write_all(b"late").unwrap();
    assert_eq!(client.exactly(4).unwrap(), b"late");
    wait_until("it is in flight", SOON, || front.in_flight() == 1.0);
    app.shutdown(Shutdown::Write).unwrap();
    assert!(client.until_close().is_empty());
    front.wait_for_rest();
    // The other way round.
    let mut client = front.client();
    client.send(UPGRADE.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().0, 101);
    client.exactly(8).unwrap();
    let mut app = apps.recv().unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    assert!(client.some(1).unwrap().is_empty());
    client.send(b"after").unwrap();
    app.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"after");
    // A reset goes through as one.
    let mut client = front.client();
    client.send(UPGRADE.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().0, 101);
    client.exactly(8).unwrap();
    let mut app = apps.recv().unwrap();
    client.reset();
    assert!(app.read(&mut five).is_err());
}

fn switches_to(
    protocol: &'static str,
) -> impl Fn(&Received, &mut Connection) -> std::io::Result<Next> {
    move |_, stream| {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{protocol}\r\n");
        stream.write_all(head.as_bytes())?;
        stream.wait(Duration::from_millis(200));
        Ok(Next::Close)
    }
}

#[test]
fn upgrades_that_are_refused_or_never_asked_for() {
    let refusal = scripts::bytes(
        *b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: Upgrade\r\nX-Why: no\r\nContent-Length: 2\r\n\r\nno",
        Next::KeepAlive,
    );
    let routes = scripts::Routes(vec![
        ("/refused", Box::new(refusal)),
        ("/other", Box::new(switches_to("Upgrade: h2c\r\n"))),
        ("/none", Box::new(switches_to(""))),
        (
            "/two",
            Box::new(switches_to("Upgrade: websocket\r\nUpgrade: h2c\r\n")),
        ),
        ("/echo", Box::new(scripts::echo)),
    ]);
    let (app, front) = limited(routes, "", "");
    let upgrade = |target: &str, token: &str| {
        Request::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", token)
    };
    // The app's refusal is relayed, and both connections go on.
    let mut client = front.client();
    let response = client.exchange(&upgrade("/refused", "websocket")).unwrap();
    assert_eq!(
        (response.status, response.header("x-why")),
        (426, Some("no"))
    );
    assert_eq!(response.header("upgrade"), None);
    assert_eq!(app.last().header("upgrade"), Some("websocket"));
    assert_eq!(client.exchange(&Request::get("/echo")).unwrap().status, 200);
    for target in ["/other", "/none", "/two"] {
        let response = upgrade(target, "websocket").send(front.port);
        assert_eq!(
            (response.status, response.cause().as_str()),
            (502, "upgrade_failed"),
            "{target}"
        );
    }
    assert_eq!(front.errors("upgrade_failed"), 3.0);
    // What is not on the list, or lacks `Connection`, or carries a body, is no upgrade.
    for request in [
        upgrade("/echo", "h2c"),
        upgrade("/echo", "irc/6.9"),
        Request::get("/echo").header("Upgrade", "websocket"),
        upgrade("/echo", "websocket").body("body"),
    ] {
        let response = request.send(front.port);
        assert_eq!(response.status, 200);
        let received = app.last();
        assert_eq!(received.header("upgrade"), None);
        assert_eq!(received.header("connection"), None);
    }
    front.wait_for_rest();
    let (_app, front) = self::front(switches_to("Upgrade: websocket\r\n"));
    let response = Request::get("/").send(front.port);
    assert_eq!(response.cause(), "upstream_protocol");
    holds_for("nothing is left", Duration::from_millis(50), || {
        front.in_flight() == 0.0
    });
}
