//! Tells an HTTP/2 client that keeps the worker busy from one that works.

use std::cell::Cell;

/// Cheap frames a connection may send beyond what its work earns.
const MOST: u64 = 100_000;
/// Earned back each second, used or not. gRPC clients that measure their
/// bandwidth send a PING and a WINDOW_UPDATE per round trip, which next door is
/// tens of thousands a second; a flood is hundreds of thousands, and below this
/// requests would cost us more.
const PER_SECOND: u64 = 50_000;
/// A frame of a request earns some: clients answer each with others.
const PER_FRAME_OF_WORK: u64 = 4;
/// Bytes sent to the client that earn one. More than the 17 of a PING's answer,
/// or a flood of those would pay for itself.
const BYTES_SENT_PER_FRAME: u64 = 64;

const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Counts the frames of one connection that cost more than they bring: PING,
/// SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, CONTINUATION, unknown ones,
/// and DATA without data. h2 bounds what they hold in memory, not how many
/// there are (RFC 9113 §10.5).
#[derive(Debug)]
pub(super) struct FloodGuard {
    left: Cell<u64>,
    at_ms: Cell<u64>,
    bytes_sent: Cell<u64>,
    /// Of the frame being read.
    head: Cell<[u8; FRAME_HEAD]>,
    head_bytes: Cell<usize>,
    payload_left: Cell<usize>,
}

impl FloodGuard {
    /// The frames begin behind `preface` bytes.
    pub(super) fn new(now_ms: u64, preface: usize) -> Self {
        Self {
            left: Cell::new(MOST),
            at_ms: Cell::new(now_ms),
            bytes_sent: Cell::new(0),
            head: Cell::new([0; FRAME_HEAD]),
            head_bytes: Cell::new(0),
            payload_left: Cell::new(preface),
        }
    }

    /// Looks at every byte that came; `false` once there were too
    /// many cheap frames. Malformed frames are for h2 to refuse.
    pub(super) fn admits(&self, mut bytes: &[u8], now_ms: u64) -> bool {
        let (mut cheap, mut work) = (0, 0);
        while !bytes.is_empty() {
            let skipped = self.payload_left.get().min(bytes.len());
            self.payload_left.set(self.payload_left.get() - skipped);
            bytes = bytes.get(skipped..).unwrap_or_default();
            if self.payload_left.get() > 0 || bytes.is_empty() {
                break;
            }
            bytes = self.take_head(bytes);
            if self.head_bytes.get() == FRAME_HEAD {
                match self.begin_payload() {
                    true => cheap += 1,
                    false => work += 1,
                }
            }
        }
        self.earn(work * PER_FRAME_OF_WORK);
        cheap == 0 || self.spend(cheap, now_ms)
    }

    /// Bytes that went to the client earn it frames.
    pub(super) fn sent(&self, bytes: usize) {
        let total = self.bytes_sent.get() + bytes as u64;
        self.bytes_sent.set(total % BYTES_SENT_PER_FRAME);
        self.earn(total / BYTES_SENT_PER_FRAME);
    }

    fn take_head<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let mut head = self.head.get();
        let have = self.head_bytes.get();
        let taken = bytes.len().min(FRAME_HEAD - have);
        for (to, from) in head.iter_mut().skip(have).zip(bytes) {
            *to = *from;
        }
        self.head.set(head);
        self.head_bytes.set(have + taken);
        bytes.get(taken..).unwrap_or_default()
    }

    /// The head is complete; whether its frame is a cheap one.
    fn begin_payload(&self) -> bool {
        let [high, middle, low, kind, ..] = self.head.get();
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.head_bytes.set(0);
        self.payload_left.set(length);
        kind != HEADERS && (kind != DATA || length == 0)
    }

    fn spend(&self, cheap: u64, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.at_ms.get()) * PER_SECOND / 1000;
        if earned > 0 {
            self.at_ms.set(now_ms);
            self.earn(earned);
        }
        match self.left.get().checked_sub(cheap) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => false,
        }
    }

    fn earn(&self, frames: u64) {
        self.left.set((self.left.get() + frames).min(MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + usize::from(length), 0xff);
        bytes
    }

    #[test]
    fn cheap_frames_run_out_whatever_their_pieces() {
        for piece in [1, 7, 9, 10, 1000] {
            let guard = FloodGuard::new(0, 0);
            let pings = frame(6, 8).repeat(MOST as usize);
            assert!(pings.chunks(piece).all(|bytes| guard.admits(bytes, 0)));
            assert!(!guard.admits(&frame(6, 8), 0));
            assert!(guard.admits(&frame(6, 8), 1));
        }
    }

    #[test]
    fn work_costs_nothing_and_earns_frames() {
        let guard = FloodGuard::new(0, 0);
        let work = [frame(HEADERS, 50), frame(DATA, 200)].concat();
        for _ in 0..MOST * 2 {
            assert!(guard.admits(&work, 0));
        }
        for _ in 0..MOST * 2 {
            assert!(guard.admits(&frame(8, 4), 0));
            guard.sent(64);
        }
        assert!(guard.admits(&frame(DATA, 0).repeat(MOST as usize), 0));
        assert!(!guard.admits(&frame(DATA, 0), 0));
    }
}
