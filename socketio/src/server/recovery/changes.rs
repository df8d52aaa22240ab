//! What has become of sessions that instances share, until an adapter has noted it down.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use foldhash::fast::RandomState;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::position::Position;
use crate::server::socket::{Room, Socket};

/// A session as instances share it.
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The client's secret.
    pub pid: String,
    /// How often the session has been taken over, from 1 on. A change of an earlier generation counts for nothing: its
    /// socket has been replaced.
    pub generation: u64,
    /// The public id of its socket.
    pub id: String,
    /// The rooms it has joined.
    pub rooms: Vec<Room>,
    /// What [`Socket::set_data`] has kept.
    pub data: Option<Box<RawValue>>,
    /// Up to where the client is known to have received everything.
    pub seen: Position,
    /// For how long from now on the client can come back, if nothing more is heard of it.
    pub kept_for: Duration,
}

/// Without the secret, and without what the application keeps.
impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl SessionRecord {
    /// Makes a record without rooms and data.
    #[must_use]
    pub fn new(pid: impl Into<String>, generation: u64, id: impl Into<String>, seen: Position) -> Self {
        let (pid, id) = (pid.into(), id.into());
        Self { pid, generation, id, rooms: Vec::new(), data: None, seen, kept_for: Duration::ZERO }
    }

    fn of(pid: &str, socket: &Socket, kept_for: Duration) -> Option<Self> {
        let (generation, seen) = socket.standing()?;
        let (rooms, data) = socket.belongings()?;
        Some(Self { rooms, data, kept_for, ..Self::new(pid, generation, socket.id().as_str(), seen) })
    }
}

/// What an adapter is to note down of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionChange {
    /// It is this now.
    Keep(SessionRecord),
    /// Its client is still there, and has received everything up to this position.
    Seen {
        /// The client's secret.
        pid: String,
        /// As in the record.
        generation: u64,
        /// As in the record.
        seen: Position,
        /// As in the record.
        kept_for: Duration,
    },
    /// Its client cannot come back.
    End {
        /// The client's secret.
        pid: String,
        /// As in the record.
        generation: u64,
    },
}

impl SessionChange {
    /// Returns the client's secret.
    #[must_use]
    pub fn pid(&self) -> &str {
        match self {
            Self::Keep(SessionRecord { pid, .. }) | Self::Seen { pid, .. } | Self::End { pid, .. } => pid,
        }
    }

    /// Returns how often the session had been taken over.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match self {
            Self::Keep(SessionRecord { generation, .. })
            | Self::Seen { generation, .. }
            | Self::End { generation, .. } => *generation,
        }
    }
}

/// What is to be noted down of one session. What comes later in this list stands for what comes before.
#[derive(Debug)]
enum Pending {
    Seen(Socket),
    Whole(Socket),
    Told(SessionChange),
}

impl Pending {
    /// What counts is the later generation, then the place in the list.
    fn rank(&self) -> (u64, u8) {
        let of = |socket: &Socket| socket.standing().map_or(0, |(generation, _)| generation);
        match self {
            Self::Seen(socket) => (of(socket), 0),
            Self::Whole(socket) => (of(socket), 1),
            Self::Told(change @ SessionChange::Seen { .. }) => (change.generation(), 0),
            Self::Told(change @ SessionChange::Keep(_)) => (change.generation(), 2),
            Self::Told(change @ SessionChange::End { .. }) => (change.generation(), 3),
        }
    }
}

/// Changes that wait, one for each session.
#[derive(Debug)]
pub(in crate::server) struct Changes {
    waiting: Mutex<Waiting>,
    grown: Notify,
    settled: Notify,
    max: usize,
    /// How long a session is kept of whose client nothing more is heard.
    kept_for: Duration,
}

#[derive(Debug, Default)]
struct Waiting {
    by_pid: HashMap<ByteString, Pending, RandomState>,
    /// The same, the oldest first.
    order: VecDeque<ByteString>,
    /// Changes that are being noted down.
    taken: usize,
}

impl Changes {
    /// Makes room for `max` changes; the rest is dropped.
    pub(in crate::server) fn new(max: usize, kept_for: Duration) -> Self {
        let waiting = Mutex::default();
        Self { waiting, grown: Notify::new(), settled: Notify::new(), max, kept_for }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Only what a socket's session has seen is locked within it. Nothing under it can panic halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, pid: ByteString, change: Pending) {
        let mut waiting = self.lock();
        let full = waiting.by_pid.len() >= self.max;
        let Waiting { by_pid, order, .. } = &mut *waiting;
        match by_pid.entry(pid) {
            Entry::Occupied(mut known) => {
                if change.rank() >= known.get().rank() {
                    known.insert(change);
                }
            }
            Entry::Vacant(_) if full => tracing::debug!("a session is not noted down: too many are waiting"),
            Entry::Vacant(free) => {
                order.push_back(free.key().clone());
                free.insert(change);
            }
        }
        drop(waiting);
        self.grown.notify_one();
    }

    /// The client of a connected socket has shown that it is there.
    pub(super) fn seen(&self, pid: ByteString, socket: &Socket) {
        self.add(pid, Pending::Seen(socket.clone()));
    }

    /// The session is what its connected socket is.
    pub(in crate::server) fn whole(&self, pid: ByteString, socket: &Socket) {
        self.add(pid, Pending::Whole(socket.clone()));
    }

    /// The client was cut off; the session is what its socket is now.
    pub(super) fn cut(&self, pid: &ByteString, socket: &Socket, kept_for: Duration) {
        if let Some(record) = SessionRecord::of(pid, socket, kept_for) {
            self.add(pid.clone(), Pending::Told(SessionChange::Keep(record)));
        }
    }

    /// The client cannot come back.
    pub(super) fn end(&self, pid: ByteString, generation: u64) {
        self.add(pid.clone(), Pending::Told(SessionChange::End { pid: pid.to_string(), generation }));
    }

    /// Waits until there is something to be noted down.
    pub(in crate::server) async fn grown(&self) {
        loop {
            let grown = self.grown.notified();
            if !self.lock().by_pid.is_empty() {
                return;
            }
            grown.await;
        }
    }

    /// Takes some of what waits. [`done`](Self::done) tells of its end.
    pub(in crate::server) fn take(&self, max: usize) -> Vec<SessionChange> {
        let pending: Vec<_> = {
            let mut waiting = self.lock();
            let Waiting { by_pid, order, taken } = &mut *waiting;
            let some = order.drain(..max.min(order.len()));
            let pending = some.filter_map(|pid| by_pid.remove_entry(&pid)).collect::<Vec<_>>();
            *taken += pending.len();
            pending
        };
        let count = pending.len();
        // Without the lock, since sockets have locks of their own.
        let changes: Vec<_> = pending.into_iter().filter_map(|(pid, pending)| self.change(&pid, pending)).collect();
        self.settle(count - changes.len());
        changes
    }

    fn change(&self, pid: &str, pending: Pending) -> Option<SessionChange> {
        match pending {
            Pending::Seen(socket) => {
                let (generation, seen) = socket.standing()?;
                Some(SessionChange::Seen { pid: pid.to_owned(), generation, seen, kept_for: self.kept_for })
            }
            Pending::Whole(socket) => SessionRecord::of(pid, &socket, self.kept_for).map(SessionChange::Keep),
            Pending::Told(change) => Some(change),
        }
    }

    /// So many changes are noted down, or will not be.
    fn settle(&self, count: usize) {
        let mut waiting = self.lock();
        waiting.taken = waiting.taken.saturating_sub(count);
        drop(waiting);
        self.settled.notify_waiters();
    }

    /// Changes that were taken are noted down, but for these.
    pub(in crate::server) fn done(&self, taken: usize, left: Vec<SessionChange>) {
        {
            let mut waiting = self.lock();
            for change in left {
                let newer =
                    waiting.by_pid.get(change.pid()).is_some_and(|known| known.rank() > (change.generation(), 0));
                if !newer {
                    let pid = ByteString::from(change.pid());
                    if waiting.by_pid.insert(pid.clone(), Pending::Told(change)).is_none() {
                        waiting.order.push_back(pid);
                    }
                }
            }
        }
        self.grown.notify_one();
        self.settle(taken);
    }

    /// Waits until nothing is to be noted down.
    pub(in crate::server) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            {
                let waiting = self.lock();
                if waiting.by_pid.is_empty() && waiting.taken == 0 {
                    return;
                }
            }
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { epoch: 1, number: 1 };

    fn keep(pid: &str, generation: u64) -> SessionChange {
        SessionChange::Keep(SessionRecord::new(pid, generation, "id", AT))
    }

    fn end(pid: &str, generation: u64) -> SessionChange {
        SessionChange::End { pid: pid.to_owned(), generation }
    }

    fn add(changes: &Changes, change: SessionChange) {
        changes.add(change.pid().into(), Pending::Told(change));
    }

    fn taken(changes: &Changes) -> Vec<(String, u64, bool)> {
        let is_end = |change: &SessionChange| matches!(change, SessionChange::End { .. });
        changes.take(9).iter().map(|change| (change.pid().to_owned(), change.generation(), is_end(change))).collect()
    }

    #[test]
    fn the_end_of_a_session_stands_and_a_later_generation_stands_for_all_before() {
        let changes = Changes::new(9, Duration::ZERO);
        for change in [keep("a", 1), end("a", 1), keep("a", 1)] {
            add(&changes, change);
        }
        assert_eq!(taken(&changes), [("a".to_owned(), 1, true)]);
        for change in [end("a", 1), keep("a", 2), end("a", 1)] {
            add(&changes, change);
        }
        assert_eq!(taken(&changes), [("a".to_owned(), 2, false)]);
    }

    #[test]
    fn what_could_not_be_noted_down_comes_again_unless_something_newer_has() {
        let changes = Changes::new(9, Duration::ZERO);
        add(&changes, keep("a", 1));
        let left = changes.take(9);
        changes.done(1, left.clone());
        assert_eq!(taken(&changes), [("a".to_owned(), 1, false)]);
        add(&changes, end("a", 1));
        changes.done(1, left);
        assert_eq!(taken(&changes), [("a".to_owned(), 1, true)]);
    }

    #[test]
    fn no_more_changes_wait_than_there_is_room_for() {
        let changes = Changes::new(2, Duration::ZERO);
        for pid in ["a", "b", "c"] {
            add(&changes, keep(pid, 1));
        }
        add(&changes, end("b", 1));
        let mut all = taken(&changes);
        all.sort_unstable();
        assert_eq!(all, [("a".to_owned(), 1, false), ("b".to_owned(), 1, true)]);
    }

    #[tokio::test]
    async fn it_is_settled_when_what_was_taken_is_noted_down() {
        let changes = Changes::new(2, Duration::ZERO);
        changes.settled().await;
        add(&changes, keep("a", 1));
        changes.grown().await;
        let left = changes.take(9);
        let settled = changes.settled();
        tokio::pin!(settled);
        let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(settled.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        changes.done(left.len(), Vec::new());
        settled.await;
    }
}
