//! The last events of one namespace, each with a place in their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::position::Position;
use crate::server::adapter::Target;
use crate::server::outgoing::Outgoing;
use crate::server::socket::Room;

/// How much a [`Log`] keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) packets: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

/// A ring of events.
#[derive(Debug)]
pub(super) struct Log {
    limits: Limits,
    entries: VecDeque<Entry>,
    /// Everything behind this is there.
    floor: Position,
    /// The position of the newest event.
    head: Position,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    at: Instant,
    bytes: usize,
    target: Target,
    packet: Outgoing,
}

impl Log {
    /// Makes a log whose first event is the one behind `start`.
    pub(super) fn new(limits: Limits, start: Position) -> Self {
        Self { limits, entries: VecDeque::new(), floor: start, head: start, bytes: 0 }
    }

    /// The position of the newest event.
    pub(super) fn head(&self) -> Position {
        self.head
    }

    /// The position behind which every event is there.
    pub(super) fn floor(&self) -> Position {
        self.floor
    }

    /// Tells whether every event behind a position is there, and the position is none to come.
    pub(super) fn reaches(&self, position: Position) -> bool {
        (self.floor..=self.head).contains(&position)
    }

    /// Adds an event, whose position is behind the head.
    pub(super) fn append(&mut self, position: Position, packet: Outgoing, target: Target, now: Instant) {
        let bytes = packet.bytes();
        self.bytes += bytes;
        self.head = position;
        self.entries.push_back(Entry { position, at: now, bytes, target, packet });
        self.trim(now);
    }

    /// Begins anew behind a position, since what lies before it is not known.
    pub(super) fn begin(&mut self, position: Position) {
        *self = Self::new(self.limits, position);
    }

    /// Forgets what is too much or too old.
    pub(super) fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            let fits = self.entries.len() <= self.limits.packets && self.bytes <= self.limits.bytes;
            if fits && now.saturating_duration_since(oldest.at) <= self.limits.age {
                return;
            }
            self.bytes -= oldest.bytes;
            self.floor = oldest.position;
            self.entries.pop_front();
        }
    }

    /// Returns the events behind a position that were for a socket with this id, in these rooms, with their positions;
    /// `None` where some of them may be gone.
    pub(super) fn after(&self, position: Position, id: &str, rooms: &[Room]) -> Option<Vec<(Position, Outgoing)>> {
        if !self.reaches(position) {
            return None;
        }
        let is_in = |room: &str| room == id || rooms.iter().any(|joined| **joined == *room);
        let meant = |target: &Target| {
            (target.rooms.is_empty() || target.rooms.iter().any(|room| is_in(room))) && !target.excluded().any(is_in)
        };
        let first = self.entries.partition_point(|entry| entry.position <= position);
        let missed = self.entries.range(first..).filter(|entry| meant(&entry.target));
        Some(missed.map(|entry| (entry.position, entry.packet.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { packets: 3, bytes: 1000, age: Duration::from_secs(10) };
    const START: Position = Position { epoch: 7, number: 0 };

    fn at(number: u64) -> Position {
        Position { number, ..START }
    }

    fn append(log: &mut Log, name: &str, target: Target, now: Instant) {
        log.append(log.head().next(), packet(name), target, now);
    }

    fn packet(name: &str) -> Outgoing {
        Outgoing::event("/", None, name, ()).unwrap()
    }

    fn to(rooms: &[&str], except: &[&str]) -> Target {
        let rooms_of = |names: &[&str]| names.iter().map(|name| Room::from(*name)).collect();
        Target { rooms: rooms_of(rooms), except_rooms: rooms_of(except), ..Target::default() }
    }

    fn names(log: &Log, from: u64, rooms: &[&str]) -> Option<Vec<(u64, String)>> {
        let rooms: Vec<Room> = rooms.iter().map(|name| Room::from(*name)).collect();
        let found = log.after(at(from), "me", &rooms)?;
        Some(found.into_iter().map(|(position, packet)| (position.number, packet.json().to_owned())).collect())
    }

    fn found(events: &[(u64, &str)]) -> Option<Vec<(u64, String)>> {
        Some(events.iter().map(|(position, name)| (*position, format!("[\"{name}\"]"))).collect())
    }

    #[test]
    fn what_was_for_a_socket_is_found_from_a_position_on() {
        let (mut log, now) = (Log::new(Limits { packets: 100, ..LIMITS }, START), Instant::now());
        for (name, target) in [
            ("all", to(&[], &[])),
            ("a", to(&["a"], &[])),
            ("b", to(&["b"], &[])),
            ("own", to(&["me"], &[])),
            ("not-a", to(&[], &["a"])),
            ("not-me", to(&["a"], &["me"])),
            ("either", to(&["a", "b"], &["c"])),
        ] {
            append(&mut log, name, target, now);
        }
        assert_eq!(names(&log, 0, &["a"]), found(&[(1, "all"), (2, "a"), (4, "own"), (7, "either")]));
        assert_eq!(names(&log, 2, &["a"]), found(&[(4, "own"), (7, "either")]));
        assert_eq!(names(&log, 4, &[]), found(&[(5, "not-a")]));
        assert_eq!(names(&log, 7, &["a"]), found(&[]));
        assert_eq!(names(&log, 8, &["a"]), None, "nobody can be ahead");
        assert!(!log.reaches(Position { epoch: 6, number: 3 }) && !log.reaches(Position { epoch: 8, number: 3 }));
    }

    #[test]
    fn packets_bytes_and_age_are_bounded_and_a_gap_is_told() {
        let (mut log, now) = (Log::new(LIMITS, START), Instant::now());
        for name in ["1", "2", "3", "4"] {
            append(&mut log, name, to(&[], &[]), now);
        }
        assert_eq!((log.floor(), log.head()), (at(1), at(4)));
        assert_eq!(names(&log, 0, &[]), None);
        assert_eq!(names(&log, 1, &[]), found(&[(2, "2"), (3, "3"), (4, "4")]));
        append(&mut log, &"x".repeat(985), to(&[], &[]), now);
        assert_eq!((log.floor(), log.head(), log.entries.len()), (at(4), at(5), 1));
        append(&mut log, &"x".repeat(2000), to(&[], &[]), now);
        assert_eq!((log.floor(), log.head(), log.bytes), (at(6), at(6), 0), "more than fits at all");
        append(&mut log, "old", to(&[], &[]), now);
        append(&mut log, "new", to(&[], &[]), now + LIMITS.age + Duration::from_nanos(1));
        assert_eq!(names(&log, 7, &[]), found(&[(8, "new")]));
        assert!(!log.reaches(at(6)));
        log.trim(now + 3 * LIMITS.age);
        assert_eq!((log.floor(), names(&log, 8, &[])), (at(8), found(&[])), "who has the newest has missed nothing");
        log.begin(at(9));
        assert!(!log.reaches(at(8)) && log.reaches(at(9)));
    }
}
