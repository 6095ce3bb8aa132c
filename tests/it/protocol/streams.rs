//! Streams of HTTP/2 toward the sidecar, frame by frame.

use std::cell::RefCell;
use std::io::Write;

use super::front::{front, limited};
use crate::support::app::{Connection, Next, Received};
use crate::support::frames::{self, FrameClient, HEADERS, frame};
use crate::support::scripts;
use crate::support::wait::{SOON, wait_until};

/// What came before an answer broke off is the client's, whatever else goes on
/// on its connection.
#[test]
fn a_broken_answer_begins_beside_others() {
    let half = |_: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        Ok(Next::Close)
    };
    let routes = scripts::Routes(vec![
        ("/silent", Box::new(scripts::silent)),
        ("/half", Box::new(half)),
    ]);
    let (app, front) = limited(routes, "", "");
    let mut client = FrameClient::connect(front.port, &[]);
    let waiting = frames::headers(1, &frames::get("/silent"), true);
    client.send(&waiting).unwrap();
    wait_until("one waits", SOON, || app.count() == 1);
    for stream in (3..83).step_by(2) {
        let broken = frames::headers(stream, &frames::get("/half"), true);
        client.send(&broken).unwrap();
        let kinds = RefCell::new(Vec::new());
        let reset = client.find(|frame| {
            if frame.stream == stream {
                kinds.borrow_mut().push(frame.kind);
            }
            frame.stream == stream && frame.kind == frames::RST_STREAM
        });
        assert!(reset.unwrap().is_some(), "it is told");
        let expected = [HEADERS, frames::DATA, frames::RST_STREAM];
        assert_eq!(*kinds.borrow(), expected, "stream {stream}");
    }
}

#[test]
fn many_small_frames_are_a_body_like_others() {
    let (app, front) = front(scripts::ok);
    let mut client = FrameClient::connect(front.port, &[]);
    let mut post = frames::headers(1, &frames::post("/"), false);
    for _ in 0..6000 {
        post.extend(frame(frames::DATA, 0, 1, b"x"));
    }
    post.extend(frame(frames::DATA, frames::END_STREAM, 1, b"x"));
    client.send(&post).unwrap();
    let answered = client.find(|frame| frame.kind == HEADERS && frame.stream == 1);
    assert!(answered.unwrap().is_some());
    assert_eq!(app.last().body.len(), 6001);
}

#[test]
fn a_client_that_expects_to_be_asked_for_its_body_is() {
    let (app, front) = front(scripts::ok);
    let mut client = FrameClient::connect(front.port, &[]);
    let block = [
        frames::post("/"),
        frames::block(&[("expect", "100-continue")]),
    ]
    .concat();
    client.send(&frames::headers(1, &block, false)).unwrap();
    let interim = client.find(|frame| frame.kind == HEADERS && frame.stream == 1);
    let interim = interim.unwrap().expect("it is asked for it");
    assert_eq!(interim.flags & frames::END_STREAM, 0);
    assert_ne!(interim.payload.first(), Some(&0x88), "no 200 yet");
    client
        .send(&frame(frames::DATA, frames::END_STREAM, 1, b"body"))
        .unwrap();
    let answer = client.find(|frame| frame.kind == HEADERS && frame.stream == 1);
    assert_eq!(answer.unwrap().unwrap().payload.first(), Some(&0x88));
    assert_eq!(app.last().body, b"body");
    assert_eq!(app.last().header("expect"), None);
    // With the body at once there is nothing to ask for.
    let whole = frame(frames::DATA, frames::END_STREAM, 3, b"body");
    let request = [frames::headers(3, &block, false), whole].concat();
    client.send(&request).unwrap();
    let answer = client.find(|frame| frame.kind == HEADERS && frame.stream == 3);
    assert_eq!(answer.unwrap().unwrap().payload.first(), Some(&0x88));
}

/// Whatever reason it gives: what came of the body is not all of it.
#[test]
fn an_upload_given_up_never_looks_complete() {
    let (app, front) = front(scripts::ok);
    for (number, reason) in (1..).zip([0_u32, 8, 2]) {
        let mut client = FrameClient::connect(front.port, &[]);
        let post = frames::headers(1, &frames::post("/"), false);
        let half = frame(frames::DATA, 0, 1, b"half");
        client.send(&[post, half].concat()).unwrap();
        wait_until("it is in flight", SOON, || front.in_flight() == 1.0);
        let reset = frame(frames::RST_STREAM, 0, 1, &reason.to_be_bytes());
        client.send(&reset).unwrap();
        front.wait_for_rest();
        front.wait_for_errors("client_closed", f64::from(number));
        assert!(client.answers(3), "the connection is of use");
        // It got a head and half a body, which is no request.
        assert_eq!(app.count(), number as usize);
    }
}
