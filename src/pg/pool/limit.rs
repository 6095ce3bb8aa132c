//! A fair limit that can be changed while it is in use.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Places that are given out in order of asking. Who has a place and is done
/// may hand on what it did with it, of type `T`, which then holds the place.
pub(super) struct Limit<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    size: usize,
    /// More than the size while places that were taken away are in use.
    held: usize,
    /// Who waits, in order of asking. Some may have gone.
    queue: VecDeque<oneshot::Sender<Turn<T>>>,
}

/// What waiting ends in.
pub(super) enum Turn<T> {
    Place(Place<T>),
    Handed(T),
}

/// A place; free again when dropped.
pub(super) struct Place<T> {
    limit: Option<Arc<Limit<T>>>,
}

impl<T> Limit<T> {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                size,
                held: 0,
                queue: VecDeque::new(),
            }),
        })
    }

    /// The next turn; first come, first served.
    pub(super) async fn acquire(self: &Arc<Self>) -> Turn<T> {
        if let Some(place) = self.try_acquire() {
            return Turn::Place(place);
        }
        let turn = {
            let mut inner = self.locked();
            // Whoever waited longest gives up first, so none pile up.
            while inner.queue.front().is_some_and(oneshot::Sender::is_closed) {
                inner.queue.pop_front();
            }
            let (sender, turn) = oneshot::channel();
            inner.queue.push_back(sender);
            turn
        };
        // One may have become free just before.
        self.admit();
        turn.await.expect("the queue is kept by who waits in it")
    }

    /// A place, if one is free and nobody waits.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Place<T>> {
        let mut inner = self.locked();
        let wanted = inner.is_wanted();
        if wanted || inner.held >= inner.size {
            return None;
        }
        inner.held += 1;
        Some(self.place())
    }

    fn place(self: &Arc<Self>) -> Place<T> {
        Place {
            limit: Some(Arc::clone(self)),
        }
    }

    /// Whether somebody waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.locked().is_wanted()
    }

    /// Hands something, with the place that it holds, to who waits longest.
    /// Given back when nobody waits, or its place was taken away.
    pub(super) fn hand_on(&self, mut thing: T) -> Option<T> {
        loop {
            let next = {
                let mut inner = self.locked();
                match inner.held > inner.size {
                    true => None,
                    false => inner.queue.pop_front(),
                }
            };
            let Some(next) = next else {
                return Some(thing);
            };
            match next.send(Turn::Handed(thing)) {
                Ok(()) => return None,
                // Gone; the next one, then.
                Err(Turn::Handed(back)) => thing = back,
                Err(Turn::Place(_)) => unreachable!("it was not sent"),
            }
        }
    }

    /// Places in use.
    pub(super) fn held(&self) -> usize {
        self.locked().held
    }

    /// Places in all.
    pub(super) fn size(&self) -> usize {
        self.locked().size
    }

    /// Another number of places. Places in use are taken away when they come
    /// back.
    pub(super) fn resize(self: &Arc<Self>, size: usize) {
        self.locked().size = size;
        self.admit();
    }

    /// Gives free places to those who wait.
    fn admit(self: &Arc<Self>) {
        loop {
            let next = {
                let mut inner = self.locked();
                if inner.held >= inner.size {
                    return;
                }
                let Some(next) = inner.queue.pop_front() else {
                    return;
                };
                inner.held += 1;
                next
            };
            if let Err(Turn::Place(mut place)) = next.send(Turn::Place(self.place())) {
                // Gone. It is not dropped, which would lead back here.
                place.limit = None;
                self.locked().held -= 1;
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn is_wanted(&self) -> bool {
        self.queue.iter().any(|waiting| !waiting.is_closed())
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if let Some(limit) = self.limit.take() {
            limit.locked().held -= 1;
            limit.admit();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Something with its place.
    struct Thing {
        name: &'static str,
        _place: Place<Thing>,
    }

    fn free(limit: &Arc<Limit<Thing>>) -> usize {
        limit.size().saturating_sub(limit.held())
    }

    fn placed(limit: &Arc<Limit<Thing>>) -> Place<Thing> {
        limit.try_acquire().expect("one is free")
    }

    #[test]
    fn places_in_use_are_taken_away_when_they_come_back() {
        let limit = Limit::new(3);
        let first = placed(&limit);
        let second = placed(&limit);
        limit.resize(1);
        assert!(limit.try_acquire().is_none());
        drop(first);
        assert!(limit.try_acquire().is_none());
        drop(second);
        assert_eq!((free(&limit), limit.size()), (1, 1));
        let only = placed(&limit);
        assert!(limit.try_acquire().is_none());
        limit.resize(0);
        limit.resize(2);
        assert_eq!(free(&limit), 1);
        drop(only);
        assert_eq!(free(&limit), 2);
    }

    #[test]
    fn who_waits_is_served_in_order_and_who_is_gone_is_not() {
        let limit = Limit::new(1);
        let only = placed(&limit);
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(limit.acquire())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(limit.is_wanted());
        // The first one gives up; a newcomer does not overtake.
        drop(waiting.remove(0));
        drop(only);
        assert!(limit.try_acquire().is_none());
        let second = waiting.remove(0).now_or_never();
        let Some(Turn::Place(place)) = second else {
            panic!("its turn");
        };
        // The last one gives up with a place already its own.
        drop(place);
        assert_eq!(free(&limit), 0);
        drop(waiting);
        assert_eq!((free(&limit), limit.is_wanted()), (1, false));
    }

    #[test]
    fn what_is_handed_on_keeps_its_place() {
        let limit = Limit::new(1);
        let thing = Thing {
            name: "a session",
            _place: placed(&limit),
        };
        // Nobody waits.
        let thing = limit.hand_on(thing).expect("given back");
        let gone = Box::pin(limit.acquire()).now_or_never();
        assert!(gone.is_none());
        let mut next = Box::pin(limit.acquire());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(limit.hand_on(thing).is_none());
        let Some(Turn::Handed(thing)) = next.now_or_never() else {
            panic!("handed on");
        };
        assert_eq!((thing.name, limit.held()), ("a session", 1));
        // One that goes with it in hand leaves nothing.
        let mut next = Box::pin(limit.acquire());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(limit.hand_on(thing).is_none());
        drop(next);
        assert_eq!(limit.held(), 0);
        // A place that was taken away is not handed on.
        let thing = Thing {
            name: "another",
            _place: placed(&limit),
        };
        let mut next = Box::pin(limit.acquire());
        assert!(next.as_mut().now_or_never().is_none());
        limit.resize(0);
        assert!(limit.hand_on(thing).is_some());
        assert_eq!(limit.held(), 0);
    }
}
