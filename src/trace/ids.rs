//! Trace, span and request ids, made without asking the kernel.

use std::cell::RefCell;

/// Random ids of one worker. Not for secrets: ids must be distinct, not
/// unguessable.
#[derive(Debug)]
pub struct IdGenerator {
    random: RefCell<fastrand::Rng>,
}

impl Default for IdGenerator {
    fn default() -> Self {
        Self::new()
    }
}

impl IdGenerator {
    /// A generator with a seed of its own (`fastrand` seeds from the hash of
    /// time and thread, and from a global generator).
    pub fn new() -> Self {
        Self {
            random: RefCell::new(fastrand::Rng::new()),
        }
    }

    /// A generator that repeats itself, for tests.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
        }
    }

    /// 16 random bytes, not all zero (W3C trace-context §3.2.2.3). All bits are
    /// random, so a sampler may use any of them.
    pub fn trace_id(&self) -> [u8; 16] {
        loop {
            let id = self.random.borrow_mut().u128(..);
            if id != 0 {
                return id.to_be_bytes();
            }
        }
    }

    /// 8 random bytes, not all zero (W3C trace-context §3.2.2.4).
    pub fn span_id(&self) -> [u8; 8] {
        loop {
            let id = self.random.borrow_mut().u64(..);
            if id != 0 {
                return id.to_be_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_differ_and_ids_repeat_with_a_seed() {
        assert_ne!(IdGenerator::new().trace_id(), IdGenerator::new().trace_id());
        let (first, second) = (IdGenerator::with_seed(7), IdGenerator::with_seed(7));
        assert_eq!(first.trace_id(), second.trace_id());
        assert_eq!(first.span_id(), second.span_id());
        assert_ne!(first.span_id(), first.span_id());
    }
}
