//! When to look after which room.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::cell::Cell;

/// At most one alarm per room, the earliest first; one task waits for all of them.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    book: Mutex<Book>,
    /// Wakes the waiting task when there is something earlier to wait for.
    pub(super) sooner: Notify,
}

#[derive(Debug, Default)]
struct Book {
    order: BTreeSet<(i64, u64)>,
    cells: FxHashMap<u64, (i64, Arc<Cell>)>,
}

impl Alarms {
    /// Sets a room's alarm, in place of the one it had.
    pub(super) fn set(&self, cell: &Arc<Cell>, at_ms: i64) {
        let mut book = self.book();
        if let Some((held_ms, _)) = book.cells.get(&cell.key) {
            if *held_ms == at_ms {
                return;
            }
            let held = (*held_ms, cell.key);
            book.order.remove(&held);
        }
        book.cells.insert(cell.key, (at_ms, Arc::clone(cell)));
        book.order.insert((at_ms, cell.key));
        if book.order.first() == Some(&(at_ms, cell.key)) {
            self.sooner.notify_one();
        }
    }

    /// Takes back a room's alarm.
    pub(super) fn clear(&self, cell: &Cell) {
        let mut book = self.book();
        if let Some((at_ms, _)) = book.cells.remove(&cell.key) {
            book.order.remove(&(at_ms, cell.key));
        }
    }

    /// When the next alarm rings.
    pub(super) fn next(&self) -> Option<i64> {
        self.book().order.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes out a room whose alarm is due.
    pub(super) fn pop_due(&self, now_ms: i64) -> Option<Arc<Cell>> {
        let mut book = self.book();
        let due = book.order.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        book.order.remove(&due);
        book.cells.remove(&due.1).map(|(_, cell)| cell)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_one_alarm_and_the_earliest_rings_first() {
        let alarms = Alarms::default();
        let cells: Vec<_> = (0..3).map(|key| Arc::new(Cell::new(key, format!("ROOM{key}")))).collect();
        alarms.set(&cells[0], 50);
        alarms.set(&cells[1], 40);
        alarms.set(&cells[2], 30);
        alarms.set(&cells[2], 60);
        alarms.set(&cells[0], 50);
        assert_eq!(alarms.next(), Some(40));
        assert!(alarms.pop_due(39).is_none());
        let rung: Vec<_> = std::iter::from_fn(|| alarms.pop_due(99)).map(|cell| cell.key).collect();
        assert_eq!(rung, [1, 0, 2]);
        assert_eq!(alarms.next(), None);
    }

    #[test]
    fn a_cleared_alarm_does_not_ring() {
        let alarms = Alarms::default();
        let cell = Arc::new(Cell::new(1, "ROOM".into()));
        alarms.set(&cell, 50);
        alarms.clear(&cell);
        alarms.clear(&cell);
        assert!(alarms.pop_due(99).is_none());
        assert!(alarms.book().cells.is_empty());
    }
}
