//! Tells a connection which of its two halves was called for: the protocol, or
//! the requests on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A waker that remembers, and wakes the task only while that is not at work:
/// requests call for the protocol with every frame they hand it, and are looked
/// after in the same turn.
#[derive(Debug)]
pub(super) struct Call {
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    at_work: AtomicBool,
    task: AtomicWaker,
}

impl Call {
    /// Called for, as everything is at first.
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(true),
            at_work: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        Self {
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    /// To be polled with.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// The task is at work; until [`Call::rest`] it looks for calls itself.
    pub(super) fn begin(&self, context: &Context<'_>) {
        self.bell.task.register(context.waker());
        self.bell.at_work.store(true, Ordering::SeqCst);
    }

    /// The task goes to sleep, and is woken for a call it has not answered. The
    /// order of both sides keeps a call from another thread from being missed.
    pub(super) fn rest(&self, context: &Context<'_>) {
        self.bell.at_work.store(false, Ordering::SeqCst);
        if self.is_rung() {
            context.waker().wake_by_ref();
        }
    }

    pub(super) fn ring(&self) {
        self.bell.rung.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_rung(&self) -> bool {
        self.bell.rung.load(Ordering::SeqCst)
    }

    /// Whether somebody called; before the poll that answers it.
    pub(super) fn answer(&self) -> bool {
        self.is_rung() && self.bell.rung.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.at_work.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}
