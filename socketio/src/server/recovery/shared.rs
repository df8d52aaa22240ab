//! Sessions that all instances share: this instance's part.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use foldhash::fast::RandomState;
use tokio::sync::watch;
use tokio::time::timeout;

use super::changes::{Changes, SessionRecord};
use super::position::Position;
use super::{Claim, Recovery, RecoveryConfig, Wish, now};
use crate::server::adapter::{Memory, Target};
use crate::server::namespace::Namespace;
use crate::server::outgoing::Outgoing;
use crate::server::socket::{Saved, Socket, SocketId};

/// How long a client that comes back waits until this instance has what it had in the other: an instance with more to do
/// than it can is behind, but what the client has missed is on its way.
const CATCH_UP: Duration = Duration::from_secs(30);

/// What this instance knows of shared sessions.
#[derive(Debug)]
pub(super) struct Shared {
    /// The position of the newest event that has come; `None` until the first are here.
    head: watch::Sender<Option<Position>>,
    changes: Arc<Changes>,
    sockets: Mutex<Sockets>,
    max_sessions: usize,
    max_disconnection: Duration,
}

#[derive(Debug, Default)]
struct Sockets {
    /// The sockets of this instance, until they have left.
    by_pid: HashMap<ByteString, Socket, RandomState>,
    /// Sessions that were cut off from this instance, the oldest first: until when they are kept.
    away: VecDeque<(Instant, ByteString, u64)>,
}

impl Shared {
    pub(super) fn new(config: &RecoveryConfig, changes: Arc<Changes>) -> Self {
        Self {
            head: watch::Sender::new(None),
            changes,
            sockets: Mutex::default(),
            max_sessions: config.max_sessions,
            max_disconnection: config.max_disconnection,
        }
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        // Taken under the lock of the recovery. Nothing under it can panic halfway.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether it is known where the order of events is by now.
    pub(super) fn has_begun(&self) -> bool {
        self.head.borrow().is_some()
    }

    /// Tells whether a socket here has the session from a later claim.
    pub(super) fn is_ahead(&self, pid: &str, generation: u64) -> bool {
        let sockets = self.sockets();
        sockets.by_pid.get(pid).and_then(Socket::standing).is_some_and(|(of, _)| of > generation)
    }

    /// Takes what the socket of a session has that is still here, and lets it leave.
    pub(super) fn take(&self, pid: &str) -> Option<Saved> {
        let socket = self.sockets().by_pid.remove(pid)?;
        // What only this process can keep would come back or not by chance.
        Some(Saved { extensions: http::Extensions::new(), ..socket.surrender() })
    }

    pub(super) fn enter(&self, socket: &Socket, pid: ByteString) {
        self.sockets().by_pid.insert(pid.clone(), socket.clone());
        self.changes.whole(pid, socket);
    }

    pub(super) fn hang_up(&self, socket: &Socket, pid: &ByteString, keep: bool) {
        let mut sockets = self.sockets();
        let Some((generation, _)) = socket.standing().filter(|_| sockets.holds(pid, socket)) else { return };
        if !keep {
            return self.changes.end(pid.clone(), generation);
        }
        self.changes.cut(pid, socket, self.max_disconnection);
        let now = now();
        while sockets.away.front().is_some_and(|(until, ..)| *until < now) {
            sockets.away.pop_front();
        }
        sockets.away.push_back((now + self.max_disconnection, pid.clone(), generation));
        if sockets.away.len() > self.max_sessions
            && let Some((_, pid, generation)) = sockets.away.pop_front()
        {
            self.changes.end(pid, generation);
        }
    }

    pub(super) fn exit(&self, socket: &Socket, pid: &ByteString) {
        let mut sockets = self.sockets();
        if sockets.holds(pid, socket) {
            sockets.by_pid.remove(pid);
        }
    }

    pub(super) fn end(&self, pid: ByteString, generation: u64) {
        self.changes.end(pid, generation);
    }
}

impl Sockets {
    fn holds(&self, pid: &ByteString, socket: &Socket) -> bool {
        self.by_pid.get(pid).is_some_and(|held| held.serial() == socket.serial())
    }
}

/// Takes over a session from whoever has it, if all its client missed is or will soon be here.
pub(super) async fn claim(namespace: Namespace, wish: Wish) -> Option<Box<Claim>> {
    let (recovery, adapter) = (namespace.shared().recovery()?, namespace.shared().adapter()?);
    // Neither can be anything of ours otherwise.
    SocketId::parse(&wish.pid)?;
    let offset = match wish.offset {
        Some(offset) => Some(offset.parse::<Position>().ok()?),
        None => None,
    };
    let SessionRecord { pid, generation, id, rooms, data, seen, .. } = adapter.claim_session(&wish.pid).await?;
    let (pid, shared) = (ByteString::from(pid), recovery.shared.as_ref()?);
    let from = offset.map_or(seen, |offset| offset.max(seen));
    let mut head = shared.head.subscribe();
    let caught_up = timeout(CATCH_UP, head.wait_for(|head| head.is_some_and(|head| head >= from))).await;
    let id = SocketId::parse(&id).filter(|_| caught_up.is_ok_and(|head| head.is_ok()));
    let Some(id) = id.filter(|_| recovery.lock().log.reaches(from)) else {
        shared.end(pid, generation);
        return None;
    };
    let saved = Saved { id, rooms, sent: 0, data, extensions: http::Extensions::new() };
    Some(Box::new(Claim { pid, generation, start: seen, sent: from, from, cut: None, saved }))
}

/// What the adapter of shared sessions says.
impl Recovery {
    /// Takes note of an event that has its place, behind all that have theirs, and sends it to the sockets of its target
    /// in this instance if they are to have it.
    pub(in crate::server) fn place(
        &self,
        memory: &Memory,
        position: Position,
        packet: &Outgoing,
        target: &Target,
        deliver: bool,
    ) {
        let Some(shared) = &self.shared else { return };
        let mut state = self.lock();
        let packet = self.append(&mut state, position, packet, target.clone());
        if deliver {
            memory.broadcast(&packet, target, None);
        }
        if shared.has_begun() {
            shared.head.send_replace(Some(position));
        }
    }

    /// The events behind a position are to come, then [`begun`](Self::begun).
    pub(in crate::server) fn begin(&self, floor: Position) {
        if let Some(shared) = &self.shared {
            let mut state = self.lock();
            state.log.begin(floor);
            shared.head.send_replace(None);
        }
    }

    /// What comes from here on is new.
    pub(in crate::server) fn begun(&self) {
        if let Some(shared) = &self.shared {
            let state = self.lock();
            shared.head.send_replace(Some(state.log.head()));
        }
    }

    /// Events have been lost: whoever has not received the newest one begins anew.
    pub(in crate::server) fn lost(&self) {
        if let Some(shared) = &self.shared {
            let mut state = self.lock();
            let head = state.log.head().next();
            state.log.begin(head);
            if shared.has_begun() {
                shared.head.send_replace(Some(head));
            }
        }
    }

    /// Returns the position behind which events are still needed.
    pub(in crate::server) fn floor(&self) -> Position {
        let mut state = self.lock();
        state.log.trim(now());
        state.log.floor()
    }

    /// A session has been taken over: its socket here is out of the namespace from now on.
    pub(in crate::server) fn superseded(&self, pid: &str, generation: u64) {
        let Some(shared) = &self.shared else { return };
        let _state = self.lock();
        let replaced =
            shared.sockets().by_pid.get(pid).and_then(Socket::standing).is_some_and(|(of, _)| of < generation);
        if replaced {
            drop(shared.take(pid));
        }
    }

    /// A session that is connected here is not noted down any more.
    pub(in crate::server) fn forgotten(&self, pid: &str) {
        let Some(shared) = &self.shared else { return };
        let _state = self.lock();
        let socket = shared.sockets().by_pid.get(pid).filter(|socket| socket.is_connected()).cloned();
        if let Some(socket) = socket {
            shared.changes.whole(pid.into(), &socket);
        }
    }

    /// The client of a socket has answered a ping.
    pub(in crate::server) fn confirm(&self, socket: &Socket) {
        if let (Some(shared), Some(pid)) = (&self.shared, socket.pid()) {
            // What it had been sent at the last pong came before this one's ping.
            socket.confirm(self.lock().log.head());
            shared.changes.seen(pid, socket);
        }
    }

    /// The rooms or the data of a socket have changed. Takes none of the locks above.
    pub(in crate::server) fn changed(&self, socket: &Socket) {
        if let (Some(shared), Some(pid), true) = (&self.shared, socket.pid(), socket.is_connected()) {
            shared.changes.whole(pid, socket);
        }
    }
}
