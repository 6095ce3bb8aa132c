//! What of a request is still to be written.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};

use super::encode::Framing;
use crate::model::HeaderCase;

/// The request's bytes on their way out.
pub(super) struct Outgoing {
    /// Written first. Beside the rest, which most requests do not have.
    pub(super) head: Bytes,
    staged: VecDeque<Bytes>,
    pub(super) staged_bytes: usize,
    /// Body bytes still owed under `Content-Length`.
    pub(super) owed: u64,
    pub(super) chunked: bool,
    pub(super) case: HeaderCase,
    pub(super) upgrade: bool,
    pub(super) body_ended: bool,
    /// The app stopped reading; what it answers still counts.
    pub(super) broken: Option<io::Error>,
    pub(super) sent: bool,
}

impl Outgoing {
    /// A head that nothing was sent of yet.
    pub(super) fn new(head: Bytes, framing: Framing, upgrade: bool, case: HeaderCase) -> Self {
        Self {
            staged_bytes: head.len(),
            head,
            staged: VecDeque::new(),
            owed: match framing {
                Framing::Length(length) => length,
                Framing::None | Framing::Chunked => 0,
            },
            chunked: framing == Framing::Chunked,
            case,
            upgrade,
            body_ended: matches!(framing, Framing::None | Framing::Length(0)),
            broken: None,
            sent: false,
        }
    }

    /// Whether bytes wait to be written.
    pub(super) fn has_staged(&self) -> bool {
        !self.head.is_empty() || !self.staged.is_empty()
    }

    /// What waits, in order.
    pub(super) fn staged(&self) -> impl Iterator<Item = &Bytes> {
        let head = (!self.head.is_empty()).then_some(&self.head);
        head.into_iter().chain(&self.staged)
    }

    /// Nobody reads any more: nothing waits.
    pub(super) fn break_off(&mut self, error: io::Error) {
        self.broken = Some(error);
        self.head = Bytes::new();
        self.staged.clear();
    }

    pub(super) fn stage(&mut self, bytes: Bytes) {
        self.staged_bytes += bytes.len();
        self.staged.push_back(bytes);
    }

    pub(super) fn unstage(&mut self, mut written: usize) {
        self.staged_bytes = self.staged_bytes.saturating_sub(written);
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        written -= of_head;
        while let Some(front) = self.staged.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.staged.pop_front();
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.body_ended && !self.has_staged() && self.broken.is_none()
    }
}
