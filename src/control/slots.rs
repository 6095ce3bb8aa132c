//! Each service's place in the workers.

use std::collections::{BTreeMap, VecDeque};

use crate::model::ServiceName;
use crate::snapshot::SlotId;

/// A place is given to another service only after this many others were freed:
/// long after the last connection of its former owner.
const QUARANTINE: usize = 1024;

/// Hands out [`SlotId`]s.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: BTreeMap<ServiceName, SlotId>,
    /// Freed, oldest first.
    free: VecDeque<SlotId>,
    /// Indices handed out so far.
    next: u32,
}

impl Slots {
    /// The place of a service; `fresh` asks for a new upstream pool.
    pub(super) fn slot(&mut self, name: &ServiceName, fresh: bool) -> SlotId {
        if let Some(slot) = self.taken.get_mut(name) {
            if fresh {
                slot.epoch = slot.epoch.wrapping_add(1);
            }
            return *slot;
        }
        let reused = if self.free.len() > QUARANTINE {
            self.free.pop_front()
        } else {
            None
        };
        let slot = match reused {
            Some(slot) => SlotId {
                epoch: slot.epoch.wrapping_add(1),
                ..slot
            },
            None => {
                let index = self.next;
                self.next += 1;
                SlotId { index, epoch: 0 }
            }
        };
        self.taken.insert(name.clone(), slot);
        slot
    }

    /// Frees the places of all other services.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&ServiceName) -> bool) {
        self.taken.retain(|name, slot| {
            let kept = is_kept(name);
            if !kept {
                self.free.push_back(*slot);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture::name;

    #[test]
    fn a_place_is_stable_and_reused_late() {
        let mut slots = Slots::default();
        let first = slots.slot(&name("a"), false);
        assert_eq!(slots.slot(&name("a"), false), first);
        let renewed = slots.slot(&name("a"), true);
        assert_eq!(
            (renewed.index, renewed.epoch),
            (first.index, first.epoch + 1)
        );
        slots.keep(|_| false);
        let mut seen = vec![first.index];
        for round in 0..QUARANTINE * 3 {
            let slot = slots.slot(&name("b"), false);
            if let Some(before) = seen.iter().rposition(|index| *index == slot.index) {
                assert!(seen.len() - before >= QUARANTINE, "round {round}");
                assert!(slot.epoch > 0);
            }
            seen.push(slot.index);
            slots.keep(|_| false);
        }
        assert!(slots.next as usize <= QUARANTINE + 2);
    }
}
