//! The last events of one namespace, each with a place in their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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

/// A ring of events. A position is the number of events that came before.
#[derive(Debug)]
pub(super) struct Log {
    limits: Limits,
    entries: VecDeque<Entry>,
    /// The position of the first entry.
    first: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    bytes: usize,
    target: Target,
    packet: Outgoing,
}

impl Log {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: VecDeque::new(), first: 0, bytes: 0 }
    }

    /// The position of the next event.
    pub(super) fn head(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Tells whether every event from a position on is there.
    pub(super) fn reaches(&self, position: u64) -> bool {
        (self.first..=self.head()).contains(&position)
    }

    pub(super) fn append(&mut self, packet: Outgoing, target: Target, now: Instant) {
        let bytes = packet.bytes();
        self.bytes += bytes;
        self.entries.push_back(Entry { at: now, bytes, target, packet });
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            let fits = self.entries.len() <= self.limits.packets && self.bytes <= self.limits.bytes;
            if fits && now.saturating_duration_since(oldest.at) <= self.limits.age {
                return;
            }
            self.bytes -= oldest.bytes;
            self.first += 1;
            self.entries.pop_front();
        }
    }

    /// Returns the events from a position on that were for a socket with this id, in these rooms, with their positions;
    /// `None` where some of them may be gone.
    pub(super) fn since(&self, position: u64, id: &str, rooms: &[Room]) -> Option<Vec<(u64, Outgoing)>> {
        let skip = usize::try_from(position.checked_sub(self.first)?).ok()?;
        if !self.reaches(position) {
            return None;
        }
        let is_in = |room: &str| room == id || rooms.iter().any(|joined| **joined == *room);
        let meant = |target: &Target| {
            (target.rooms.is_empty() || target.rooms.iter().any(|room| is_in(room))) && !target.excluded().any(is_in)
        };
        let entries = (position..).zip(self.entries.iter().skip(skip));
        Some(
            entries
                .filter(|(_, entry)| meant(&entry.target))
                .map(|(position, entry)| (position, entry.packet.clone()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { packets: 3, bytes: 1000, age: Duration::from_secs(10) };

    fn packet(name: &str) -> Outgoing {
        Outgoing::event("/", None, name, ()).unwrap()
    }

    fn to(rooms: &[&str], except: &[&str]) -> Target {
        let rooms_of = |names: &[&str]| names.iter().map(|name| Room::from(*name)).collect();
        Target { rooms: rooms_of(rooms), except_rooms: rooms_of(except), ..Target::default() }
    }

    fn names(log: &Log, from: u64, rooms: &[&str]) -> Option<Vec<(u64, String)>> {
        let rooms: Vec<Room> = rooms.iter().map(|name| Room::from(*name)).collect();
        let found = log.since(from, "me", &rooms)?;
        Some(found.into_iter().map(|(position, packet)| (position, packet.json().to_owned())).collect())
    }

    fn found(events: &[(u64, &str)]) -> Option<Vec<(u64, String)>> {
        Some(events.iter().map(|(position, name)| (*position, format!("[\"{name}\"]"))).collect())
    }

    #[test]
    fn what_was_for_a_socket_is_found_from_a_position_on() {
        let (mut log, now) = (Log::new(Limits { packets: 100, ..LIMITS }), Instant::now());
        for (name, target) in [
            ("all", to(&[], &[])),
            ("a", to(&["a"], &[])),
            ("b", to(&["b"], &[])),
            ("own", to(&["me"], &[])),
            ("not-a", to(&[], &["a"])),
            ("not-me", to(&["a"], &["me"])),
            ("either", to(&["a", "b"], &["c"])),
        ] {
            log.append(packet(name), target, now);
        }
        assert_eq!(names(&log, 0, &["a"]), found(&[(0, "all"), (1, "a"), (3, "own"), (6, "either")]));
        assert_eq!(names(&log, 2, &["a"]), found(&[(3, "own"), (6, "either")]));
        assert_eq!(names(&log, 4, &[]), found(&[(4, "not-a")]));
        assert_eq!(names(&log, 7, &["a"]), found(&[]));
        assert_eq!(names(&log, 8, &["a"]), None, "nobody can be ahead");
    }

    #[test]
    fn packets_bytes_and_age_are_bounded_and_a_gap_is_told() {
        let (mut log, now) = (Log::new(LIMITS), Instant::now());
        for name in ["1", "2", "3", "4"] {
            log.append(packet(name), to(&[], &[]), now);
        }
        assert_eq!((log.first, log.head()), (1, 4));
        assert_eq!(names(&log, 0, &[]), None);
        assert_eq!(names(&log, 1, &[]), found(&[(1, "2"), (2, "3"), (3, "4")]));
        log.append(packet(&"x".repeat(985)), to(&[], &[]), now);
        assert_eq!((log.first, log.head(), log.entries.len()), (4, 5, 1));
        log.append(packet(&"x".repeat(2000)), to(&[], &[]), now);
        assert_eq!((log.first, log.head(), log.bytes), (6, 6, 0), "more than fits at all");
        log.append(packet("old"), to(&[], &[]), now);
        log.append(packet("new"), to(&[], &[]), now + LIMITS.age + Duration::from_nanos(1));
        assert_eq!(names(&log, 7, &[]), found(&[(7, "new")]));
        assert!(!log.reaches(6));
    }
}
