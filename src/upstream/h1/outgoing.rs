//! What of a request is still to be written.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};

use super::encode::Framing;
use crate::model::HeaderCase;

/// The request's bytes on their way out.
pub(super) struct Outgoing {
    /// Written first. Beside the rest, which most requests do not have.
    head: Vec<u8>,
    /// Of the head.
    written: usize,
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
    pub(super) fn new(head: Vec<u8>, framing: Framing, upgrade: bool, case: HeaderCase) -> Self {
        Self {
            staged_bytes: head.len(),
            head,
            written: 0,
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

    /// The memory of the head, to be used again.
    pub(super) fn into_head(self) -> Vec<u8> {
        self.head
    }

    /// Whether bytes wait to be written.
    pub(super) fn has_staged(&self) -> bool {
        self.written < self.head.len() || !self.staged.is_empty()
    }

    /// What waits, in order.
    pub(super) fn staged(&self) -> impl Iterator<Item = &[u8]> {
        let head = self.head.get(self.written..).unwrap_or_default();
        let head = (!head.is_empty()).then_some(head);
        head.into_iter()
            .chain(self.staged.iter().map(|one| &one[..]))
    }

    /// Nobody reads any more: nothing waits.
    pub(super) fn break_off(&mut self, error: io::Error) {
        self.broken = Some(error);
        self.written = self.head.len();
        self.staged.clear();
    }

    pub(super) fn stage(&mut self, bytes: Bytes) {
        self.staged_bytes += bytes.len();
        self.staged.push_back(bytes);
    }

    pub(super) fn unstage(&mut self, mut written: usize) {
        self.staged_bytes = self.staged_bytes.saturating_sub(written);
        let of_head = written.min(self.head.len() - self.written);
        self.written += of_head;
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
