//! Spans as a collector gets them: one tree per request, whatever the apps
//! copy; hooks and refusals in it, probes not.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::Request;
use crate::support::collector::{Collector, SeenSpan};
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_port;
use crate::support::scripts;
use crate::support::traced::{ALL, Chain, Pair, W3C, single};
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

fn parent() -> String {
    format!("00-{TRACE}-{CLIENT}-01")
}

/// The spans in order from the root, by their parent links; fails unless each
/// has exactly one child but the last.
#[track_caller]
fn in_line(spans: &[SeenSpan], root: &str) -> Vec<SeenSpan> {
    let mut children: BTreeMap<&str, Vec<&SeenSpan>> = BTreeMap::new();
    for span in spans {
        children.entry(&span.parent).or_default().push(span);
    }
    let mut line = Vec::new();
    let mut parent = root;
    while let Some(found) = children.remove(parent) {
        let [span] = found.as_slice() else {
            panic!("not one child of {parent}: {found:#?}");
        };
        line.push((*span).clone());
        parent = &span.id;
    }
    assert_eq!(line.len(), spans.len(), "not one line: {spans:#?}");
    line
}

#[test]
fn one_tree_through_three_services() {
    let _machine = shared_machine();
    for copied in [ALL, W3C] {
        let collector = Collector::start();
        let chain = Chain::start(copied, &collector.settings(""));
        let response = Request::get("/cart/7?token=secret")
            .header("traceparent", &parent())
            .send(chain.port);
        assert_eq!(response.status, 200, "{}", response.text());
        let spans = in_line(&collector.take(5), CLIENT);
        let seen: Vec<(&str, bool, &str)> = spans
            .iter()
            .map(|span| {
                (
                    span.service.as_str(),
                    span.is_server(),
                    span.get("peer.service"),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("shop/users", true, ""),
                ("shop/users", false, "orders"),
                ("shop/orders", true, ""),
                ("shop/orders", false, "payments"),
                ("shop/payments", true, ""),
            ]
        );
        for span in &spans {
            assert_eq!(span.trace, TRACE);
            assert_eq!((span.name.as_str(), span.failed), ("GET", false));
            assert_eq!(span.get("http.request.method"), "GET");
            assert_eq!(span.get("http.response.status_code"), "200");
            let everything = format!("{span:?}");
            assert!(!everything.contains("secret"), "{everything}");
            match span.is_server() {
                true => {
                    assert_eq!(span.get("url.path"), "/cart/7");
                    assert_eq!(span.get("client.address"), "127.0.0.1");
                    assert_eq!(span.get("network.protocol.version"), "1.1");
                }
                false => {
                    let url = span.get("url.full");
                    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
                    assert!(url.ends_with("/cart/7"), "{url}");
                }
            }
        }
        let lengths: Vec<u64> = spans.iter().map(|span| span.nanos).collect();
        assert!(
            lengths.is_sorted_by(|outer, inner| outer >= inner),
            "{lengths:?}"
        );
        // Depth and parent came through, also where nobody copied the house's headers.
        let payments = chain.apps[2].last();
        assert_eq!(payments.header("x-trace-depth"), Some("2"));
        assert_eq!(payments.header("x-parent-service-id"), Some("shop/orders"));
        let sent = payments.header("traceparent").unwrap();
        assert_eq!(sent, format!("00-{TRACE}-{}-01", spans[4].id));
        let state = payments.header("tracestate");
        assert_eq!(state, Some("outrigger=d:2;p:shop/orders"));
    }
}

#[test]
fn a_request_without_a_trace_begins_one() {
    let _machine = shared_machine();
    let collector = Collector::start();
    let chain = Chain::start(W3C, &collector.settings(""));
    let response = Request::get("/").send(chain.port);
    let spans = in_line(&collector.take(5), "");
    assert_eq!(response.header("x-trace-id"), Some(spans[0].trace.as_str()));
}

#[test]
fn a_hook_is_part_of_the_trace() {
    let _machine = shared_machine();
    let app = App::start(scripts::echo);
    let hook = App::start(|request: &Received, stream: &mut Connection| {
        let status = match request.header("authorization") {
            Some(_) => 204,
            None => 403,
        };
        stream.respond(status, "", b"")?;
        Ok(Next::KeepAlive)
    });
    let collector = Collector::start();
    let lines = format!(
        "tracing: {{propagate: [w3c, house, b3]}}\nauth: {{hook: {{url: \"http://127.0.0.1:{}/check?a=b\", \
         requestHeaders: [authorization, traceparent, x-b3-traceid]}}}}\n",
        hook.port()
    );
    let (_tree, _daemon, port) = single(&app, &lines, &collector.settings(""));
    let request = || {
        Request::get("/cart")
            .header("traceparent", &parent())
            .header("tracestate", "vendor=1")
            .header("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7")
    };
    let response = request().header("Authorization", "Basic YTpi").send(port);
    assert_eq!(response.status, 200, "{}", response.text());
    let spans = collector.take(2);
    let [server, asked] = ["GET /cart", "GET /check"].map(|what| {
        let found = spans.iter().find(|span| {
            let path = match span.is_server() {
                true => span.get("url.path"),
                false => span.get("url.full"),
            };
            let path = path.split_at(path.rfind('/').unwrap()).1;
            format!("{} {path}", span.name) == what
        });
        found.unwrap_or_else(|| panic!("no {what} in {spans:#?}"))
    });
    assert_eq!(
        (server.trace.as_str(), server.parent.as_str()),
        (TRACE, CLIENT)
    );
    assert_eq!((asked.trace.as_str(), &asked.parent), (TRACE, &server.id));
    assert_eq!((server.state.as_str(), asked.kind), ("vendor=1", 3));
    assert_eq!(asked.get("http.response.status_code"), "204");
    // The hook gets the headers of this hop, not those of the client.
    let question = hook.last();
    let expected = format!("00-{TRACE}-{}-01", asked.id);
    assert_eq!(question.header("traceparent"), Some(expected.as_str()));
    let state = question.header("tracestate");
    assert_eq!(state, Some("outrigger=d:1;p:shop/cart,vendor=1"));
    assert_eq!(question.header("x-b3-traceid"), None);
    let b3 = format!("{TRACE}-{}-1-{}", asked.id, server.id);
    assert_eq!(question.header("b3"), Some(b3.as_str()));
    let expected = format!("00-{TRACE}-{}-01", server.id);
    assert_eq!(app.last().header("traceparent"), Some(expected.as_str()));

    refused_by_the_hook(&request(), port, &collector);
}

/// A refusal is an error to whoever asked, and none of the server's.
#[track_caller]
fn refused_by_the_hook(request: &Request, port: u16, collector: &Collector) {
    let refused = request.send(port);
    assert_eq!(refused.status, 403);
    let spans = collector.take(2);
    let failed = |server: bool| {
        let span = spans
            .iter()
            .find(|span| span.is_server() == server)
            .unwrap();
        (
            span.get("http.response.status_code").to_owned(),
            span.failed,
        )
    };
    assert_eq!(failed(true), ("403".to_owned(), false));
    assert_eq!(failed(false), ("403".to_owned(), true));
    let cause = spans.iter().find(|span| span.is_server()).unwrap();
    assert_eq!(cause.get("outrigger.cause"), "auth_denied");
}

#[test]
fn without_tracing_a_hook_gets_the_clients_headers() {
    let _machine = shared_machine();
    let (app, hook) = (App::start(scripts::ok), App::start(scripts::ok));
    let lines = format!(
        "auth: {{hook: {{url: \"http://127.0.0.1:{}/\"}}}}\n",
        hook.port()
    );
    let (_tree, _daemon, port) = single(&app, &lines, "");
    let request = Request::get("/")
        .header("traceparent", &parent())
        .header("x-b3-sampled", "1");
    assert_eq!(request.send(port).status, 200);
    let asked = hook.last();
    assert_eq!(asked.header("traceparent"), Some(parent().as_str()));
    assert_eq!(asked.header("x-b3-sampled"), Some("1"));
}

/// A service whose app is gone, and its dependency with it.
fn nobody_home(collector: &Collector) -> (Tree, Daemon, [u16; 2]) {
    let gone = free_port();
    let port = free_port();
    let local = free_port();
    let text = format!(
        "port: {port}\nupstream: {gone}\nhealthCheck: {{path: /h, interval: 100ms}}\n\
         auth: {{apiKey: {{keys: [{{id: web, key: a-key-of-more-than-24-characters}}]}}}}\n\
         tracing: true\ndependencies:\n  - {{name: gone, address: \"http://127.0.0.1:{gone}\", \
         localPort: {local}, healthCheck: false}}\n"
    );
    let tree = Tree::with(&[("shop/cart", &text)]);
    let daemon = Setup::new(&tree)
        .process("accessLog: all\nlog: {level: debug}")
        .process(&collector.settings(""))
        .start();
    (tree, daemon, [port, local])
}

#[test]
fn answers_of_the_sidecar_leave_spans_and_probes_do_not() {
    let _machine = shared_machine();
    let collector = Collector::start();
    let (_tree, daemon, [port, local]) = nobody_home(&collector);
    for probe in ["/health", "/health?scope=self"] {
        Request::get(probe)
            .header("traceparent", &parent())
            .send(port);
    }
    daemon.admin_get("/readyz");
    let key = "a-key-of-more-than-24-characters";
    let sent = [
        (Request::get("/denied"), port, 401, "auth_denied", false),
        (
            Request::get("/refused").key(key),
            port,
            502,
            "upstream_connect_refused",
            true,
        ),
        (
            Request::new("CONNECT", "shop:80"),
            port,
            405,
            "bad_request",
            false,
        ),
        (
            Request::get("/call"),
            local,
            502,
            "upstream_connect_refused",
            true,
        ),
        (
            Request::get("/deep").key(key).header("x-trace-depth", "65"),
            port,
            508,
            "loop",
            true,
        ),
        (
            Request::get("/deep").header("x-trace-depth", "64"),
            local,
            508,
            "loop",
            true,
        ),
    ];
    for (request, port, status, cause, failed) in sent {
        let response = request.header("traceparent", &parent()).send(port);
        assert_eq!(
            (response.status, response.cause().as_str()),
            (status, cause)
        );
        assert_eq!(response.json()["traceId"], TRACE);
        let span = collector.take(1).remove(0);
        assert_eq!(
            (span.trace.as_str(), span.failed),
            (TRACE, failed),
            "{span:?}"
        );
        assert_eq!(span.get("outrigger.cause"), cause);
        let error = if failed { cause } else { "" };
        assert_eq!(span.get("error.type"), error);
        assert_eq!(span.get("http.response.status_code"), status.to_string());
        daemon.wait_for_line(&["request failed", cause, TRACE]);
    }
    assert!(collector.spans().is_empty());
    every_line_names_the_trace(&daemon.output());
}

#[track_caller]
fn every_line_names_the_trace(output: &str) {
    let of_requests = output
        .lines()
        .filter(|line| line.contains("\"request_id\""))
        .collect::<Vec<_>>();
    assert!(of_requests.len() >= 8, "{output}");
    for line in of_requests {
        assert!(line.contains(TRACE), "{line}");
    }
}

#[test]
fn unsampled_requests_leave_no_spans_and_keep_their_ids() {
    let _machine = shared_machine();
    let collector = Collector::start();
    let pair = Pair::start("{samplingRate: 0}", ALL, &collector.settings(""));
    for _ in 0..20 {
        let passed = pair.send(&[]);
        let front = passed.front.header("traceparent").unwrap().to_owned();
        let back = passed.back.header("traceparent").unwrap();
        assert!(
            front.ends_with("-00") && back.ends_with("-00"),
            "{front} {back}"
        );
        assert_eq!(front[..36], back[..36]);
        assert_ne!(front, back);
        assert_eq!(passed.front.header("tracestate"), None);
        assert_eq!(passed.response.header("x-trace-id"), Some(&front[3..35]));
    }
    let sampled = pair.send(&[("traceparent", &parent())]);
    assert!(sampled.back.header("traceparent").unwrap().ends_with("-01"));
    // The only spans are those of the last request.
    let spans = collector.take(2);
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:?}");
}

#[test]
fn a_streams_span_ends_with_its_last_byte() {
    let _machine = shared_machine();
    let collector = Collector::start();
    let app = App::start(|_: &Received, stream: &mut Connection| {
        use std::io::Write as _;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")?;
        stream.wait(Duration::from_millis(300));
        stream.write_all(b"def")?;
        Ok(Next::KeepAlive)
    });
    let (_tree, _daemon, port) =
        single(&app, "auth: none\ntracing: true\n", &collector.settings(""));
    assert_eq!(Request::get("/").send(port).text(), "abcdef");
    let span = collector.take(1).remove(0);
    assert!(span.nanos >= 300_000_000, "{span:?}");
}
