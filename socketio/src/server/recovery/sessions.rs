//! Who may come back.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use foldhash::fast::RandomState;

use super::position::Position;

/// Sessions by their secret, those of connected clients and those that are kept for clients that were cut off.
#[derive(Debug)]
pub(super) struct Sessions<H> {
    by_pid: HashMap<ByteString, Session<H>, RandomState>,
    /// Those that were cut, the oldest first.
    cuts: BTreeMap<(Instant, u64), ByteString>,
    next_cut: u64,
    max_cuts: usize,
    kept_for: Duration,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session<H> {
    /// The position of the log when it began.
    pub(super) start: Position,
    /// When its client was cut off, if it was.
    pub(super) cut: Option<Cut>,
    /// Who knows what is in it.
    pub(super) holder: H,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) at: Instant,
    /// The position of the log.
    pub(super) position: Position,
    number: u64,
}

impl<H> Sessions<H> {
    pub(super) fn new(max_cuts: usize, kept_for: Duration) -> Self {
        Self { by_pid: HashMap::default(), cuts: BTreeMap::new(), next_cut: 0, max_cuts, kept_for }
    }

    pub(super) fn insert(&mut self, pid: ByteString, session: Session<H>) {
        if let Some(Cut { at, number, .. }) = session.cut {
            self.cuts.insert((at, number), pid.clone());
        }
        self.by_pid.insert(pid, session);
    }

    pub(super) fn get(&mut self, pid: &str) -> Option<&mut Session<H>> {
        self.by_pid.get_mut(pid)
    }

    /// Takes a session out: whoever gets it is the only one.
    pub(super) fn take(&mut self, pid: &str) -> Option<Session<H>> {
        let session = self.by_pid.remove(pid)?;
        if let Some(Cut { at, number, .. }) = session.cut {
            self.cuts.remove(&(at, number));
        }
        Some(session)
    }

    /// Notes that the client of a session was cut off. Where that makes too many, the one that is away longest cannot
    /// come back.
    pub(super) fn cut(&mut self, pid: &ByteString, position: Position, now: Instant) {
        self.expire(now);
        let Some(session) = self.by_pid.get_mut(pid) else { return };
        let number = self.next_cut;
        self.next_cut += 1;
        session.cut = Some(Cut { at: now, position, number });
        self.cuts.insert((now, number), pid.clone());
        if self.cuts.len() > self.max_cuts
            && let Some((_, oldest)) = self.cuts.pop_first()
        {
            self.by_pid.remove(&oldest);
        }
    }

    /// Forgets those whose time is up.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.cuts.first_entry()
            && now.saturating_duration_since(oldest.key().0) > self.kept_for
        {
            self.by_pid.remove(&oldest.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Position = Position { epoch: 7, number: 0 };

    fn sessions(pids: &[&'static str]) -> Sessions<()> {
        let mut sessions = Sessions::new(2, Duration::from_secs(10));
        for pid in pids {
            sessions.insert(ByteString::from_static(pid), Session { start: START, cut: None, holder: () });
        }
        sessions
    }

    #[test]
    fn a_session_is_taken_once() {
        let (mut sessions, now) = (sessions(&["a"]), Instant::now());
        sessions.cut(&"a".into(), START.next(), now);
        let taken = sessions.take("a").unwrap();
        assert_eq!(taken.cut.map(|cut| (cut.at, cut.position)), Some((now, START.next())));
        assert!(sessions.take("a").is_none() && sessions.cuts.is_empty());
        sessions.insert("a".into(), taken);
        assert_eq!(sessions.cuts.len(), 1);
        assert!(sessions.take("a").is_some());
    }

    #[test]
    fn time_ends_only_those_that_were_cut() {
        let (mut sessions, now) = (sessions(&["live", "cut", "late"]), Instant::now());
        sessions.cut(&"cut".into(), START, now);
        sessions.cut(&"late".into(), START, now + Duration::from_nanos(1));
        sessions.expire(now + Duration::from_secs(10));
        assert!(sessions.get("cut").is_some());
        sessions.expire(now + Duration::from_secs(10) + Duration::from_nanos(1));
        assert!(sessions.get("cut").is_none());
        assert!(sessions.get("live").is_some() && sessions.get("late").is_some());
    }

    #[test]
    fn too_many_cuts_end_the_oldest() {
        let (mut sessions, now) = (sessions(&["live", "a", "b", "c"]), Instant::now());
        for pid in ["b", "a", "c"] {
            sessions.cut(&pid.into(), START, now);
        }
        assert!(sessions.get("b").is_none());
        assert_eq!((sessions.by_pid.len(), sessions.cuts.len()), (3, 2));
    }
}
