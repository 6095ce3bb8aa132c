//! What of a request is still to be written.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use crate::model::HeaderCase;

/// The request's bytes on their way out.
pub(super) struct Outgoing {
    pub(super) staged: VecDeque<Bytes>,
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
    pub(super) fn stage(&mut self, bytes: Bytes) {
        self.staged_bytes += bytes.len();
        self.staged.push_back(bytes);
    }

    pub(super) fn unstage(&mut self, mut written: usize) {
        self.staged_bytes = self.staged_bytes.saturating_sub(written);
        while let Some(front) = self.staged.front_mut() {
            if written < front.len() {
                bytes::Buf::advance(front, written);
                return;
            }
            written -= front.len();
            self.staged.pop_front();
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.body_ended && self.staged.is_empty() && self.broken.is_none()
    }
}
