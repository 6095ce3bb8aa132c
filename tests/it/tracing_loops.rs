//! Calls in a circle end (508), as long as the apps pass on what they got.

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Request, Response};
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_ports;
use crate::support::scripts;
use crate::support::traced::{ALL, Pair, W3C, relay, single};
use crate::support::tree::Tree;
use crate::support::wait::shared_machine;

/// Two services that call each other without end.
fn circle(copied: &'static [&'static str], tracing: &str) -> (Tree, Daemon, u16, [App; 2]) {
    let (ports, locals) = (free_ports(2), free_ports(2));
    let apps = [0, 1].map(|index| App::start(relay(locals[index], copied)));
    let tree = Tree::new();
    for (index, (name, other)) in [("orders", "payments"), ("payments", "orders")]
        .into_iter()
        .enumerate()
    {
        let text = format!(
            "port: {}\nupstream: {}\nhealthCheck: false\nauth: none\ntracing: {tracing}\n\
             dependencies: [{{name: {other}, localPort: {}, healthCheck: false}}]\n",
            ports[index],
            apps[index].port(),
            locals[index]
        );
        tree.write(&format!("shop/{name}"), text);
    }
    let daemon = Setup::new(&tree).start();
    (tree, daemon, ports[0], apps)
}

#[test]
fn two_services_that_call_each_other_come_to_an_end() {
    let _machine = shared_machine();
    for (copied, tracing) in [
        (ALL, "{samplingRate: 1}"),
        (ALL, "{samplingRate: 0}"),
        (ALL, "{samplingRate: 0, propagate: [house]}"),
        // Sampled, the W3C's own headers are enough.
        (W3C, "{samplingRate: 1}"),
    ] {
        let (_tree, daemon, port, apps) = circle(copied, tracing);
        let response = Request::get("/").send(port);
        assert_eq!(
            (response.status, response.cause().as_str()),
            (508, "loop"),
            "{tracing}"
        );
        // Depth 0 to 64, by turns.
        assert_eq!([apps[0].count(), apps[1].count()], [33, 32], "{tracing}");
        let errors = daemon.metrics();
        let labels = [("cause", "loop")];
        assert_eq!(errors.count("outrigger_proxy_errors_total", &labels), 1.0);
    }
}

/// As a problem document names it.
fn trace_id(response: &Response) -> String {
    let id = response.json()["traceId"].as_str().map(str::to_owned);
    id.unwrap_or_default()
}

#[test]
fn the_limit_is_64_services() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let (_tree, _daemon, port) = single(&app, "auth: none\ntracing: true\n", "");
    let at = |depth: &str| Request::get("/").header("x-trace-depth", depth).send(port);
    for (depth, status) in [
        ("0", 200),
        ("64", 200),
        ("65", 508),
        ("99999", 508),
        ("100000", 508),
        ("99999999999999999999", 508),
    ] {
        assert_eq!(at(depth).status, status, "{depth}");
    }
    assert_eq!(app.count(), 2);
    let refused = at("65");
    assert_eq!(refused.cause(), "loop");
    let status = refused.header("proxy-status").unwrap_or_default();
    assert!(status.starts_with("cart.shop; error="), "{status}");
    assert_eq!(trace_id(&refused).len(), 32);
    // What is no depth is none.
    for odd in ["-1", "1e3", "6 5", "x", ""] {
        assert_eq!(at(odd).status, 200, "{odd}");
    }
    let health = Request::get("/health")
        .header("x-trace-depth", "65")
        .send(port);
    assert_ne!(health.status, 508, "probes are not part of any circle");
}

#[test]
fn outbound_counts_the_app_s_depth() {
    let _machine = shared_machine();
    let pair = Pair::start("true", ALL, "");
    for (depth, status) in [("63", 200), ("64", 508)] {
        let call = Request::get("/").header("x-trace-depth", depth);
        let answer = call.send(pair.local);
        assert_eq!(answer.status, status, "{depth}");
        if status == 508 {
            assert_eq!(trace_id(&answer).len(), 32);
        }
    }
    assert_eq!(pair.back.last().header("x-trace-depth"), Some("64"));
    assert_eq!(pair.back.count(), 1);
}

#[test]
fn a_hook_s_question_is_one_deeper_and_never_fails_for_it() {
    let _machine = shared_machine();
    let app = App::start(scripts::ok);
    let hook = App::start(|_: &Received, stream: &mut Connection| {
        stream.respond(204, "", b"")?;
        Ok(Next::KeepAlive)
    });
    let lines = format!(
        "auth: {{hook: {{url: \"http://127.0.0.1:{}/\"}}}}\ntracing: true\n",
        hook.port()
    );
    let (_tree, _daemon, port) = single(&app, &lines, "");
    let response = Request::get("/").header("x-trace-depth", "64").send(port);
    assert_eq!(response.status, 200);
    assert_eq!(hook.last().header("x-trace-depth"), Some("65"));
    assert_eq!(app.last().header("x-trace-depth"), Some("64"));
}

/// Whoever has only the id that a response or an app's log names finds the line.
#[test]
fn an_id_that_is_no_trace_id_is_in_the_log_beside_it() {
    let _machine = shared_machine();
    let app = App::start(scripts::closes_after(0));
    let (_tree, daemon, port) = single(&app, "auth: none\ntracing: true\n", "accessLog: all");
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (given, told) in [("order-77", true), ("not safe", false), (id, false)] {
        let answer = Request::get(&format!("/{}", given.len()))
            .header("x-trace-id", given)
            .send(port);
        assert_eq!(answer.status, 502);
        let trace = answer.json()["traceId"].as_str().unwrap().to_owned();
        for message in ["request failed", "\"message\":\"request\""] {
            let line = daemon.wait_for_line(&[message, &trace]);
            assert_eq!(line.contains("\"x_trace_id\":\"order-77\""), told, "{line}");
        }
    }
}
