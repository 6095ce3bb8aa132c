//! An app that speaks HTTP/2, well and badly.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request as HttpRequest, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::front::Front;
use super::grpc_app::runtime;
use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::Request;
use crate::support::message::Unread;
use crate::support::wait::{SOON, wait_until};

#[derive(Default)]
struct State {
    /// `method target` and headers of each request.
    seen: Mutex<Vec<(String, HeaderMap, Vec<u8>)>>,
    connections: AtomicUsize,
    /// Rung to close the connection at once.
    die: Notify,
}

impl State {
    fn take(&self) -> Vec<(String, HeaderMap, Vec<u8>)> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Behaves as the path says; ends when dropped.
struct H2App {
    port: u16,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

impl H2App {
    /// `most` streams at a time on a connection.
    fn start(most: u32) -> Self {
        let runtime = runtime();
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(serve(stream, most, Arc::clone(&shared)));
            }
        });
        Self {
            port,
            state,
            _runtime: runtime,
        }
    }
}

async fn serve(stream: TcpStream, most: u32, state: Arc<State>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(most);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = state.die.notified() => return,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        tokio::spawn(answer(request, respond, Arc::clone(&state)));
    }
}

async fn answer(
    request: HttpRequest<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: Arc<State>,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut bytes = Vec::new();
    if path != "/early" {
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
    }
    if parts.method == http::Method::HEAD {
        respond.send_response(Response::new(()), true)?;
        return Ok(());
    }
    let number = {
        let mut seen = state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((
            format!("{} {}", parts.method, parts.uri),
            parts.headers,
            bytes,
        ));
        seen.len()
    };
    match path.as_str() {
        "/dies" if number <= 2 => {
            state.die.notify_one();
            // Letting go of the stream would reset it before that.
            std::future::pending::<()>().await;
        }
        "/refuses" if number <= 2 => respond.send_reset(Reason::REFUSED_STREAM),
        "/resets" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/silent" => std::future::pending::<()>().await,
        "/half" => gives_up(respond, b"half", false, Reason::INTERNAL_ERROR).await?,
        "/cancels" => gives_up(respond, b"half", false, Reason::CANCEL).await?,
        // Complete, and the request is not.
        "/early" => gives_up(respond, b"no more", true, Reason::NO_ERROR).await?,
        "/stalls" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            stream.send_data(Bytes::from_static(b"half"), false)?;
            std::future::pending::<()>().await;
        }
        "/many" => {
            let mut response = Response::new(());
            for number in 0..2000 {
                let value = HeaderValue::from(number);
                response
                    .headers_mut()
                    .append("x-many-many-many-many", value);
            }
            respond.send_response(response, true)?;
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            respond.send_response(Response::new(()), true)?;
        }
        _ => {
            let response = Response::builder().header("trailer", "x-sum").body(());
            let mut stream = respond.send_response(response.unwrap(), false)?;
            stream.send_data(Bytes::from_static(b"ok"), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("7"));
            stream.send_trailers(trailers)?;
        }
    }
    Ok(())
}

/// Answers this, and resets the stream soon after.
async fn gives_up(
    mut respond: SendResponse<Bytes>,
    body: &'static [u8],
    ends: bool,
    reason: Reason,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(Response::new(()), false)?;
    stream.send_data(Bytes::from_static(body), ends)?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.send_reset(reason);
    Ok(())
}

fn fronted(most: u32, upstream: &str) -> (H2App, Front) {
    let app = H2App::start(most);
    // One worker: one pool.
    let yaml = Front::yaml(app.port, &format!("protocol: h2c{upstream}"), "", "");
    let front = Front::with(&yaml, "workers: 1");
    (app, front)
}

#[test]
fn http_1_clients_reach_it() {
    let (app, front) = fronted(100, "");
    let mut client = front.client();
    client
        .send(b"POST /a?b HTTP/1.1\r\nHost: shop.example\r\nTE: trailers\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let seen = app.state.take();
    let (line, headers, body) = &seen[0];
    assert_eq!(line, "POST http://shop.example/a?b");
    assert_eq!(body, b"body");
    assert_eq!(headers.get("te").unwrap(), "trailers");
    for gone in ["host", "connection", "x-hop", "transfer-encoding"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    let head = Request::new("HEAD", "/h").send(front.port);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(app.state.connections.load(Ordering::Acquire), 1);
    front.wait_for_rest();
}

#[test]
fn its_failures_have_their_causes() {
    let (_app, front) = fronted(100, ", responseTimeout: 300ms, bodyIdleTimeout: 300ms");
    for (target, status, cause) in [
        ("/resets", 502, "upstream_closed"),
        ("/silent", 504, "upstream_response_timeout"),
        ("/many", 502, "upstream_protocol"),
    ] {
        let response = Request::get(target).send(front.port);
        assert_eq!(
            (response.status, response.cause().as_str()),
            (status, cause),
            "{target}"
        );
    }
    for (target, cause) in [
        ("/half", "upstream_closed"),
        // Whatever reason it gives.
        ("/cancels", "upstream_closed"),
        ("/stalls", "upstream_response_timeout"),
    ] {
        let before = front.errors(cause);
        let outcome = Request::get(target).try_send(front.port);
        assert!(
            matches!(outcome, Err(Unread::Cut(_) | Unread::Closed)),
            "{target}: {outcome:?}"
        );
        front.wait_for_errors(cause, before + 1.0);
    }
    assert_eq!(Request::get("/").send(front.port).status, 200);
    front.wait_for_rest();
    // What is no HTTP/2 at all.
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ] {
        let app = App::start(Greets(bytes));
        let front = Front::of(app.port(), "protocol: h2c, responseTimeout: 1s", "");
        let response = Request::get("/").send(front.port);
        println!("{} {}", response.status, response.cause());
        assert_eq!(response.status, 502, "{}", response.text());
        front.wait_for_rest();
    }
}

/// Says this to whoever connects, and closes.
struct Greets(&'static [u8]);

impl Script for Greets {
    fn greet(&self, stream: &mut Connection) -> std::io::Result<Next> {
        stream.write_all(self.0)?;
        stream.wait(Duration::from_millis(100));
        Ok(Next::Close)
    }

    fn answer(&self, _: &Received, _: &mut Connection) -> std::io::Result<Next> {
        Ok(Next::Close)
    }
}

#[test]
fn retries_are_as_safe_as_with_http_1() {
    for (target, request, status, count) in [
        // The connection dies with the stream on it: only what is idempotent.
        ("/dies", Request::get("/dies"), 200, 2),
        ("/dies", Request::new("PUT", "/dies").body("x"), 200, 2),
        ("/dies", Request::post("/dies", "x"), 502, 1),
        // The app ended the stream itself: that is its answer.
        ("/resets", Request::get("/resets"), 502, 1),
        // Refused means not processed: anything.
        ("/refuses", Request::get("/refuses"), 200, 2),
        ("/refuses", Request::post("/refuses", "x"), 200, 2),
    ] {
        let (app, front) = fronted(100, "");
        assert_eq!(Request::get("/first").send(front.port).status, 200);
        let response = request.send(front.port);
        assert_eq!(response.status, status, "{target}: {}", response.text());
        let seen = app.state.take();
        let times = seen
            .iter()
            .filter(|(line, ..)| line.ends_with(target))
            .count();
        assert_eq!(times, count, "{target} {request:?}");
        front.wait_for_rest();
    }
}

/// An answer that is complete before the request is (RFC 9113 §8.1).
#[test]
fn an_early_answer_is_complete() {
    let (_app, front) = fronted(100, "");
    let mut client = front.client();
    client
        .send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "no more")
    );
    front.wait_for_rest();
}

/// More at once than the app takes on a connection.
#[test]
fn more_streams_than_the_app_takes() {
    let (app, front) = fronted(5, "");
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let port = front.port;
        let clients: Vec<_> = (0..40)
            .map(|_| scope.spawn(move || Request::get("/slow").status(port)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    assert!(
        statuses.iter().all(|status| *status == Some(200)),
        "{statuses:?}"
    );
    wait_until("all were served", SOON, || app.state.take().len() <= 40);
    front.wait_for_rest();
}
