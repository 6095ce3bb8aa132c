//! Who decides what is sampled, over ten thousand requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::app::{App, Connection, Next, Received};
use crate::support::client::{Client, Request};
use crate::support::collector::Collector;
use crate::support::daemon::{Daemon, Setup};
use crate::support::ports::free_ports;
use crate::support::tree::Tree;
use crate::support::wait::whole_machine;

const REQUESTS: usize = 10_000;
const CLIENTS: usize = 8;
const KEY: &str = "a-key-of-more-than-24-characters";

/// An app that answers with the `traceparent` it got.
fn say_parent(request: &Received, stream: &mut Connection) -> std::io::Result<Next> {
    let parent = request.header("traceparent").unwrap_or_default();
    stream.respond(200, "", parent.as_bytes())?;
    Ok(Next::KeepAlive)
}

/// Sends this many requests to a port, each made by `request` from its number;
/// gives `traceparent` as the app got it, by number.
fn ask(port: u16, count: usize, request: impl Fn(usize) -> Request + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let mut answers: BTreeMap<usize, String> = BTreeMap::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(port).unwrap();
                    let mut own = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::AcqRel);
                        if number >= count {
                            return own;
                        }
                        let answer = client.exchange(&request(number)).unwrap();
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        own.push((number, answer.text()));
                    }
                })
            })
            .collect();
        for client in clients {
            answers.extend(client.join().expect("a client does not panic"));
        }
    });
    answers.into_values().collect()
}

fn sampled(parent: &str) -> bool {
    assert!(
        parent.len() == 55 && (parent.ends_with("-00") || parent.ends_with("-01")),
        "{parent}"
    );
    parent.ends_with("-01")
}

fn trace(parent: &str) -> &str {
    &parent[3..35]
}

fn share(parents: &[String]) -> f64 {
    parents.iter().filter(|parent| sampled(parent)).count() as f64 / parents.len() as f64
}

/// Five standard deviations of a share.
#[track_caller]
fn assert_share(parents: &[String], rate: f64) {
    let deviation = (rate * (1.0 - rate) / parents.len() as f64).sqrt();
    let share = share(parents);
    assert!(
        (share - rate).abs() <= 5.0 * deviation,
        "{share} is not {rate}"
    );
}

/// A tree with a service per line: name, `auth`, `tracing`.
fn start(app: &App, services: &[(&str, &str, &str)], process: &str) -> (Tree, Daemon, Vec<u16>) {
    let ports = free_ports(u16::try_from(services.len()).unwrap());
    let tree = Tree::new();
    for ((name, auth, tracing), port) in services.iter().zip(&ports) {
        let text = format!(
            "port: {port}\nupstream: {}\nhealthCheck: false\nauth: {auth}\ntracing: {tracing}\n",
            app.port()
        );
        tree.write(&format!("shop/{name}"), text);
    }
    let daemon = Setup::new(&tree)
        .process("workers: 2")
        .process(process)
        .start();
    (tree, daemon, ports)
}

#[test]
fn a_lower_rate_samples_a_subset() {
    let _machine = whole_machine();
    let app = App::start(say_parent);
    let never = "trustParent: never";
    let (first, second) = (Collector::start(), Collector::start());
    let queue = ", queue: 100000";
    let all = [("all", "none", &*format!("{{samplingRate: 1, {never}}}"))];
    let (_tree, _daemon, all) = start(&app, &all, &first.settings(queue));
    let half = [
        ("half", "none", &*format!("{{samplingRate: 0.5, {never}}}")),
        (
            "quarter",
            "none",
            &*format!("{{samplingRate: 0.25, {never}}}"),
        ),
        ("trusting", "none", "{samplingRate: 0.25}"),
    ];
    let (_tree, _daemon, half) = start(&app, &half, &second.settings(queue));
    // What one hop sends is what the next one gets.
    let by_all = ask(all[0], REQUESTS, |_| Request::get("/"));
    let onward = |from: &[String], port: u16| {
        let given = ask(port, from.len(), |number| {
            Request::get("/").header("traceparent", &from[number])
        });
        for (given, from) in given.iter().zip(from) {
            assert_eq!(
                trace(given),
                trace(from),
                "the ids are kept, sampled or not"
            );
            assert_ne!(given[36..52], from[36..52], "a span of its own");
        }
        given
    };
    assert_eq!(share(&by_all), 1.0);
    let by_half = onward(&by_all, half[0]);
    assert_share(&by_half, 0.5);
    let by_quarter = onward(&by_half, half[1]);
    assert_share(&by_quarter, 0.25);
    let lost = by_quarter
        .iter()
        .zip(&by_half)
        .filter(|(quarter, half)| sampled(quarter) && !sampled(half));
    assert_eq!(lost.count(), 0, "the lower rate samples a subset");
    // A trusted parent's decision is followed, whatever the own rate.
    let trusting = onward(&by_half, half[2]);
    for (own, parent) in trusting.iter().zip(&by_half) {
        assert_eq!(sampled(own), sampled(parent));
    }
    // The collectors got what was sampled, all of it, once.
    let count = |parents: &[String]| parents.iter().filter(|parent| sampled(parent)).count();
    let spans = first.take(REQUESTS);
    assert_eq!(spans.len(), REQUESTS);
    let expected = count(&by_half) + count(&by_quarter) + count(&trusting);
    let spans = second.take(expected);
    assert_eq!(spans.len(), expected);
    let of_half = spans.iter().filter(|span| span.service == "shop/half");
    let mut of_half: Vec<&str> = of_half.map(|span| span.trace.as_str()).collect();
    of_half.sort_unstable();
    let mut sampled_by_half: Vec<&str> = by_half
        .iter()
        .filter(|p| sampled(p))
        .map(|p| trace(p))
        .collect();
    sampled_by_half.sort_unstable();
    assert_eq!(of_half, sampled_by_half);
}

#[test]
fn strangers_cannot_raise_the_share() {
    let _machine = whole_machine();
    let app = App::start(say_parent);
    let keys = format!("{{apiKey: {{keys: [{{id: web, key: {KEY}}}]}}}}");
    let (_tree, _daemon, ports) = start(
        &app,
        &[
            ("open", "none", "{samplingRate: 0.1}"),
            ("guarded", &keys, "{samplingRate: 0.1}"),
            (
                "strict",
                "none",
                "{samplingRate: 0.1, trustParent: authenticated}",
            ),
            ("always", "none", "{samplingRate: 0.1, trustParent: always}"),
        ],
        "",
    );
    let claim = |number: usize, flags: &str| {
        // The low bits as a careful attacker would choose them are no better
        // than chance here: only the decision is claimed.
        let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let parent = format!(
            "00-{:016x}{:016x}-00f067aa0ba902b7-{flags}",
            mixed,
            mixed.rotate_left(29) ^ 0x5bd1_e995
        );
        Request::get("/").header("traceparent", &parent)
    };
    let through_a_proxy = |number| claim(number, "01").header("X-Forwarded-For", "203.0.113.9");
    let count = 2000;
    assert_share(&ask(ports[0], count, through_a_proxy), 0.1);
    assert_share(&ask(ports[2], count, |number| claim(number, "01")), 0.1);
    // Nor by B3, debug flag included.
    let b3 = |number: usize| {
        let id = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let value = format!("{id:032x}-00f067aa0ba902b7-d");
        Request::get("/")
            .header("b3", &value)
            .header("X-Forwarded-For", "203.0.113.9")
    };
    assert_share(&ask(ports[0], count, b3), 0.1);
    // Those who are trusted decide, both ways.
    for flags in ["01", "00"] {
        let expected = if flags == "01" { 1.0 } else { 0.0 };
        let near = ask(ports[0], 200, |number| claim(number, flags));
        assert_eq!(share(&near), expected, "loopback, {flags}");
        let known = ask(ports[1], 200, |number| {
            claim(number, flags)
                .key(KEY)
                .header("X-Forwarded-For", "203.0.113.9")
        });
        assert_eq!(share(&known), expected, "authenticated, {flags}");
        let always = ask(ports[3], 200, |number| {
            claim(number, flags).header("X-Forwarded-For", "203.0.113.9")
        });
        assert_eq!(share(&always), expected, "trustParent: always, {flags}");
    }
    // Without a parent the rate decides.
    assert_share(&ask(ports[0], count, |_| Request::get("/")), 0.1);
}
