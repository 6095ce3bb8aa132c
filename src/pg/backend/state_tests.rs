use bytes::BytesMut;

use super::*;

fn ready(status: u8) -> Message {
    let mut bytes = BytesMut::from(&[b'Z', 0, 0, 0, 5, status][..]);
    Message::parse(&mut bytes)
        .expect("well-formed")
        .expect("whole")
}

fn error(severity: &str) -> Message {
    error_of(severity, "57014")
}

fn error_of(severity: &str, code: &str) -> Message {
    let fields = format!("S{severity}\0V{severity}\0C{code}\0Mno\0\0");
    let length = u32::try_from(fields.len() + 4).expect("short");
    let mut bytes = BytesMut::from(&b"E"[..]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(fields.as_bytes());
    Message::parse(&mut bytes)
        .expect("well-formed")
        .expect("whole")
}

/// A message of one text.
fn text(tag: u8, text: &str) -> Message {
    let length = u32::try_from(text.len() + 5).expect("short");
    let mut bytes = BytesMut::from(&[tag][..]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(format!("{text}\0").as_bytes());
    let message = Message::parse(&mut bytes).expect("well-formed");
    message.expect("whole")
}

fn done(tag: &str) -> Message {
    text(b'C', tag)
}

fn opened() -> State {
    let mut state = State::opening(DatabaseReset::Always);
    state.received(&ready(b'I')).expect("a good start");
    assert!(state.is_clean());
    state
}

#[test]
fn work_is_used_until_a_reset_succeeds() {
    let mut state = opened();
    state.sent(Flight::Work);
    state.sent(Flight::Reset);
    assert_eq!(state.owed(), 2);
    state.received(&ready(b'I')).expect("fine");
    assert!(!state.is_clean() && state.is_used());
    state.received(&ready(b'I')).expect("fine");
    assert!(state.is_clean());
}

#[test]
fn a_reset_that_fails_or_runs_in_a_transaction_is_none() {
    for (failing, status) in [(true, b'I'), (false, b'T'), (true, b'E')] {
        let mut state = opened();
        state.sent(Flight::Work);
        state.sent(Flight::Reset);
        state.received(&ready(status)).expect("fine");
        if failing {
            state.received(&error("ERROR")).expect("no end");
        }
        state.received(&ready(status)).expect("fine");
        assert!(state.is_used() && !state.is_clean());
    }
}

#[test]
fn a_lenient_session_is_used_by_what_is_seen_to_change_it() {
    for (tag, used) in [("SELECT 1", false), ("SET", true), ("CREATE TABLE", true)] {
        let mut state = State::opening(DatabaseReset::Dirty);
        state.received(&ready(b'I')).expect("a good start");
        state.sent(Flight::Work);
        state.received(&done(tag)).expect("fine");
        state.received(&ready(b'I')).expect("fine");
        assert_eq!(state.is_used(), used, "{tag}");
    }
}

/// A session whose next flight has to begin with the reset.
fn handed_on() -> State {
    let mut state = opened();
    state.commits_reset = true;
    state.sent(Flight::Work);
    assert!(!state.may_be_handed_on());
    state.received(&done("SELECT 1")).expect("fine");
    state.received(&ready(b'I')).expect("fine");
    assert!(state.may_be_handed_on() && !state.is_clean());
    state
}

#[test]
fn work_behind_a_reset_shows_nothing_of_it() {
    let mut state = handed_on();
    state.sent_behind_reset();
    assert!(state.owes_work());
    for (message, shown) in [
        (Message::ParseComplete, false),
        (Message::BindComplete, false),
        (done(RESET), false),
        (Message::ParseComplete, true),
        (done("SELECT 1"), true),
    ] {
        assert_eq!(state.received(&message).ok(), Some(shown));
    }
    state.received(&ready(b'I')).expect("fine");
    // Its own work is to be undone in turn.
    assert!(state.is_used() && state.may_be_handed_on());
}

#[test]
fn nothing_is_taken_for_work_before_the_reset_succeeded() {
    for message in [
        error("ERROR"),
        error("FATAL"),
        done("SELECT 1"),
        ready(b'I'),
    ] {
        let mut state = handed_on();
        state.sent_behind_reset();
        let wrong = state.received(&message).expect_err("no reset");
        let failed = matches!(&message, Message::ErrorResponse(_));
        assert_eq!(matches!(wrong, Lost::Unreset(_)), failed, "{wrong:?}");
        state.lost(wrong);
        assert!(state.is_used() && !state.may_be_handed_on());
    }
}

#[test]
fn what_was_seen_to_change_a_session_is_not_handed_on() {
    for (tag, status, handed) in [
        ("INSERT 0 1", b'I', true),
        ("SET", b'I', false),
        ("DO", b'I', false),
        ("BEGIN", b'T', false),
    ] {
        let mut state = opened();
        state.commits_reset = true;
        state.sent(Flight::Work);
        state.received(&done(tag)).expect("fine");
        state.received(&ready(status)).expect("fine");
        assert_eq!(state.may_be_handed_on(), handed, "{tag}");
        // Nor is any by a server that may not commit the reset at once.
        state.commits_reset = false;
        assert!(!state.may_be_handed_on());
    }
    assert!(commits_reset("15.18 (Debian 15.18-0+deb12u1)") && commits_reset("18beta1"));
    assert!(!commits_reset("14.5") && !commits_reset("13.0.0") && !commits_reset("x"));
}

#[test]
fn what_was_not_asked_for_or_is_fatal_ends_it() {
    let mut state = opened();
    assert!(state.received(&ready(b'I')).is_err());
    let mut state = opened();
    let fatal = state.received(&error("FATAL"));
    assert!(matches!(fatal, Err(Lost::Server(_))));
}

/// Somebody in between, who cannot know what the server has run.
#[test]
fn a_connection_that_failed_says_nothing_of_the_reset() {
    let mut state = handed_on();
    state.sent_behind_reset();
    let wrong = state.received(&error_of("FATAL", "08P01"));
    assert!(matches!(wrong, Err(Lost::Server(_))), "{wrong:?}");
}
