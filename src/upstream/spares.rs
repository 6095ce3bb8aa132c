//! Memory that requests to an upstream use again.

use std::cell::RefCell;

use bytes::BytesMut;

/// Read buffers that are kept: they are of some size, and not in use for long.
const KEPT_BUFFERS: usize = 8;
/// Requests' heads that are kept: as many as are usually under way at one time
/// in one worker.
const KEPT_HEADS: usize = 64;
/// Memory of a request's head that is kept; few are larger.
const KEPT_HEAD_BYTES: usize = 4 * 1024;

/// What exchanges over one pool leave to the next ones.
#[derive(Default)]
pub(super) struct Spares {
    /// Read buffers that connections gave back; what was read into them may
    /// still be on its way to a client, and keeps them from being used again.
    buffers: RefCell<Vec<BytesMut>>,
    /// What heads of requests were written into.
    heads: RefCell<Vec<Vec<u8>>>,
}

impl Spares {
    /// A read buffer that was used before, or an empty one.
    pub(super) fn buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a read buffer, if there is none too many.
    pub(super) fn keep_buffer(&self, buffer: BytesMut) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < KEPT_BUFFERS {
            buffers.push(buffer);
        }
    }

    /// Memory for the head of a request: used before, or none.
    pub(super) fn head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps memory of a head, if it is of the usual size.
    pub(super) fn keep_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < KEPT_HEADS && head.capacity() <= KEPT_HEAD_BYTES {
            head.clear();
            heads.push(head);
        }
    }

    /// Keeps nothing of it any longer.
    pub(super) fn clear(&self) {
        self.buffers.borrow_mut().clear();
        self.heads.borrow_mut().clear();
    }
}
