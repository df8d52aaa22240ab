//! The seats of a room: in the order in which they were taken, and found by whatever names one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash};
use std::{borrow::Borrow, ops, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{ConnectionId, Seat};
use crate::sync::rows::{ParticipantRow, Role};
use crate::text::visible;

/// A seat for as long as the room is in memory, whoever is in it. A seat taken later has a higher one, and none is used
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeatKey(pub(super) u64);

/// The seats of a room.
///
/// Finding, taking, changing and giving up a seat cost about the same in a room of ten and of ten thousand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seats {
    /// Longest present first.
    taken: BTreeMap<SeatKey, Seat>,
    next: u64,
    index: Index,
    /// What each seat was before it changed, oldest change first; kept between `mark` and `keep` or `revert`.
    journal: Option<Journal>,
}

#[derive(Debug, Clone, PartialEq)]
struct Journal {
    next: u64,
    changes: Vec<(SeatKey, Option<Seat>)>,
}

/// The ways to a seat.
#[derive(Debug, Clone, Default, PartialEq)]
struct Index {
    by_connection: FxHashMap<ConnectionId, SeatKey>,
    by_oder_id: FxHashMap<String, SeatKey>,
    /// Users choose what they are called, hence the hash that cannot be guessed.
    by_user: HashMap<String, SeatKey>,
    by_resume_hash: FxHashMap<[u8; 32], SeatKey>,
    /// How many seats have a name, by what is seen of it. Participants choose it, hence the hash that cannot be guessed.
    names: HashMap<String, usize>,
    /// The seats whose connection was lost, by the end of their grace.
    graces: BTreeSet<(i64, SeatKey)>,
    /// The users online who could stand in for the owner.
    stand_ins: BTreeSet<SeatKey>,
    /// How many of those online an event takes so many milliseconds to.
    ways: BTreeMap<u32, usize>,
    /// How many of those online are connected to which instance.
    instances: BTreeMap<u32, usize>,
}

impl Seats {
    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether a connection is in any seat.
    pub(super) fn has_online(&self) -> bool {
        !self.index.by_connection.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Seat> {
        self.taken.values()
    }

    pub(super) fn get(&self, key: SeatKey) -> Option<&Seat> {
        self.taken.get(&key)
    }

    pub(super) fn of_connection(&self, connection: ConnectionId) -> Option<SeatKey> {
        self.index.by_connection.get(&connection).copied()
    }

    pub(super) fn of_oder_id(&self, oder_id: &str) -> Option<SeatKey> {
        self.index.by_oder_id.get(oder_id).copied()
    }

    pub(super) fn of_user(&self, user_id: &str) -> Option<SeatKey> {
        self.index.by_user.get(user_id).copied()
    }

    /// The name for a participant who asks for `wanted`: that, or if another seat has it, that with a number behind it, which
    /// no other seat has. The name of `own`, the participant's seat if there is one already, counts as free.
    ///
    /// The number is the first free one as long as no seat has left a gap. The search is short in any room.
    pub(super) fn free_name(&self, wanted: String, own: Option<SeatKey>) -> String {
        let own_name = own.and_then(|key| self.get(key)).and_then(|seat| seat.row.name()).map(visible);
        let is_taken = |name: &str| {
            let name = visible(name);
            let count = self.index.names.get(&*name).copied().unwrap_or(0);
            count > usize::from(own_name.as_ref() == Some(&name))
        };
        if !is_taken(&wanted) {
            return wanted;
        }
        let numbered = |number: u64| format!("{wanted} ({number})");
        // Twice as far until one is free, then between the last two: 1 is the name without a number, which is taken.
        let (mut taken, mut free) = (1, 2);
        while is_taken(&numbered(free)) {
            (taken, free) = (free, free * 2);
        }
        while free - taken > 1 {
            let middle = taken + (free - taken) / 2;
            *(if is_taken(&numbered(middle)) { &mut taken } else { &mut free }) = middle;
        }
        numbered(free)
    }

    /// The seat that the token with this hash resumes. How long the search takes may tell something of the hash, but
    /// nobody finds a token to a hash.
    pub(super) fn of_resume_hash(&self, hash: &[u8; 32]) -> Option<SeatKey> {
        self.index.by_resume_hash.get(hash).copied()
    }

    /// When the first grace ends.
    pub(super) fn next_grace(&self) -> Option<i64> {
        self.index.graces.first().map(|(until_ms, _)| *until_ms)
    }

    /// The seats whose grace is over, longest present first.
    pub(super) fn given_up(&self, now_ms: i64) -> Vec<SeatKey> {
        let over = self.index.graces.iter().take_while(|(until_ms, _)| *until_ms <= now_ms);
        let mut over: Vec<_> = over.map(|(_, key)| *key).collect();
        over.sort_unstable();
        over
    }

    /// The user online, but for the owner, who has been here longest.
    pub(super) fn first_stand_in(&self) -> Option<SeatKey> {
        self.index.stand_ins.first().copied()
    }

    /// How long an event takes to the slowest of those online.
    pub(super) fn slowest_one_way_ms(&self) -> u32 {
        self.index.ways.last_key_value().map_or(0, |(one_way_ms, _)| *one_way_ms)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (SeatKey, &Seat)> {
        self.taken.iter().map(|(key, seat)| (*key, seat))
    }

    /// How many connections of this instance are in seats.
    pub(super) fn connections_of(&self, instance: u32) -> usize {
        self.index.instances.get(&instance).copied().unwrap_or(0)
    }

    /// The instances that have connections in seats.
    pub(super) fn instances(&self) -> impl Iterator<Item = u32> {
        self.index.instances.keys().copied()
    }

    /// The number of the next seat to be taken.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Takes note that seats below this number were taken elsewhere.
    pub(super) fn go_on_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Makes a seat what it is elsewhere.
    pub(super) fn set(&mut self, key: SeatKey, seat: Option<Seat>) {
        self.put(key, seat);
    }

    pub(super) fn push(&mut self, seat: Seat) -> SeatKey {
        let key = SeatKey(self.next);
        self.next += 1;
        self.put(key, Some(seat));
        key
    }

    pub(super) fn remove(&mut self, key: SeatKey) -> Option<Seat> {
        self.put(key, None)
    }

    /// Gives up all seats, and returns them.
    pub(super) fn clear(&mut self) -> Vec<Seat> {
        let keys: Vec<_> = self.taken.keys().copied().collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Changes who is in a seat, and how.
    pub(super) fn change(&mut self, key: SeatKey, change: impl FnOnce(&mut Seat)) {
        let Some(seat) = self.taken.get_mut(&key) else { return };
        let old = seat.clone();
        change(seat);
        if !Arc::ptr_eq(&old.row, &seat.row) || old.is_online() != seat.is_online() {
            seat.looks_different();
        }
        self.index.note(key, Some(&old), Some(seat));
        if let Some(journal) = &mut self.journal {
            journal.changes.push((key, Some(old)));
        }
    }

    /// Changes the row of a participant, and returns it.
    pub(super) fn change_row(&mut self, key: SeatKey, change: impl FnOnce(&mut ParticipantRow)) -> ParticipantRow {
        self.change(key, |seat| change(Arc::make_mut(&mut seat.row)));
        (*self[key].row).clone()
    }

    /// Begins to write down what changes. See [`revert`](Self::revert).
    pub(super) fn mark(&mut self) {
        self.journal = Some(Journal { next: self.next, changes: Vec::new() });
    }

    /// Forgets the mark.
    pub(super) fn keep(&mut self) {
        self.journal = None;
    }

    /// Takes back all changes since the mark; without one, nothing.
    pub(super) fn revert(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        for (key, seat) in journal.changes.into_iter().rev() {
            self.put(key, seat);
        }
        self.next = journal.next;
    }

    /// The seats that are not what they were at the mark, each once.
    pub(super) fn changed(&self) -> BTreeSet<SeatKey> {
        self.journal.iter().flat_map(|journal| journal.changes.iter().map(|(key, _)| *key)).collect()
    }

    /// Whether any seat has changed since the mark.
    pub(super) fn has_changed(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| !journal.changes.is_empty())
    }

    /// How many changes there were since the mark.
    #[cfg(test)]
    pub(super) fn changes(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.changes.len())
    }

    /// Whether every way leads where it should, and no other is left.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let mut index = Index::default();
        for (key, seat) in &self.taken {
            index.note(*key, None, Some(seat));
        }
        index == self.index
    }

    fn put(&mut self, key: SeatKey, seat: Option<Seat>) -> Option<Seat> {
        let old = self.taken.remove(&key);
        self.index.note(key, old.as_ref(), seat.as_ref());
        if let Some(seat) = seat {
            self.taken.insert(key, seat);
        }
        if let Some(journal) = &mut self.journal {
            journal.changes.push((key, old.clone()));
        }
        old
    }
}

impl ops::Index<SeatKey> for Seats {
    type Output = Seat;

    fn index(&self, key: SeatKey) -> &Seat {
        &self.taken[&key]
    }
}

impl Index {
    /// Leads all ways that led to the old seat to the new one.
    fn note(&mut self, key: SeatKey, old: Option<&Seat>, new: Option<&Seat>) {
        let connection = |seat: Option<&Seat>| seat.and_then(Seat::connection);
        lead(&mut self.by_connection, key, connection(old).as_ref(), connection(new).as_ref());
        if old.map(|seat| Arc::as_ptr(&seat.row)) != new.map(|seat| Arc::as_ptr(&seat.row)) {
            let (old, new) = (old.map(|seat| &*seat.row), new.map(|seat| &*seat.row));
            lead(&mut self.by_oder_id, key, old.map(|row| row.oder_id.as_str()), new.map(|row| row.oder_id.as_str()));
            lead(
                &mut self.by_user,
                key,
                old.and_then(|row| row.user_id.as_deref()),
                new.and_then(|row| row.user_id.as_deref()),
            );
            count_name(&mut self.names, old.and_then(ParticipantRow::name), new.and_then(ParticipantRow::name));
            lead(&mut self.by_resume_hash, key, old.map(|row| &row.resume_hash), new.map(|row| &row.resume_hash));
        }
        let grace = |seat: Option<&Seat>| seat.and_then(Seat::grace_until).map(|until_ms| (until_ms, key));
        step(&mut self.graces, grace(old), grace(new));
        let stand_in = |seat: Option<&Seat>| {
            seat.filter(|seat| seat.is_online() && seat.row.role == Role::Participant).map(|_| key)
        };
        step(&mut self.stand_ins, stand_in(old), stand_in(new));
        let way = |seat: Option<&Seat>| seat.filter(|seat| seat.is_online()).map(|seat| seat.one_way_ms);
        count(&mut self.ways, way(old), way(new));
        let instance = |seat| connection(seat).map(ConnectionId::instance);
        count(&mut self.instances, instance(old), instance(new));
    }
}

/// Counts the new value in place of the old one.
fn count(counts: &mut BTreeMap<u32, usize>, old: Option<u32>, new: Option<u32>) {
    if old == new {
        return;
    }
    if let Some(count) = new.map(|value| counts.entry(value).or_default()) {
        *count += 1;
    }
    if let Some(value) = old
        && let Some(count) = counts.get_mut(&value)
    {
        *count -= 1;
        if *count == 0 {
            counts.remove(&value);
        }
    }
}

/// Counts the new name in place of the old one.
fn count_name(counts: &mut HashMap<String, usize>, old: Option<&str>, new: Option<&str>) {
    if old == new {
        return;
    }
    if let Some(name) = new {
        *counts.entry(visible(name).into_owned()).or_default() += 1;
    }
    if let Some(name) = old.map(visible)
        && let Some(count) = counts.get_mut(&*name)
    {
        *count -= 1;
        if *count == 0 {
            counts.remove(&*name);
        }
    }
}

/// Lets a new name, in place of the old one, lead to a seat.
fn lead<Q, K, S>(names: &mut HashMap<K, SeatKey, S>, key: SeatKey, old: Option<&Q>, new: Option<&Q>)
where
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    K: Borrow<Q> + Hash + Eq,
    S: BuildHasher,
{
    if old == new {
        return;
    }
    if let Some(old) = old.filter(|old| names.get(old) == Some(&key)) {
        names.remove(old);
    }
    if let Some(new) = new {
        names.insert(new.to_owned(), key);
    }
}

/// Puts a new entry in the place of the old one.
fn step<T: Ord>(entries: &mut BTreeSet<T>, old: Option<T>, new: Option<T>) {
    if old != new {
        if let Some(old) = old {
            entries.remove(&old);
        }
        entries.extend(new);
    }
}
