//! Retries: what is safe is repeated, and nothing else.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::front::{Front, limited};
use crate::support::app::{App, Connection, Next, Received, Script};
use crate::support::client::Request;
use crate::support::scripts;

/// Serves the first request of each connection; the second one dies at a moment
/// of the test's choice.
struct DiesOnReuse {
    moment: Moment,
    served: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Closed right after the first answer.
    Idle,
    /// Reset right after the first answer.
    IdleReset,
    /// Closed with the whole request read.
    Read,
    /// Reset with the whole request read.
    ReadReset,
    /// After the first byte of an answer.
    Answering,
    /// After a complete interim answer.
    Interim,
}

impl Script for DiesOnReuse {
    fn answer(&self, request: &Received, stream: &mut Connection) -> std::io::Result<Next> {
        let again = request.header("x-turn") == Some("2");
        let fresh = self.served.fetch_add(1, Ordering::AcqRel) > 1;
        let dies_idle = matches!(self.moment, Moment::Idle | Moment::IdleReset);
        if !again || fresh || dies_idle {
            stream.respond(200, "", b"ok")?;
            return Ok(match self.moment {
                Moment::Idle if !again => Next::Close,
                Moment::IdleReset if !again => Next::Reset,
                _ => Next::KeepAlive,
            });
        }
        match self.moment {
            Moment::Answering => stream.write_all(b"H")?,
            Moment::Interim => stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?,
            _ => {}
        }
        if matches!(self.moment, Moment::Answering | Moment::Interim) {
            stream.wait(Duration::from_millis(50));
        }
        Ok(match self.moment {
            Moment::ReadReset => Next::Reset,
            _ => Next::Close,
        })
    }
}

/// One request to fill the pool, one that meets the dying connection. Gives the
/// second answer's status and cause, and how often the app got that request.
fn second(moment: Moment, request: Request) -> (u16, String, usize) {
    let script = DiesOnReuse {
        moment,
        served: AtomicUsize::new(0),
    };
    let app = App::start(script);
    // One worker: the second request finds the first one's connection.
    let yaml = Front::yaml(app.port(), "", "", "");
    let front = Front::with(&yaml, "workers: 1");
    assert_eq!(Request::get("/").send(front.port).status, 200);
    if matches!(moment, Moment::Idle | Moment::IdleReset) {
        // The end of the connection must be there before the next request.
        crate::support::wait::pause(Duration::from_millis(100));
    }
    let response = request.header("x-turn", "2").send(front.port);
    let received = app.take();
    let seen = received
        .iter()
        .filter(|request| request.header("x-turn") == Some("2"))
        .count();
    front.wait_for_rest();
    (response.status, response.cause(), seen)
}

#[test]
fn idempotent_requests_survive_a_dead_connection() {
    for moment in [Moment::Idle, Moment::IdleReset] {
        for request in [
            Request::get("/"),
            Request::new("PUT", "/").body(vec![b'x'; 16 * 1024]),
            // Nothing of it was sent, so any method may go again.
            Request::post("/", "once"),
        ] {
            let (status, cause, seen) = second(moment, request.clone());
            assert_eq!((status, seen), (200, 1), "{moment:?} {request:?}: {cause}");
        }
    }
    for moment in [Moment::Read, Moment::ReadReset] {
        for request in [
            Request::get("/"),
            Request::new("DELETE", "/"),
            Request::new("PUT", "/").body(vec![b'x'; 16 * 1024]),
        ] {
            let (status, cause, seen) = second(moment, request.clone());
            assert_eq!((status, seen), (200, 2), "{moment:?}: {cause}");
        }
    }
}

#[test]
fn what_may_have_been_executed_is_never_sent_again() {
    for moment in [Moment::Read, Moment::ReadReset] {
        for request in [
            Request::post("/", "once"),
            Request::new("PATCH", "/"),
            Request::new("BREW", "/"),
            // Too large to be kept aside.
            Request::new("PUT", "/").body(vec![b'x'; 200_000]),
        ] {
            let (status, cause, seen) = second(moment, request.clone());
            assert_eq!(
                (status, cause.as_str()),
                (502, "upstream_closed"),
                "{moment:?}"
            );
            assert_eq!(seen, 1, "{moment:?}");
        }
    }
    // Never once an answer has begun.
    for moment in [Moment::Answering, Moment::Interim] {
        let (status, cause, seen) = second(moment, Request::get("/"));
        assert_eq!(
            (status, cause.as_str()),
            (502, "upstream_closed"),
            "{moment:?}"
        );
        assert_eq!(seen, 1, "{moment:?}");
    }
}

/// A first connection that dies proves nothing, so nothing is repeated on it.
#[test]
fn a_fresh_connection_is_not_tried_again() {
    let (app, front) = limited(scripts::closes_after(0), "", "");
    assert_eq!(
        Request::get("/").send(front.port).cause(),
        "upstream_closed"
    );
    assert_eq!(app.count(), 1);
    let retries = |front: &Front| front.daemon.metrics().count("outrigger_retries_total", &[]);
    assert_eq!(retries(&front), 0.0);
}

/// POSTs against an app that dies at random moments: each at most once.
#[test]
fn no_post_is_executed_twice() {
    let turn = AtomicUsize::new(0);
    let moody = move |_: &Received, stream: &mut Connection| {
        let turn = turn.fetch_add(1, Ordering::AcqRel);
        match turn % 7 {
            0 => return Ok(Next::Close),
            1 => return Ok(Next::Reset),
            2 => stream.write_all(b"HTTP/1.1 200")?,
            3 => {
                stream.respond(200, "", b"ok")?;
                return Ok(Next::Reset);
            }
            4 => {
                stream.respond(200, "", b"ok")?;
                return Ok(Next::Close);
            }
            _ => stream.respond(200, "", b"ok")?,
        }
        Ok(if turn % 7 == 2 {
            Next::Close
        } else {
            Next::KeepAlive
        })
    };
    let (app, front) = limited(moody, "", "");
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let port = front.port;
                scope.spawn(move || {
                    let send = |number: usize| {
                        let id = (sender * 1000 + number).to_string();
                        Request::post("/", "x").header("x-id", &id).status(port)
                    };
                    (0..100).map(send).collect::<Vec<_>>()
                })
            })
            .collect();
        senders
            .into_iter()
            .flat_map(|sender| sender.join().unwrap())
            .collect()
    });
    assert_eq!(statuses.len(), 400);
    let good = statuses
        .iter()
        .filter(|status| **status == Some(200))
        .count();
    let received = app.take();
    let mut ids: Vec<&str> = received
        .iter()
        .filter_map(|request| request.header("x-id"))
        .collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "some POST was sent twice");
    assert!(good > 100, "{good} of 400 answered");
    println!("{good} of 400 POSTs answered 200, {all} reached the app, none twice");
    front.wait_for_rest();
}
