//! What one data thread keeps for authentication.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::net::deadline::Deadlines;
use crate::upstream::Pool;

use super::hook::Hook;

/// State of one worker: its connections to hooks. Not `Send`.
pub struct AuthWorker {
    index: usize,
    deadlines: Deadlines,
    pools: RefCell<Vec<(Weak<Hook>, Rc<Pool>)>>,
}

impl AuthWorker {
    /// `index` counts the data threads from 0.
    pub fn new(index: usize, deadlines: Deadlines) -> Self {
        Self {
            index,
            deadlines,
            pools: RefCell::default(),
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// This worker's connections to a hook. Those to hooks that are gone are
    /// closed by the way.
    pub(super) fn pool(&self, hook: &Arc<Hook>, idle: Duration) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let is_same =
            |(known, _): &&(Weak<Hook>, Rc<Pool>)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(hook));
        if let Some((_, pool)) = pools.iter().find(is_same) {
            return Rc::clone(pool);
        }
        pools.retain(|(known, pool)| {
            let alive = known.strong_count() > 0;
            if !alive {
                pool.retire();
            }
            alive
        });
        let pool = Pool::new(Arc::clone(hook.upstream()), idle, self.deadlines.clone());
        pools.push((Arc::downgrade(hook), Rc::clone(&pool)));
        pool
    }
}
