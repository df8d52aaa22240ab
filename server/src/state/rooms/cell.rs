//! One room in memory, and what is still to be written of it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::arrivals::Arrivals;
use super::together::{Inbox, Together};
use crate::sync::event::Refusal;
use crate::sync::room::Room;
use crate::sync::rows::{PlaybackRow, RowChange};

/// The place of a room, by which all who want it wait for the same one.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) key: u64,
    pub(super) code: String,
    pub(super) slot: Arc<Mutex<Slot>>,
    /// Held while rows of this room are being written, so that they arrive in order. Taken while holding the slot, and
    /// kept without it: whoever holds this never waits for the slot.
    pub(super) writes: Arc<Mutex<()>>,
    pub(super) arrivals: Arrivals,
    pub(super) inbox: Inbox,
}

/// What is in a room's place.
#[derive(Debug)]
pub(super) enum Slot {
    /// Nothing yet: whoever gets here first loads the room.
    Empty,
    /// The room.
    Loaded(Box<Live>),
    /// Nothing any more, and this place is not in the table any more. Who waited here looks again, or shares the
    /// refusal that ended it.
    Gone(Option<Refusal>),
}

/// A room, and what the store does not know of it yet.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) room: Room,
    pub(super) backlog: Backlog,
    /// Whether playback has changed since it was last written.
    pub(super) playback_changed: bool,
    /// When to write what is to be written.
    pub(super) flush_at: Option<i64>,
    /// When to leave memory; set while the room is empty.
    pub(super) unload_at: Option<i64>,
    /// What the other instances have to do with it, where there are any.
    pub(super) together: Option<Together>,
}

/// Changes of rows that are still to be written, in order.
///
/// All changes are such that making them twice does no harm, so they stay until a write of them has succeeded.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    changes: VecDeque<RowChange>,
    /// How many have been taken out in front.
    written: u64,
}

impl Cell {
    pub(super) fn new(key: u64, code: String) -> Self {
        let slot = Arc::new(Mutex::new(Slot::Empty));
        Self { key, code, slot, writes: Arc::default(), arrivals: Arrivals::default(), inbox: Inbox::default() }
    }
}

impl Live {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            backlog: Backlog::default(),
            playback_changed: false,
            flush_at: None,
            unload_at: None,
            together: None,
        }
    }

    /// Whether the room has nothing to compare with its rows, as it has where one process alone writes them.
    pub(super) fn is_compared(&self) -> bool {
        self.together.as_ref().is_none_or(|together| together.compare_at.is_none())
    }

    /// Whether the store lacks something, and the room is still there to lack it of.
    pub(super) fn has_unwritten(&self) -> bool {
        self.backlog.len() > 0 || (self.playback_changed && !self.room.is_closed())
    }

    /// What to store of the playback, if it has changed; with new numbers to give out when few are left.
    pub(super) fn playback_to_flush(&self) -> Option<PlaybackRow> {
        let (given, limit) = (self.room.sequence(), self.room.sequence_limit());
        // Of several instances the one with the older state may be the last to write.
        let limit = if self.together.is_some() || limit.saturating_sub(given) < SEQUENCE_BLOCK / 2 {
            given + SEQUENCE_BLOCK
        } else {
            limit
        };
        (self.playback_changed && !self.room.is_closed()).then(|| self.room.playback_row(limit))
    }

    /// What to store of the playback when nothing will change any more: the numbers not given out go back.
    pub(super) fn playback_to_keep(&self) -> Option<PlaybackRow> {
        if self.together.is_some() {
            // Others go on giving out numbers.
            return self.playback_to_flush();
        }
        let given = self.room.sequence();
        let changed = self.playback_changed || self.room.sequence_limit() > given;
        (changed && !self.room.is_closed()).then(|| self.room.playback_row(given))
    }

    /// What brings the store back to this room, after a write of which nobody knows whether it happened.
    pub(super) fn undoing(&self, changes: &[RowChange]) -> Vec<RowChange> {
        let undo = |change: &RowChange| {
            let restored = |id: &String| match self.room.participant_row(id) {
                Some(row) => RowChange::UpsertParticipant(row.clone()),
                None => RowChange::RemoveParticipant(id.clone()),
            };
            match change {
                RowChange::UpsertParticipant(row) => restored(&row.id),
                RowChange::RemoveParticipant(id) => restored(id),
                // A room that is gone cannot be brought back without its other rows, but writing tells that it is gone.
                RowChange::SaveRoom(_) | RowChange::RemoveRoom(_) | RowChange::RemoveExpired { .. } => {
                    RowChange::SaveRoom((**self.room.row()).clone())
                }
            }
        };
        changes.iter().map(undo).collect()
    }
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Adds a change; past the limit the oldest is given up, and whether that happened is the answer.
    pub(super) fn push(&mut self, change: RowChange) -> bool {
        self.changes.push_back(change);
        let surplus = self.changes.len() > MAX_BACKLOG;
        if surplus {
            self.changes.pop_front();
            self.written += 1;
        }
        surplus
    }

    /// Everything there is, and the mark to give to [`settle`](Self::settle) once it is written.
    pub(super) fn snapshot(&self) -> (Vec<RowChange>, u64) {
        (self.changes.iter().cloned().collect(), self.written + self.changes.len() as u64)
    }

    /// Takes out all that came before the mark.
    pub(super) fn settle(&mut self, mark: u64) {
        while self.written < mark && self.changes.pop_front().is_some() {
            self.written += 1;
        }
    }
}

/// How many sequence numbers are made durable at a time.
pub(super) const SEQUENCE_BLOCK: u64 = 10_000;

/// Changes of one room that may wait for the store. Every seat can be given up some times over; a row that stays behind
/// because its removal was forgotten is cleaned up by the grace after the next load.
const MAX_BACKLOG: usize = 4_096;

/// Past this many nothing is undone any more, so that requests which fail, as often as they may be tried, do not push out
/// what has happened.
pub(super) const MAX_UNDONE: usize = MAX_BACKLOG / 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: u64) -> RowChange {
        RowChange::RemoveParticipant(id.to_string())
    }

    #[test]
    fn a_settled_snapshot_leaves_what_came_after_it() {
        let mut backlog = Backlog::default();
        backlog.push(change(1));
        let (changes, mark) = backlog.snapshot();
        assert_eq!(changes, [change(1)]);
        backlog.push(change(2));
        backlog.settle(mark);
        assert_eq!(backlog.snapshot(), (vec![change(2)], 2));
        backlog.settle(mark);
        assert_eq!(backlog.len(), 1);
    }

    #[test]
    fn a_full_backlog_gives_up_its_oldest() {
        let mut backlog = Backlog::default();
        for id in 0..MAX_BACKLOG as u64 {
            assert!(!backlog.push(change(id)));
        }
        let (_, mark) = backlog.snapshot();
        assert!(backlog.push(change(9_999)));
        assert_eq!(backlog.len(), MAX_BACKLOG);
        backlog.settle(mark);
        assert_eq!(backlog.snapshot().0, [change(9_999)]);
    }
}
