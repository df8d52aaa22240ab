//! The acks one connection still owes us.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::connection::Slot;

/// Outstanding acks by slot and id, and in the order they expire.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    outstanding: BTreeMap<(Slot, u64), Option<Instant>>,
    deadlines: BTreeSet<(Instant, Slot, u64)>,
}

impl Acks {
    pub(crate) fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// Waits for an ack. Says whether one with this id was waited for already, which is then forgotten.
    pub(crate) fn expect(&mut self, slot: Slot, id: u64, deadline: Option<Instant>) -> bool {
        let replaced = self.resolve(slot, id);
        self.outstanding.insert((slot, id), deadline);
        self.deadlines.extend(deadline.map(|at| (at, slot, id)));
        replaced
    }

    /// Takes out an ack, if it was waited for.
    pub(crate) fn resolve(&mut self, slot: Slot, id: u64) -> bool {
        let Some(deadline) = self.outstanding.remove(&(slot, id)) else { return false };
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, slot, id));
        }
        true
    }

    /// Drops every ack of a slot.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.outstanding.retain(|(owner, _), _| *owner != slot);
        self.deadlines.retain(|(_, owner, _)| *owner != slot);
    }

    /// When the next ack expires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _, _)| *at)
    }

    /// Takes out the next ack that has expired by `now`.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(Slot, u64)> {
        let (_, slot, id) = *self.deadlines.first().filter(|(at, _, _)| *at <= now)?;
        self.resolve(slot, id);
        Some((slot, id))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn acks_expire_in_the_order_of_their_deadlines() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let slot = Slot::nth(0);
        let mut acks = Acks::default();
        for (id, deadline) in [(1, Some(at(3))), (2, None), (3, Some(at(1))), (4, Some(at(1)))] {
            assert!(!acks.expect(slot, id, deadline));
        }
        assert_eq!(acks.deadline(), Some(at(1)));
        assert_eq!(acks.expire(now), None);
        assert_eq!(acks.expire(at(2)), Some((slot, 3)));
        assert_eq!(acks.expire(at(2)), Some((slot, 4)));
        assert_eq!(acks.expire(at(2)), None);
        assert_eq!((acks.len(), acks.deadline()), (2, Some(at(3))));
    }

    #[test]
    fn nothing_stays_of_what_is_resolved_replaced_or_forgotten() {
        let now = Instant::now();
        let (one, two) = (Slot::nth(1), Slot::nth(2));
        let mut acks = Acks::default();
        assert!(!acks.expect(one, 0, Some(now)));
        assert!(acks.expect(one, 0, None));
        assert_eq!(acks.deadline(), None);
        assert!(!acks.resolve(two, 0));
        assert!(acks.resolve(one, 0));
        assert!(!acks.resolve(one, 0));
        acks.expect(one, 5, Some(now));
        acks.expect(two, 5, Some(now));
        acks.forget(one);
        assert_eq!(acks.expire(now), Some((two, 5)));
        assert_eq!(acks.len(), 0);
    }
}
