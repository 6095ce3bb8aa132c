//! From a worker to the exporter: per-worker buffers and one bounded queue.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Span;

/// Spans a worker gathers before it hands them over: waking the control thread
/// is a system call.
const BUFFER: usize = 64;
/// Messages in the queue. Spans are bounded by their own count; a message holds
/// one at least.
const MESSAGES: usize = 16 * 1024;

/// What the exporter is sent.
pub(super) enum Message {
    Spans(Held),
    /// To be told when everything before it was dealt with.
    Flush(oneshot::Sender<()>),
}

/// The producers' end of the queue. Never waits. Cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct SpanQueue {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Shared {
    /// Spans held at most; 0 while nobody wants any.
    capacity: AtomicUsize,
    /// Spans in the queue and with the exporter.
    held: AtomicUsize,
    dropped: Arc<AtomicU64>,
    hurry: CancellationToken,
}

/// Spans that count as held until they are let go.
pub(super) struct Held {
    pub(super) spans: Vec<Span>,
    shared: Arc<Shared>,
}

/// The exporter's end.
pub(super) struct Outlet {
    pub(super) receiver: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
}

/// A queue that counts what it loses in `dropped`; it takes nothing before
/// [`SpanQueue::set_capacity`].
pub fn channel(dropped: Arc<AtomicU64>) -> (SpanQueue, super::export::Source) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let shared = Arc::new(Shared {
        capacity: AtomicUsize::new(0),
        held: AtomicUsize::new(0),
        dropped,
        hurry: CancellationToken::new(),
    });
    let outlet = Outlet {
        receiver,
        shared: Arc::clone(&shared),
    };
    (SpanQueue { shared, sender }, super::export::Source(outlet))
}

impl SpanQueue {
    /// Spans held at most from now on; 0: none are wanted.
    pub fn set_capacity(&self, spans: usize) {
        self.shared.capacity.store(spans, Ordering::Relaxed);
    }

    /// Whether spans are wanted; ask before putting one together.
    pub fn wants_spans(&self) -> bool {
        self.shared.capacity.load(Ordering::Relaxed) > 0
    }

    /// Queues spans; those for which there is no room are dropped and counted.
    pub fn send(&self, spans: Vec<Span>) {
        let held = self.reserve(spans);
        let kept = held.spans.len();
        if kept > 0 && self.sender.try_send(Message::Spans(held)).is_err() {
            self.count_dropped(kept);
        }
    }

    fn reserve(&self, mut spans: Vec<Span>) -> Held {
        let shared = &self.shared;
        let wanted = spans.len();
        let before = shared.held.fetch_add(wanted, Ordering::Relaxed);
        let room = shared
            .capacity
            .load(Ordering::Relaxed)
            .saturating_sub(before);
        if room < wanted {
            shared.held.fetch_sub(wanted - room, Ordering::Relaxed);
            self.count_dropped(wanted - room);
            spans.truncate(room);
        }
        Held {
            spans,
            shared: Arc::clone(shared),
        }
    }

    fn count_dropped(&self, count: usize) {
        self.shared
            .dropped
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Waits until everything queued so far was sent or given up, at most
    /// `patience`; retries come to their end. Returns whether it was. For the
    /// end of the process.
    pub async fn flush(&self, patience: Duration) -> bool {
        self.shared.hurry.cancel();
        let (done, flushed) = oneshot::channel();
        let flush = async {
            let sent = self.sender.send(Message::Flush(done)).await;
            sent.is_ok() && flushed.await.is_ok()
        };
        tokio::time::timeout(patience, flush).await == Ok(true)
    }
}

impl Held {
    /// Takes over what another holds.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.spans.append(&mut other.spans);
    }

    /// Lets go of spans that came to nothing.
    pub(super) fn lose(self, count: usize) {
        self.shared
            .dropped
            .fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared
            .held
            .fetch_sub(self.spans.len(), Ordering::Relaxed);
    }
}

impl Outlet {
    /// Resolves when the process is about to end.
    pub(super) async fn hurried(&self) {
        self.shared.hurry.cancelled().await;
    }

    pub(super) fn is_hurried(&self) -> bool {
        self.shared.hurry.is_cancelled()
    }
}

/// One worker's spans on their way to the queue. Not `Send`.
#[derive(Debug)]
pub struct SpanBuffer {
    queue: SpanQueue,
    spans: RefCell<Vec<Span>>,
    hurried: Cell<bool>,
}

impl SpanBuffer {
    /// An empty one.
    pub fn new(queue: SpanQueue) -> Self {
        Self {
            queue,
            spans: RefCell::default(),
            hurried: Cell::new(false),
        }
    }

    /// Whether spans are wanted; ask before putting one together.
    pub fn wants_spans(&self) -> bool {
        self.queue.wants_spans()
    }

    /// Adds a span; hands all of them over when there are enough.
    pub fn push(&self, span: Span) {
        let mut spans = self.spans.borrow_mut();
        if spans.capacity() == 0 && !self.hurried.get() {
            spans.reserve_exact(BUFFER);
        }
        spans.push(span);
        if spans.len() >= BUFFER || self.hurried.get() {
            let full = std::mem::take(&mut *spans);
            drop(spans);
            self.queue.send(full);
        }
    }

    /// Hands over what there is; to be called every second or so.
    pub fn flush(&self) {
        let spans = std::mem::take(&mut *self.spans.borrow_mut());
        if !spans.is_empty() {
            self.queue.send(spans);
        }
    }

    /// The process is coming to its end: hands over what there is, and from now
    /// on every span at once.
    pub fn hurry(&self) {
        self.hurried.set(true);
        self.flush();
    }
}
