//! One bounded queue and one thread that writes it out. A closed, full or
//! blocked standard output costs lines, which are counted, and nothing else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Lines waiting: a second of a busy worker's access log.
const QUEUE_LINES: usize = 8192;

/// Bytes waiting, so that long lines cannot fill memory.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

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

/// The producers' end. Never blocks.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    waiting_bytes: Arc<AtomicUsize>,
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
        let (sender, receiver) = sync_channel(QUEUE_LINES);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let mut writer = Writer {
            output,
            batch: Vec::with_capacity(BATCH_BYTES),
            torn: false,
            waiting_bytes: Arc::clone(&waiting_bytes),
            dropped: Arc::clone(&dropped),
        };
        let thread = thread::Builder::new()
            .name("outrigger-log".to_owned())
            .spawn(move || writer.run(&receiver, tick))?;
        Ok(Self {
            sender,
            waiting_bytes,
            dropped,
            writer: thread.thread().clone(),
        })
    }

    /// Queues a line, or drops and counts it.
    pub(super) fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let before = self.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if before + length > QUEUE_BYTES || self.sender.try_send(Message::Line(line)).is_err() {
            self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued so far was written or dropped, but no
    /// longer than `patience`. Blocks: for the end of the process.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, written) = sync_channel(1);
        while self.sender.try_send(Message::Flush(done.clone())).is_err() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        self.writer.unpark();
        let left = deadline.saturating_duration_since(Instant::now());
        written.recv_timeout(left).is_ok()
    }
}

struct Writer<W> {
    output: W,
    batch: Vec<u8>,
    /// The output ends in the middle of a line.
    torn: bool,
    waiting_bytes: Arc<AtomicUsize>,
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
                self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
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
    use std::sync::mpsc::Sender;

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
        let held = QUEUE_LINES + BATCH_BYTES / line.len() + 1;
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
            queue.push(vec![b'x'; QUEUE_BYTES / 10]);
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
        let (alive, ended) = std::sync::mpsc::channel();
        let queue = Queue::start(Ending(alive), Arc::default(), Vec::new).expect("a thread");
        queue.push(b"line\n".to_vec());
        drop(queue);
        assert_eq!(
            ended.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
