//! One bounded queue and one thread that writes it out. A closed, full or
//! blocked standard output costs lines, which are counted, and nothing else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Lines waiting: a second of a busy worker's access log.
const QUEUE_LINES: u64 = 8192;

/// Bytes waiting, so that long lines cannot fill memory.
const QUEUE_BYTES: u64 = 4 * 1024 * 1024;

/// In [`Waiting`], bytes stand below and lines above.
const LINE: u64 = 1 << 32;

/// Bytes written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// How long the writer rests while lines keep coming. It looks by itself
/// instead of being woken, so that a worker pays no system call for a line.
const REST: Duration = Duration::from_millis(5);

/// Rests without a line before the writer lets itself be woken instead.
const RESTS_UNTIL_ASLEEP: u32 = 20;

/// The longest sleep: how late a summary can be.
const SLEEP: Duration = Duration::from_secs(1);

/// How long an output that takes nothing (`EAGAIN`) is given before what waits
/// for it is dropped.
const STALL: Duration = Duration::from_millis(100);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// What is in the queue: lines and bytes in one number, so that a line is let in
/// by one instruction.
///
/// It is what bounds the queue. A channel with a bound of its own takes the
/// memory of a full one (256 KiB) the moment it is made.
#[derive(Debug, Default)]
struct Waiting(AtomicU64);

impl Waiting {
    /// Takes a place for a line, or says that there is none.
    fn enter(&self, line: &[u8]) -> bool {
        let weight = weight(line);
        let after = self.0.fetch_add(weight, Ordering::Relaxed) + weight;
        let fits = after / LINE <= QUEUE_LINES && after % LINE <= QUEUE_BYTES;
        if !fits {
            self.leave(line);
        }
        fits
    }

    fn leave(&self, line: &[u8]) {
        self.0.fetch_sub(weight(line), Ordering::Relaxed);
    }
}

/// Lines of 4 GiB there are none.
fn weight(line: &[u8]) -> u64 {
    LINE + line.len() as u64
}

/// The producers' end. Never blocks.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: Sender<Message>,
    waiting: Arc<Waiting>,
    dropped: Arc<AtomicU64>,
    writer: Thread,
}

impl Queue {
    /// Starts the writer. It ends when the last producer is gone. `tick` is
    /// called about once a second and may return lines of its own.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        dropped: Arc<AtomicU64>,
        tick: impl FnMut() -> Vec<Vec<u8>> + Send + 'static,
    ) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "`Waiting` bounds it")]
        let (sender, receiver) = channel();
        let waiting = Arc::new(Waiting::default());
        let mut writer = Writer {
            output,
            batch: Vec::with_capacity(BATCH_BYTES),
            torn: false,
            waiting: Arc::clone(&waiting),
            dropped: Arc::clone(&dropped),
        };
        let thread = thread::Builder::new()
            .name("outrigger-log".to_owned())
            .spawn(move || writer.run(&receiver, tick))?;
        Ok(Self {
            sender,
            waiting,
            dropped,
            writer: thread.thread().clone(),
        })
    }

    /// Queues a line, or drops and counts it.
    pub(super) fn push(&self, line: Vec<u8>) {
        // Fails only where the writer is gone.
        if !self.waiting.enter(&line) || self.sender.send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued so far was written or dropped, but no
    /// longer than `patience`. Blocks: for the end of the process.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let (done, written) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_err() {
            return false;
        }
        self.writer.unpark();
        written.recv_timeout(patience).is_ok()
    }
}

struct Writer<W> {
    output: W,
    batch: Vec<u8>,
    /// The output ends in the middle of a line.
    torn: bool,
    waiting: Arc<Waiting>,
    dropped: Arc<AtomicU64>,
}

impl<W: Write> Writer<W> {
    fn run(&mut self, receiver: &Receiver<Message>, mut tick: impl FnMut() -> Vec<Vec<u8>>) {
        let mut rests = 0;
        let mut ticked = Instant::now();
        loop {
            match receiver.try_recv() {
                Ok(message) => {
                    rests = 0;
                    self.take(message);
                }
                Err(TryRecvError::Empty) => {
                    self.write_batch();
                    if ticked.elapsed() >= SLEEP {
                        ticked = Instant::now();
                        tick().iter().for_each(|line| self.append(line));
                        self.write_batch();
                    }
                    if rests < RESTS_UNTIL_ASLEEP {
                        rests += 1;
                        thread::park_timeout(REST);
                        continue;
                    }
                    match receiver.recv_timeout(SLEEP) {
                        Ok(message) => {
                            rests = 0;
                            self.take(message);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                Err(TryRecvError::Disconnected) => {
                    self.write_batch();
                    return;
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                self.waiting.leave(&line);
                self.append(&line);
            }
            Message::Flush(done) => {
                self.write_batch();
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn append(&mut self, line: &[u8]) {
        if self.batch.len() + line.len() > BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(line);
    }

    /// Writes what is gathered; what the output does not take is dropped.
    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.torn {
            self.batch.insert(0, b'\n');
        }
        let written = self.write_as_much_as_possible();
        let (taken, lost) = self.batch.split_at(written.min(self.batch.len()));
        if let Some(last) = taken.last() {
            self.torn = *last != b'\n';
        }
        let lines = lost.iter().filter(|byte| **byte == b'\n').count();
        self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        self.batch.clear();
    }

    fn write_as_much_as_possible(&mut self) -> usize {
        let mut written = 0;
        let mut stalled_since = None;
        while let Some(rest) = self.batch.get(written..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(count) => {
                    written += count;
                    stalled_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let since = *stalled_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= STALL {
                        break;
                    }
                    thread::park_timeout(Duration::from_millis(1));
                }
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Script = Box<dyn FnMut(&[u8]) -> io::Result<usize> + Send>;

    /// An output that does what a closure says.
    struct Scripted(Script);

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0)(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(script: Script) -> (Queue, Arc<AtomicU64>) {
        let dropped = Arc::new(AtomicU64::new(0));
        let queue =
            Queue::start(Scripted(script), Arc::clone(&dropped), Vec::new).expect("a thread");
        (queue, dropped)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_come_out_in_order() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let (queue, dropped) = start(Box::new(move |bytes| {
            sink.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }));
        for number in 0..1000 {
            queue.push(format!("{number}\n").into_bytes());
        }
        assert!(queue.flush(PATIENCE));
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(*written.lock().unwrap(), expected.into_bytes());
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_blocked_output_stalls_nobody() {
        let (release, blocked) = sync_channel::<()>(0);
        let (queue, dropped) = start(Box::new(move |bytes| {
            // Until the test lets go.
            let _ = blocked.recv();
            Ok(bytes.len())
        }));
        let began = Instant::now();
        let line = b"line\n";
        // The queue's worth, the batch being written, and then some.
        let held = QUEUE_LINES as usize + BATCH_BYTES / line.len() + 1;
        for _ in 0..held + 1000 {
            queue.push(line.to_vec());
        }
        assert!(began.elapsed() < PATIENCE);
        assert!(dropped.load(Ordering::Relaxed) >= 1000);
        assert!(!queue.flush(Duration::from_millis(20)));
        drop(release);
        assert!(queue.flush(PATIENCE));
    }

    #[test]
    fn waiting_bytes_are_bounded() {
        let (release, blocked) = sync_channel::<()>(0);
        let (queue, dropped) = start(Box::new(move |bytes| {
            let _ = blocked.recv();
            Ok(bytes.len())
        }));
        for _ in 0..100 {
            queue.push(vec![b'x'; QUEUE_BYTES as usize / 10]);
        }
        assert!(dropped.load(Ordering::Relaxed) >= 80);
        drop(release);
    }

    #[test]
    fn a_closed_output_counts_every_line() {
        let (queue, dropped) = start(Box::new(|_| Err(io::ErrorKind::BrokenPipe.into())));
        for _ in 0..50 {
            queue.push(b"line\n".to_vec());
        }
        assert!(queue.flush(PATIENCE));
        assert_eq!(dropped.load(Ordering::Relaxed), 50);
    }

    #[test]
    fn a_full_disk_tears_at_most_one_line() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let mut room = 7;
        let (queue, dropped) = start(Box::new(move |bytes| {
            let mut sink = sink.lock().unwrap();
            if room == 0 {
                room = usize::MAX;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(room);
            room -= count;
            sink.extend_from_slice(&bytes[..count]);
            Ok(count)
        }));
        queue.push(b"first\nsecond\n".to_vec());
        assert!(queue.flush(PATIENCE));
        queue.push(b"third\n".to_vec());
        assert!(queue.flush(PATIENCE));
        assert_eq!(*written.lock().unwrap(), b"first\ns\nthird\n");
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_writer_ends_with_its_producers() {
        struct Ending(#[allow(dead_code, reason = "its drop is the signal")] Sender<()>);
        impl Write for Ending {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        #[allow(clippy::disallowed_methods, reason = "nothing is ever sent")]
        let (alive, ended) = channel();
        let queue = Queue::start(Ending(alive), Arc::default(), Vec::new).expect("a thread");
        queue.push(b"line\n".to_vec());
        drop(queue);
        assert_eq!(
            ended.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
