//! HTTP/2 toward the sidecar: what it means to an HTTP/1.1 app.

use std::cell::Cell;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::front::{Front, front, limited};
use super::grpc_app::runtime;
use crate::support::app::{Connection, Next, Received};
use crate::support::frames::{self, ACK, FrameClient, GOAWAY, HEADERS, PING, frame};
use crate::support::scripts;
use crate::support::wait::{SOON, pause, wait_until};

/// An HTTP/2 connection by the `h2` crate, driven beside the test.
struct Client {
    sender: h2::client::SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    async fn connect(front: &Front) -> Self {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", front.port)).await;
        let (sender, connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
        Self {
            sender,
            driver: tokio::spawn(connection),
        }
    }

    /// Sends a request whose body is these pieces, then the trailers.
    async fn send(
        &mut self,
        request: Request<()>,
        body: &[&[u8]],
        trailers: Option<HeaderMap>,
    ) -> Result<Response<h2::RecvStream>, h2::Error> {
        let ends = body.is_empty() && trailers.is_none();
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, ends)?;
        if !ends {
            for (number, piece) in (1..).zip(body) {
                let last = number == body.len() && trailers.is_none();
                stream.send_data(Bytes::copy_from_slice(piece), last)?;
            }
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers)?;
            }
        }
        response.await
    }
}

async fn whole(body: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.example{path}"))
        .body(())
        .unwrap()
}

/// 200 in chunks, with trailers.
fn with_trailers(_: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\r\n",
    )?;
    stream.write_all(b"5\r\nhello\r\n0\r\nx-sum: 42\r\nconnection: x\r\n\r\n")?;
    Ok(Next::KeepAlive)
}

#[test]
fn requests_become_strict_http_1() {
    let (app, front) = front(with_trailers);
    runtime().block_on(async {
        let mut client = Client::connect(&front).await;
        let mut get = request("GET", "/a?b=c");
        for (name, value) in [
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("te", "trailers"),
            ("x-auth-subject", "forged"),
        ] {
            get.headers_mut()
                .append(name, HeaderValue::from_static(value));
        }
        let mut response = client.send(get, &[], None).await.unwrap();
        assert_eq!(response.status(), 200);
        for gone in ["x-hop", "keep-alive", "connection", "transfer-encoding"] {
            assert!(!response.headers().contains_key(gone), "{gone}");
        }
        let body = response.body_mut();
        assert_eq!(whole(body).await.unwrap(), b"hello");
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get("x-sum").unwrap(), "42");
        assert_eq!(trailers.len(), 1);
        let received = app.last();
        assert_eq!(
            (received.method.as_str(), received.target.as_str()),
            ("GET", "/a?b=c")
        );
        assert_eq!(received.header("cookie"), Some("a=1; b=2"));
        assert_eq!(received.header("host"), Some("shop.example"));
        assert_eq!(received.header("te"), Some("trailers"));
        assert_eq!(received.header("x-auth-subject"), None);
        assert_eq!(received.header("transfer-encoding"), None);

        // Without a length: chunked, with its trailers, less what is reserved.
        let mut trailers = HeaderMap::new();
        for name in ["x-check", "x-outrigger-x", "x_auth_subject"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        let pieces: [&[u8]; 2] = [b"one", b"two"];
        let post = request("POST", "/p");
        client.send(post, &pieces, Some(trailers)).await.unwrap();
        let received = app.last();
        assert_eq!(received.body, b"onetwo");
        assert_eq!(received.trailers, [("x-check".to_owned(), "1".to_owned())]);
        // With one: the length.
        let mut put = request("PUT", "/l");
        put.headers_mut()
            .insert("content-length", HeaderValue::from_static("6"));
        client.send(put, &pieces, None).await.unwrap();
        assert_eq!(app.last().header("content-length"), Some("6"));
        assert_eq!(app.last().header("transfer-encoding"), None);
        // A lie about it.
        let mut lie = request("PUT", "/lie");
        lie.headers_mut()
            .insert("content-length", HeaderValue::from_static("5"));
        assert!(client.send(lie, &pieces, None).await.is_err());
    });
    assert!(app.faults().is_empty(), "{:?}", app.faults());
    assert!(app.take().iter().all(|request| request.target != "/lie"));
    front.wait_for_rest();
}

#[test]
fn bodiless_answers_and_many_at_once() {
    let (app, front) = front(scripts::echo);
    runtime().block_on(async {
        let mut client = Client::connect(&front).await;
        let mut head = client.send(request("HEAD", "/h"), &[], None).await.unwrap();
        assert!(head.headers().contains_key("content-length"));
        assert!(whole(head.body_mut()).await.unwrap().is_empty());
        let options = Request::builder().method("OPTIONS").uri("*").body(());
        let answer = client.send(options.unwrap(), &[], None).await;
        assert!(answer.is_err() || answer.unwrap().status() == 400);
        let mut many = tokio::task::JoinSet::new();
        for number in 0..300 {
            let mut client = Client {
                sender: client.sender.clone(),
                driver: tokio::spawn(async { Ok(()) }),
            };
            many.spawn(async move {
                let path = format!("/{number}");
                let mut response = client.send(request("GET", &path), &[], None).await.unwrap();
                let body = whole(response.body_mut()).await.unwrap();
                let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(document["target"], path);
            });
        }
        while let Some(done) = many.join_next().await {
            done.unwrap();
        }
    });
    assert!(app.count() >= 301);
    front.wait_for_rest();
}

#[test]
fn refusals_and_broken_answers_end_one_stream_only() {
    let routes = scripts::Routes(vec![("/half", Box::new(scripts::half_body_then_reset()))]);
    let (_app, front) = limited(routes, "", "bodyBytes: 1KiB, idleTimeout: 400ms");
    runtime().block_on(async {
        let mut client = Client::connect(&front).await;
        let large = vec![0; 20_000];
        let post = request("POST", "/");
        let response = client.send(post, &[&large], None).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let mut known = request("POST", "/");
        known
            .headers_mut()
            .insert("content-length", HeaderValue::from_static("20000"));
        let response = client.send(known, &[&large], None).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let mut response = client
            .send(request("GET", "/half"), &[], None)
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(whole(response.body_mut()).await.is_err());
        // A body that stalls.
        let mut sender = client.sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(request("POST", "/"), false).unwrap();
        stream
            .send_data(Bytes::from_static(b"half"), false)
            .unwrap();
        assert_eq!(
            response.await.unwrap().status(),
            StatusCode::REQUEST_TIMEOUT
        );
        let response = client.send(request("GET", "/"), &[], None).await.unwrap();
        assert_eq!(response.status(), 200);
        drop(response);
        // An idle connection ends by GOAWAY, without error.
        client.driver.await.unwrap().unwrap();
    });
    front.wait_for_errors("upstream_closed", 1.0);
    assert_eq!(front.errors("bad_request"), 2.0);
    assert_eq!(front.errors("client_timeout"), 1.0);
    front.wait_for_rest();
}

#[test]
fn a_request_that_crosses_the_idle_goaway_is_answered() {
    let (app, front) = limited(scripts::ok, "", "idleTimeout: 400ms");
    let mut client = FrameClient::connect(front.port, &[]);
    assert!(client.answers(1));
    let told = client.find(|frame| frame.kind == GOAWAY).unwrap();
    let last = told.expect("an idle connection is ended by GOAWAY").payload;
    assert_eq!(last[..4], 0x7fff_ffff_u32.to_be_bytes(), "none is refused");
    // Sent before the GOAWAY was read; the client answers the PING behind it
    // only then.
    client
        .send(&frames::headers(3, &frames::get("/"), true))
        .unwrap();
    let ping = client.find(|frame| frame.kind == PING).unwrap();
    let ping = ping.expect("a PING tells which requests were on their way");
    client.send(&frame(PING, ACK, 0, &ping.payload)).unwrap();
    let (answered, refused_after) = (Cell::new(false), Cell::new(0));
    let complete = client.find(|frame| {
        match frame.kind {
            HEADERS if frame.stream == 3 => answered.set(frame.payload.first() == Some(&0x88)),
            GOAWAY => refused_after.set(frame.payload[3]),
            _ => {}
        }
        answered.get() && refused_after.get() > 0
    });
    assert!(
        complete.unwrap().is_some(),
        "{answered:?} {refused_after:?}"
    );
    assert_eq!(
        refused_after.get(),
        3,
        "the final GOAWAY names the last request"
    );
    assert!(client.find(|_| false).unwrap().is_none(), "the end");
    // What is sent now is no reason to reset the connection.
    for _ in 0..2 {
        client.send(&frame(PING, 0, 0, &[7; 8])).unwrap();
        pause(Duration::from_millis(100));
    }
    assert_eq!(app.count(), 2);
    front.wait_for_rest();
}

#[test]
fn requests_given_up_do_not_keep_a_connection() {
    let routes = scripts::Routes(vec![("/silent", Box::new(scripts::silent))]);
    let (app, front) = limited(routes, "", "idleTimeout: 600ms");
    let get = |stream| frames::headers(stream, &frames::get("/silent"), true);
    // Given up before its answer.
    let mut client = FrameClient::connect(front.port, &[]);
    client.send(&get(1)).unwrap();
    wait_until("the app has it", SOON, || app.count() == 1);
    let reset = frame(frames::RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    client.send(&reset).unwrap();
    client.patience(Duration::from_secs(5));
    let told = client.find(|frame| frame.kind == GOAWAY).unwrap();
    assert!(told.is_some(), "it is idle");
    // One whose connection is lost to an error behind it, by a client that
    // stays and sends nothing more.
    let mut client = FrameClient::connect(front.port, &[]);
    assert!(client.answers(1));
    let error = frame(frames::DATA, 0, 0, b"x");
    client.send(&[get(3), error].concat()).unwrap();
    client.patience(Duration::from_secs(5));
    assert!(client.find(|_| false).unwrap().is_none(), "the end");
    let ping = frame(PING, 0, 0, &[7; 8]);
    wait_until("it is closed, though its client is not", SOON, || {
        client.send(&ping).is_err()
    });
    front.wait_for_rest();
}

#[test]
fn other_limits_and_a_drain_end_it_by_goaway() {
    let (app, front) = front(scripts::slow(Duration::from_millis(700)));
    runtime().block_on(async {
        let mut client = Client::connect(&front).await;
        let response = client.send(request("GET", "/"), &[], None).await.unwrap();
        assert_eq!(response.status(), 200);
        let yaml = Front::yaml(app.port(), "", "h2Streams: 17", "");
        let file = format!("port: {}\n{yaml}", front.port);
        front.tree.replace(super::front::SERVICE, file);
        assert_eq!(front.daemon.reload().status, 200);
        // Told at once, and without an error.
        drop(response);
        client.driver.await.unwrap().unwrap();
        // A drain lets the request in flight finish.
        let mut client = Client::connect(&front).await;
        let before = app.count();
        let (response, ()) = tokio::join!(client.send(request("GET", "/"), &[], None), async {
            while app.count() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            front.daemon.signal("TERM");
        });
        assert_eq!(response.unwrap().status(), 200);
        client.driver.await.unwrap().unwrap();
    });
}
