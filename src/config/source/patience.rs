//! Asking the file system on a thread that may hang, so that whoever asks does
//! not: a mount whose server is gone never answers, and nothing ends the wait.
//!
//! One thread answers everybody in turn. When it does not answer in time it is
//! left behind with its question, another takes its place, and until it comes
//! back nothing more is asked of that path and what is below it. So ask for a
//! folder before the files in it: then many files of one dead mount cost one wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// For one answer. A busy disk needs tens of milliseconds; a change of another
/// service waits this long once.
const PATIENCE: Duration = Duration::from_millis(300);

/// Threads left behind at most; then nothing is asked until one comes back.
const MAX_HUNG: usize = 16;

type Question = Box<dyn FnOnce() + Send>;

/// Asks, with limited patience. Clones share what they know to hang.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Takes one question at a time.
    thread: Option<SyncSender<Question>>,
    hung: Vec<Hung>,
    /// Whether any question went without an answer since [`Patience::was_tried`].
    tried: bool,
}

/// A thread that was left behind.
struct Hung {
    path: PathBuf,
    is_back: Box<dyn FnMut() -> bool + Send>,
}

impl fmt::Debug for Hung {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.path, formatter)
    }
}

impl Patience {
    /// The answer to a question about `path`; `None` when there is none in time,
    /// or when the path is known not to answer.
    pub fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = state.ask(path, question);
        state.tried |= answer.is_none();
        answer
    }

    /// Whether a question went without an answer since the last call.
    pub fn was_tried(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.tried)
    }
}

impl State {
    fn ask<T: Send + 'static>(
        &mut self,
        path: &Path,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.hung.retain_mut(|hung| !(hung.is_back)());
        let hangs = self.hung.iter().any(|hung| path.starts_with(&hung.path));
        if hangs || self.hung.len() >= MAX_HUNG {
            return None;
        }
        let thread = self.thread.take().or_else(begin)?;
        let (answer, answered) = sync_channel(1);
        let job = Box::new(move || {
            // Whoever asked may have lost patience.
            let _ = answer.send(question());
        });
        // The thread waits for nothing but this; it is gone only after a panic.
        thread.send(job).ok()?;
        if let Ok(value) = answered.recv_timeout(PATIENCE) {
            self.thread = Some(thread);
            return Some(value);
        }
        self.hung.push(Hung {
            path: path.to_owned(),
            is_back: Box::new(move || is_back(&answered)),
        });
        None
    }
}

/// Late answers are thrown away: the next question asks again.
fn is_back<T>(answered: &Receiver<T>) -> bool {
    !matches!(answered.try_recv(), Err(TryRecvError::Empty))
}

/// A thread that ends when nobody asks it any more.
fn begin() -> Option<SyncSender<Question>> {
    let (questions, asked) = sync_channel::<Question>(1);
    thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            for question in asked {
                question();
            }
        })
        .ok()?;
    Some(questions)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_folder_that_hangs_is_asked_once() {
        let patience = Patience::default();
        assert_eq!(patience.ask(Path::new("/good/file"), || 1), Some(1));
        assert!(!patience.was_tried());
        let (release, released) = sync_channel::<()>(1);
        let begun = Instant::now();
        let answer = patience.ask(Path::new("/mount"), move || released.recv());
        assert!(answer.is_none() && begun.elapsed() >= PATIENCE);
        assert!(patience.was_tried() && !patience.was_tried());
        // Neither what is in it nor anything else waits now.
        let begun = Instant::now();
        assert_eq!(patience.ask(Path::new("/mount/two"), || 2), None);
        assert_eq!(patience.ask(Path::new("/good/file"), || 3), Some(3));
        assert!(begun.elapsed() < PATIENCE);
        // Once it answers, it is asked again.
        release.send(()).expect("the thread waits");
        let begun = Instant::now();
        while patience.ask(Path::new("/mount/one"), || 4) != Some(4) {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "never asked again"
            );
            thread::yield_now();
        }
    }

    #[test]
    fn a_panic_is_no_answer() {
        let patience = Patience::default();
        let answer = patience.ask(Path::new("/a/b"), || -> u8 { panic!("as a test") });
        assert_eq!(answer, None);
        assert_eq!(patience.ask(Path::new("/c/d"), || 1), Some(1));
    }
}
