//! HTTP/1.1 through the sidecar: what must arrive, what must not.

use std::io::Write;
use std::time::Duration;

use super::front::{Front, front, limited};
use crate::support::app::{Connection, Next, Received};
use crate::support::client::Request;
use crate::support::message::Unread;
use crate::support::scripts;

fn raw(text: &'static str) -> Box<dyn crate::support::app::Script> {
    Box::new(scripts::bytes(text.as_bytes(), Next::KeepAlive))
}

#[test]
fn answers_without_a_body() {
    let routes = scripts::Routes(vec![
        (
            "/head",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-A: b\r\n\r\n"),
        ),
        (
            "/chunked",
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        ("/204", raw("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")),
        (
            "/204length",
            raw("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            "/304",
            raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 777\r\nETag: \"a\"\r\n\r\n"),
        ),
        (
            "/empty",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("/reason", raw("HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n")),
    ]);
    let (app, front) = limited(routes, "", "");
    let mut client = front.client();
    let head = client.exchange(&Request::new("HEAD", "/head")).unwrap();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("12345"))
    );
    assert_eq!(
        client
            .exchange(&Request::new("HEAD", "/chunked"))
            .unwrap()
            .status,
        200
    );
    let none = client.exchange(&Request::get("/204")).unwrap();
    assert_eq!((none.status, none.header("x-a")), (204, Some("b")));
    assert_eq!(none.header("content-length"), None);
    assert_eq!(none.header("transfer-encoding"), None);
    let none = client.exchange(&Request::get("/204length")).unwrap();
    assert_eq!((none.status, none.header("content-length")), (204, None));
    let same = client.exchange(&Request::get("/304")).unwrap();
    assert_eq!((same.status, same.header("etag")), (304, Some("\"a\"")));
    let empty = client.exchange(&Request::get("/empty")).unwrap();
    assert_eq!(empty.header("content-length"), Some("0"));
    assert_eq!(
        client.exchange(&Request::get("/reason")).unwrap().status,
        299
    );
    // All on one connection each.
    assert_eq!((app.count(), app.connections()), (7, 1));
}

#[test]
fn trailers_pass_both_ways_where_they_are_announced() {
    let answer = |_: &Received, stream: &mut Connection| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        stream.write_all(b"2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n")?;
        Ok(Next::KeepAlive)
    };
    let at_once = b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 7\r\n\r\n";
    let routes = scripts::Routes(vec![
        (
            "/empty",
            Box::new(scripts::bytes(*at_once, Next::KeepAlive)),
        ),
        ("/", Box::new(answer)),
    ]);
    let (app, front) = limited(routes, "", "");
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, X-Hop\r\nTransfer-Encoding: chunked\r\nTrailer: x-check, x-hop, x-auth-subject\r\n\r\n4\r\nbody\r\n0\r\nX-Check: 1\r\nX-Auth-Subject: forged\r\nHost: b\r\n\r\n")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!(response.body, b"ok");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let received = app.last();
    assert_eq!(received.body, b"body");
    assert_eq!(received.trailers, [("x-check".to_owned(), "1".to_owned())]);
    assert_eq!(received.header("te"), Some("trailers"));
    // Nor are they lost behind a body of nothing.
    client
        .send(b"GET /empty HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    // A client that did not ask gets none; the connection is as good.
    let response = client.exchange(&Request::get("/")).unwrap();
    assert_eq!(
        (response.text().as_str(), response.trailers.len()),
        ("ok", 0)
    );
    assert_eq!(app.last().header("te"), None);
}

#[test]
fn old_clients_are_served() {
    let stream = |_: &Received, stream: &mut Connection| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )?;
        Ok(Next::KeepAlive)
    };
    let until_close = scripts::bytes(*b"HTTP/1.0 200 OK\r\n\r\nuntil close", Next::Close);
    let routes = scripts::Routes(vec![
        ("/chunked", Box::new(stream)),
        ("/old", Box::new(until_close)),
    ]);
    let (app, front) = limited(routes, "", "");
    // Neither chunks nor a Host, and closed after.
    let mut client = front.client();
    client.send(b"GET /chunked HTTP/1.0\r\n\r\n").unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.header("transfer-encoding"), None);
    assert!(app.last().header("host").is_some());
    // Kept alive where it asks and the length is known.
    let mut client = front.client();
    for _ in 0..2 {
        client
            .send(b"POST /x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
            .unwrap();
        assert_eq!(client.response().unwrap().text(), "ok");
    }
    // An old app's body is framed anew for a new client.
    let mut client = front.client();
    for _ in 0..2 {
        let response = client.exchange(&Request::get("/old")).unwrap();
        assert_eq!(response.text(), "until close");
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    }
    // Expect means nothing from a 1.0 client; an upgrade neither.
    let mut client = front.client();
    client
        .send(b"POST /y HTTP/1.0\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!(response.text(), "ok");
    assert_eq!(app.last().header("upgrade"), None);
}

#[test]
fn expect_is_answered_here() {
    let key = "0123456789abcdef0123456789abcdef";
    let app = crate::support::app::App::start(scripts::echo);
    let auth = format!("auth: {{apiKey: {{keys: [{{id: web, key: {key}}}]}}}}");
    let front = Front::with(&Front::yaml(app.port(), "", "bodyBytes: 1KiB", &auth), "");
    let head = |more: &str, length: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{more}Content-Length: {length}\r\n\r\n"
        )
    };
    let mut client = front.client();
    client
        .send(head(&format!("x-api-key: {key}\r\n"), 4).as_bytes())
        .unwrap();
    assert_eq!(client.head().unwrap().0, 100);
    client.send(b"body").unwrap();
    let response = client.response().unwrap();
    assert_eq!(response.json()["body"], "body");
    assert_eq!(app.last().header("expect"), None);
    // No body is asked for in vain.
    for (more, length, status) in [("", 4, 401), (&*format!("x-api-key: {key}\r\n"), 5000, 413)] {
        let mut client = front.client();
        client.send(head(more, length).as_bytes()).unwrap();
        let (found, head) = client.head().unwrap();
        assert_eq!(found, status);
        assert_eq!(head.header("connection"), Some("close"));
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn headers_arrive_as_they_should() {
    let answer = |_: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 201 Made\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd: \xc3\xa9\r\nConnection: x-hop\r\nX-Hop: 1\r\nProxy-Connection: x\r\nUpgrade: h3\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(Next::KeepAlive)
    };
    let (app, front) = front(answer);
    let response = Request::get("/%7Ea//b/../c;d?x=%zz&y[]=1")
        .header("X-Multi", "1")
        .header("X-Multi", "2")
        .header("X-Request-Id", "mine-1")
        .header("X-Outrigger-Anything", "forged")
        .header("X_Auth_Subject", "forged")
        .header("Via", "1.1 other")
        .send(front.port);
    assert_eq!((response.status, response.text().as_str()), (201, "ok"));
    let cookies: Vec<_> = response.head.all("set-cookie").collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(response.header("x-odd"), Some("é"));
    response.assert_only_headers(&[
        "set-cookie",
        "x-odd",
        "content-length",
        "date",
        "x-request-id",
    ]);
    let received = app.last();
    assert_eq!(received.target, "/%7Ea//b/../c;d?x=%zz&y[]=1");
    assert_eq!(received.head.all("x-multi").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(received.header("x-request-id"), Some("mine-1"));
    assert_eq!(received.header("via"), Some("1.1 other"));
    for gone in ["x-outrigger-anything", "x_auth_subject"] {
        assert_eq!(received.header(gone), None);
    }
    assert_eq!(received.header("host"), Some("localhost"));
}

#[test]
fn title_case_and_a_unix_socket() {
    let app = crate::support::app::App::start(scripts::ok);
    let front = Front::of(app.port(), "headerCase: title", "");
    Request::post("/", "x")
        .header("x-my-thing", "1")
        .send(front.port);
    let text = String::from_utf8(app.last().raw).unwrap();
    for line in [
        "\r\nHost: ",
        "\r\nX-My-Thing: 1\r\n",
        "\r\nContent-Length: 1\r\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // The app on a Unix socket, spoken to byte by byte.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        let mut reader = crate::support::message::Reader::new(stream);
        for number in 0..3 {
            let head = reader.head().unwrap();
            assert!(head.start.starts_with("GET /"), "{head:?}");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
            writer.write_all(answer.as_bytes()).unwrap();
        }
    });
    let yaml = format!(
        "upstream: \"unix:{}\"\nhealthCheck: false\n",
        path.display()
    );
    let front = Front::with(&yaml, "workers: 1");
    let mut client = front.client();
    for number in 0..3 {
        let response = client.exchange(&Request::get("/")).unwrap();
        assert_eq!(response.text(), number.to_string());
    }
    serving.join().unwrap();
}

/// SMUG-7: a connection with anything left over is never used again.
#[test]
fn connections_that_are_not_clean_are_not_reused() {
    let routes = scripts::Routes(vec![
        (
            "/more",
            raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong",
            ),
        ),
        (
            "/204",
            raw("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nwrong"),
        ),
        (
            "/head",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"),
        ),
        (
            "/close",
            raw("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        ),
        (
            "/later",
            Box::new(|_: &Received, stream: &mut Connection| {
                stream.respond(200, "", b"ok")?;
                stream.wait(Duration::from_millis(30));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")?;
                Ok(Next::KeepAlive)
            }),
        ),
    ]);
    let app = crate::support::app::App::start(routes);
    let front = Front::with(&Front::yaml(app.port(), "", "", ""), "workers: 1");
    let mut client = front.client();
    for (number, target) in (1..).zip(["/more", "/204", "/close", "/head", "/later"]) {
        let method = if target == "/head" { "HEAD" } else { "GET" };
        let response = client.exchange(&Request::new(method, target)).unwrap();
        assert!(response.status < 300);
        crate::support::wait::pause(Duration::from_millis(60));
        let next = client.exchange(&Request::get("/ok")).unwrap();
        assert_eq!(next.text(), "ok", "after {target}");
        // The good one is used for the bad one that follows.
        assert_eq!(app.connections(), number + 1, "after {target}");
    }
}

/// A connection goes on after answers that were errors.
#[test]
fn a_client_connection_outlives_errors() {
    let routes = scripts::Routes(vec![("/gone", Box::new(scripts::closes_after(0)))]);
    let (_app, front) = limited(routes, "", "");
    let mut client = front.client();
    for _ in 0..3 {
        let response = client.exchange(&Request::get("/gone")).unwrap();
        assert_eq!((response.status, response.closes()), (502, false));
        assert_eq!(client.exchange(&Request::get("/")).unwrap().status, 200);
    }
    // Not after half a request, and not without a word.
    client
        .send(b"POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    drop(client);
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: host\r\nContent-Length: 4\r\n\r\nbody")
        .unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.closes()), (400, true));
    assert!(matches!(client.response(), Err(Unread::Closed)));
    front.wait_for_rest();
}
