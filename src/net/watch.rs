//! What a client connection is doing, and which time limit it is under.

use std::cell::{Cell, OnceCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::client_io;
use super::connection::LINGER_TIME;
use super::deadline::{Deadline, Deadlines, TICK};
use super::flood::FloodGuard;

/// Time limits of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// First byte and complete head.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// A client that does not read.
    pub write_stall: Duration,
}

/// What the connection is doing, shared by its IO, its service and its task.
#[derive(Debug)]
pub struct Watch {
    phase: Cell<IoPhase>,
    /// Requests being served; more than one on HTTP/2 only.
    serving: Cell<u32>,
    multiplexed: Cell<bool>,
    last_request: Cell<bool>,
    /// Its writing side is closed.
    lingering: Cell<bool>,
    /// Whether any byte came.
    heard: Cell<bool>,
    /// Whether any request came.
    asked: Cell<bool>,
    /// On HTTP/2 only.
    flood_guard: OnceCell<FloodGuard>,
    flooded: Cell<bool>,
    timeouts: ClientTimeouts,
    /// There was an answer before.
    came_back: Cell<bool>,
    /// The request being served has no body: of one that has, the parser may
    /// not have seen the end when its answer has been given.
    bodiless: Cell<bool>,
    /// Not to wait for silence.
    parks_now: Cell<bool>,
    /// When the idle time is over, on the worker's clock.
    idle_ends_ms: Cell<u64>,
    read: Deadline,
    write: Deadline,
}

/// A request being served: over when this is dropped, with the last byte of its
/// answer or because the client gave it up.
#[derive(Debug)]
pub struct Underway(Rc<Watch>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Which time limit the reading side is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IoPhase {
    /// No complete head yet on a new connection, or the first bytes of one on
    /// an old connection.
    Head,
    /// Between requests.
    Idle,
    /// A request is being served; its own limits hold.
    Busy,
}

/// A connection that was silent for this long between requests is parked; at
/// once after its first answer.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stalled {
    /// No complete request head in time.
    Head,
    /// Nothing between requests.
    Idle,
    /// Nothing between requests for a while: no limit, but what the connection
    /// needs while it is used can be given back.
    Quiet,
    /// The client does not read.
    Write,
}

impl Watch {
    /// A new connection, waiting for its first head.
    pub fn new(timeouts: ClientTimeouts, deadlines: &Deadlines) -> Rc<Self> {
        let watch = Self {
            phase: Cell::new(IoPhase::Head),
            serving: Cell::new(0),
            multiplexed: Cell::new(false),
            last_request: Cell::new(false),
            lingering: Cell::new(false),
            heard: Cell::new(false),
            asked: Cell::new(false),
            flood_guard: OnceCell::new(),
            flooded: Cell::new(false),
            timeouts,
            came_back: Cell::new(false),
            bodiless: Cell::new(false),
            parks_now: Cell::new(false),
            idle_ends_ms: Cell::new(0),
            read: deadlines.add(),
            write: deadlines.add(),
        };
        watch.read.arm(timeouts.header);
        Rc::new(watch)
    }

    /// A complete head is there; whether a body follows.
    pub fn request_begun(self: &Rc<Self>, bodiless: bool) -> Underway {
        self.bodiless.set(bodiless);
        self.serving.set(self.serving.get() + 1);
        self.asked.set(true);
        // Of a connection that is being closed nothing is waited for any more.
        if !self.lingering.get() {
            self.phase.set(IoPhase::Busy);
            self.read.disarm();
        }
        Underway(Rc::clone(self))
    }

    fn request_ended(&self) {
        self.serving.set(self.serving.get().saturating_sub(1));
        if self.serving.get() == 0 && !self.lingering.get() {
            self.idles();
        }
    }

    fn idles(&self) {
        self.phase.set(IoPhase::Idle);
        let idle = self.timeouts.idle;
        if self.multiplexed.get() {
            return self.read.arm(idle);
        }
        self.idle_ends_ms.set(self.read.ends_ms(idle));
        // Whether a client comes back soon is seen when it has; among many
        // connections each gives back sooner what others need.
        let first = !self.came_back.replace(true);
        self.parks_now.set(first && self.bodiless.get());
        let quiet = match self.read.is_crowded() {
            true => TICK,
            false => PARK_AFTER,
        };
        match quiet < idle {
            true => self.read.arm_roughly(quiet),
            false => self.read.arm(idle),
        }
    }

    /// The connection is parked: until the idle time is over nothing is due.
    pub fn parks(&self) {
        self.parks_now.set(false);
        let left_ms = self.idle_ends_ms.get().saturating_sub(self.read.now_ms());
        self.read.arm(Duration::from_millis(left_ms));
    }

    /// The connection turned out to be HTTP/2: it may be silent, or send
    /// frames that are no request, for the idle time.
    pub fn multiplexes(&self) {
        self.multiplexed.set(true);
        self.flood_guard
            .get_or_init(|| FloodGuard::new(self.read.now_ms(), client_io::PREFACE.len()));
        self.idles();
    }

    /// The client of a silent HTTP/2 connection was told that it ends: for so
    /// long it may answer, or be heard with a request that was on its way.
    pub(super) fn takes_leave(&self) {
        self.read.arm(LINGER_TIME);
    }

    /// Whether the connection's writing side is closed.
    pub(super) fn is_lingering(&self) -> bool {
        self.lingering.get()
    }

    /// The writing side of the connection is closed. Whether to wait for the
    /// client to close its own, which [`Watch::poll_stalled`] bounds.
    pub(super) fn lingers(&self) -> bool {
        if self.multiplexed.get() && !self.lingering.replace(true) {
            self.phase.set(IoPhase::Idle);
            self.read.arm(LINGER_TIME);
        }
        self.multiplexed.get()
    }

    /// Appends the time, as `Date` has it.
    pub(super) fn append_date(&self, out: &mut Vec<u8>) {
        self.read.append_date(out);
    }

    /// How long a client may leave what it asked for unread.
    pub(super) fn write_stall(&self) -> Duration {
        self.timeouts.write_stall
    }

    /// A disarmed deadline of the same worker.
    pub(super) fn another_deadline(&self) -> Deadline {
        self.write.another()
    }

    /// No further request is wanted on this HTTP/2 connection.
    pub fn end_after_this(&self) {
        self.last_request.set(true);
    }

    /// Whether [`Watch::end_after_this`] was called.
    pub fn ends(&self) -> bool {
        self.last_request.get()
    }

    /// The client sent its first bytes.
    pub(super) fn is_heard(&self) {
        self.heard.set(true);
    }

    /// Whether the client sent anything at all.
    pub fn heard(&self) -> bool {
        self.heard.get()
    }

    /// Whether there was a request.
    pub fn asked(&self) -> bool {
        self.asked.get()
    }

    /// Whether a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        self.heard.get() && self.phase.get() == IoPhase::Head
    }

    /// Ready when a limit is reached; wakes the task for that, and when
    /// somebody calls [`Deadlines::wake_all`].
    pub fn poll_stalled(&self, context: &mut Context<'_>) -> Poll<Stalled> {
        if self.write.poll_expired(context).is_ready() {
            return Poll::Ready(Stalled::Write);
        }
        let read_expired = self.read.poll_expired(context).is_ready();
        match self.phase.get() {
            // An answer is still on its way: nothing can be said after half of it.
            IoPhase::Head if read_expired && self.write.is_armed() => Poll::Ready(Stalled::Write),
            IoPhase::Head if read_expired => Poll::Ready(Stalled::Head),
            IoPhase::Idle if self.is_quiet(read_expired) => Poll::Ready(Stalled::Quiet),
            IoPhase::Idle if read_expired && self.is_idle_over() => Poll::Ready(Stalled::Idle),
            IoPhase::Head | IoPhase::Idle | IoPhase::Busy => Poll::Pending,
        }
    }

    fn is_idle_over(&self) -> bool {
        self.multiplexed.get() || self.read.now_ms() >= self.idle_ends_ms.get()
    }

    /// Whether to park, all of the answer having been taken.
    fn is_quiet(&self, read_expired: bool) -> bool {
        !self.multiplexed.get()
            && (read_expired || self.parks_now.get())
            && self.read.now_ms() < self.idle_ends_ms.get()
            && !self.write.is_armed()
    }

    /// The client sends frames that only cost: nothing more is read.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    pub(super) fn look_at(&self, bytes: &[u8]) {
        if let Some(guard) = self.flood_guard.get()
            && !guard.admits(bytes, self.read.now_ms())
        {
            self.flooded.set(true);
        }
    }

    pub(super) fn bytes_came(&self) {
        self.heard.set(true);
        if self.phase.get() == IoPhase::Idle && !self.multiplexed.get() {
            self.phase.set(IoPhase::Head);
            self.read.arm(self.timeouts.header);
        }
    }

    /// Of a stream that holds bytes back: a client that does not read is seen
    /// only here.
    pub(super) fn flushed(&self, outcome: &Poll<io::Result<()>>) {
        if outcome.is_ready() {
            self.write.disarm();
        } else if !self.write.is_armed() {
            self.write.arm(self.timeouts.write_stall);
        }
    }

    pub(super) fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let (Poll::Ready(Ok(count)), Some(guard)) = (outcome, self.flood_guard.get()) {
            guard.sent(*count);
        }
        if outcome.is_ready() {
            if self.write.is_armed() {
                self.write.disarm();
            }
        } else if !self.write.is_armed() {
            self.write.arm(self.timeouts.write_stall);
        }
    }
}
