//! The `Date` of answers (RFC 9110 §6.6.1), written once a second.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

/// The text of this second.
#[derive(Debug)]
pub(super) struct DateText {
    /// Used by the worker's own thread only, so never contended.
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    text: [u8; DATE_BYTES],
    /// On the worker's clock.
    until_ms: u64,
}

impl DateText {
    /// Not written yet.
    pub(super) fn new() -> Self {
        let written = Written {
            text: [b' '; DATE_BYTES],
            until_ms: 0,
        };
        Self {
            written: Mutex::new(written),
        }
    }

    /// Appends it; `now_ms` is the worker's clock.
    pub(super) fn append(&self, now_ms: u64, out: &mut Vec<u8>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ms >= written.until_ms {
            written.renew(now_ms);
        }
        out.extend_from_slice(&written.text);
    }
}

impl Written {
    fn renew(&mut self, now_ms: u64) {
        let now = SystemTime::now();
        let text = httpdate::fmt_http_date(now);
        if let Ok(text) = text.as_bytes().try_into() {
            self.text = text;
        }
        let past = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.until_ms = now_ms + u64::from(1000 - past.subsec_millis());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_of_this_second() {
        let date = DateText::new();
        let mut out = Vec::new();
        date.append(5, &mut out);
        let text = std::str::from_utf8(&out).expect("ascii");
        let told = httpdate::parse_http_date(text).expect("a date");
        let age = SystemTime::now().duration_since(told).expect("not ahead");
        assert!(age.as_secs() < 5, "{text}");
        // Once a second is over it is written anew.
        date.written.lock().expect("free").text = [b'-'; DATE_BYTES];
        out.clear();
        date.append(1005, &mut out);
        assert_ne!(out, [b'-'; DATE_BYTES]);
    }
}
