//! Connection state recovery: clients that were cut off come back as who they were, and get what they missed.
//!
//! One lock for each namespace covers an event's place in the order, the log and the queues of those who get it, so that
//! an event is either behind a client's return or in front of it, never both or neither. It is taken before any lock of a
//! socket or a room. Nothing that a broadcast does to a slow client takes it: that is left to the client's own task.
//!
//! A server that is alone draws the places itself and keeps the sessions in its memory. Where there are several instances,
//! the adapter draws the places for all of them and keeps the sessions where all get to them; each instance still has the
//! last events in its memory, and sends again from there.

mod changes;
mod log;
mod position;
mod sessions;
mod shared;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use serde::Deserialize;

pub(super) use self::changes::Changes;
pub use self::changes::{SessionChange, SessionRecord};
pub use self::position::{NoPosition, Position};

use self::log::{Limits, Log};
use self::sessions::{Cut, Session, Sessions};
use self::shared::Shared;
use super::adapter::{Memory, Target};
use super::namespace::{BoxFuture, Namespace};
use super::outgoing::Outgoing;
use super::socket::{EmitError, Saved, Socket, SocketId};

/// Settings of connection state recovery, see [`IoBuilder::recovery`](super::IoBuilder::recovery).
///
/// The limits are those of one namespace. Instances that share sessions have the same settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryConfig {
    /// How long a client that was cut off may stay away. Default: 2 min.
    pub max_disconnection: Duration,
    /// Clients that come back do not go through the middleware again. Default: true.
    pub skip_middlewares: bool,
    /// Most events that are kept to be sent again. Default: 100,000. A client that missed one which is not kept any more
    /// begins anew.
    pub max_packets: usize,
    /// Most bytes of such events. Default: 64 MiB.
    pub max_bytes: usize,
    /// Most clients that were cut off, from this instance, and may still come back. Default: 100,000. Beyond it those that
    /// are away longest begin anew.
    pub max_sessions: usize,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            max_disconnection: Duration::from_secs(120),
            skip_middlewares: true,
            max_packets: 100_000,
            max_bytes: 64 << 20,
            max_sessions: 100_000,
        }
    }
}

/// The recovery of one namespace.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) skip_middlewares: bool,
    /// What one client may have waiting for it.
    max_missed_bytes: usize,
    state: Mutex<State>,
    /// Set where instances share their sessions.
    shared: Option<Shared>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Those of a server that is alone.
    sessions: Sessions<Holder>,
}

/// Who knows what belongs to a session.
#[derive(Debug)]
enum Holder {
    /// Its socket, connected or with handlers still at work.
    Socket(Socket),
    Saved(Saved),
}

/// What a client asks for that wants to come back.
#[derive(Deserialize)]
struct Wish {
    pid: String,
    offset: Option<String>,
}

/// A session on its way to the socket that comes back.
pub(super) struct Claim {
    pid: ByteString,
    /// How often it has been taken over.
    generation: u64,
    start: Position,
    sent: Position,
    from: Position,
    cut: Option<Cut>,
    saved: Saved,
}

impl Claim {
    /// Returns the public id that the client keeps.
    pub(super) fn id(&self) -> &SocketId {
        &self.saved.id
    }
}

/// What has become of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    Done,
    /// Some of what the client has missed is gone.
    TooLate,
    /// The client has opened yet another connection meanwhile, and has its session there.
    Superseded,
}

/// The answer to a client that wants to come back.
pub(super) enum Claiming {
    Known(Option<Box<Claim>>),
    /// Other instances have to be asked.
    Asking(BoxFuture<Option<Box<Claim>>>),
}

/// Takes the session that a CONNECT's credentials ask for, if all its client missed is there. Its old socket, if nobody
/// has noticed its end yet, is out of the namespace from here on, or soon where that is another instance's.
pub(super) fn claim(namespace: &Namespace, auth: Option<&str>) -> Claiming {
    let recovery = namespace.shared().recovery();
    let wish = auth.filter(|_| recovery.is_some()).and_then(|auth| serde_json::from_str::<Wish>(auth).ok());
    match (recovery, wish) {
        (Some(Recovery { shared: Some(_), .. }), Some(wish)) => {
            Claiming::Asking(Box::pin(shared::claim(namespace.clone(), wish)))
        }
        (Some(recovery), Some(wish)) => Claiming::Known(recovery.claim(&wish).map(Box::new)),
        (Some(_) | None, _) => Claiming::Known(None),
    }
}

impl Recovery {
    /// `silence` is how long a client may be cut off before anybody notices; with `changes` the sessions are shared, and
    /// what becomes of them is noted there. `None` where there is no randomness.
    pub(super) fn new(
        config: &RecoveryConfig,
        silence: Duration,
        max_missed_bytes: usize,
        changes: Option<Arc<Changes>>,
    ) -> Option<Self> {
        let limits = Limits {
            packets: config.max_packets,
            bytes: config.max_bytes,
            age: config.max_disconnection.saturating_add(silence),
        };
        let mut epoch = [0; 4];
        if changes.is_none() {
            getrandom::fill(&mut epoch).ok()?;
        }
        let start = Position { epoch: u32::from_be_bytes(epoch).into(), number: 0 };
        let state = State {
            log: Log::new(limits, start),
            sessions: Sessions::new(config.max_sessions, config.max_disconnection),
        };
        Some(Self {
            skip_middlewares: config.skip_middlewares,
            max_missed_bytes,
            state: Mutex::new(state),
            shared: changes.map(|changes| Shared::new(config, changes)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of the application's runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an event its place, and keeps it.
    fn append(&self, state: &mut State, position: Position, packet: &Outgoing, target: Target) -> Outgoing {
        let packet = packet.with_offset(&position.to_string());
        state.log.append(position, packet.clone(), target, now());
        packet
    }

    /// Sends an event to the sockets of a target, and keeps it for those who are to get it later.
    pub(super) fn broadcast(&self, memory: &Memory, packet: &Outgoing, target: &Target) {
        let mut state = self.lock();
        let position = state.log.head().next();
        let packet = self.append(&mut state, position, packet, target.clone());
        memory.broadcast(&packet, target, Some(position));
    }

    /// Sends an event to one socket, or keeps it where that has just been cut off.
    pub(super) fn emit(&self, socket: &Socket, packet: &Outgoing) -> Result<(), EmitError> {
        let target = Target { rooms: vec![socket.id().as_str().into()], ..Target::default() };
        if self.shared.is_some() {
            if socket.is_gone() {
                return Err(EmitError::Closed);
            }
            socket.namespace().shared().broadcast(packet, &target);
            return Ok(());
        }
        let mut state = self.lock();
        if socket.is_gone() {
            return Err(EmitError::Closed);
        }
        if socket.is_connected() && !socket.has_room_for(packet.bytes() + OFFSET_BYTES) {
            return Err(EmitError::Full);
        }
        let position = state.log.head().next();
        let packet = self.append(&mut state, position, packet, target);
        if socket.is_connected() {
            socket.sent_until(position);
            // One whose connection has just ended gets it from the log; so does one that another task has filled meanwhile.
            if socket.send(packet, false) == Err(EmitError::Full) {
                socket.abort();
            }
        }
        Ok(())
    }

    /// Sends an event that has no place to the sockets of a target.
    ///
    /// The published client takes the last text of any event for its offset. Where there is one, the offset that the
    /// client has anyway follows it.
    pub(super) fn pass(&self, memory: &Memory, packet: &Outgoing, target: &Target) {
        if packet.ends_with_text() {
            let state = self.lock();
            memory.broadcast(&packet.with_offset(&state.log.head().to_string()), target, None);
        } else {
            memory.broadcast(packet, target, None);
        }
    }

    /// Sends an event that has no place to one socket, as [`pass`](Self::pass) does.
    pub(super) fn pass_to(&self, socket: &Socket, packet: Outgoing, volatile: bool) -> Result<(), EmitError> {
        if packet.ends_with_text() {
            let state = self.lock();
            socket.send(packet.with_offset(&state.log.head().to_string()), volatile)
        } else {
            socket.send(packet, volatile)
        }
    }

    fn claim(&self, wish: &Wish) -> Option<Claim> {
        let mut state = self.lock();
        let State { log, sessions, .. } = &mut *state;
        sessions.expire(now());
        let session = sessions.get(&wish.pid)?;
        let sent = match &session.holder {
            Holder::Socket(socket) => socket.sent(),
            Holder::Saved(saved) => saved.sent,
        };
        let sent = Position { number: sent, ..session.start };
        let received = match &wish.offset {
            None => session.start,
            Some(offset) => match offset.parse().ok().filter(|offset| (session.start..=log.head()).contains(offset)) {
                Some(offset) => offset,
                // Nothing can be missed where nothing was sent.
                None if sent == session.start => session.start,
                None => return None,
            },
        };
        // Where all that was sent has arrived, nothing from before the cut is needed, however long ago the last was.
        let from = if received >= sent { session.cut.map_or(log.head(), |cut| cut.position) } else { received };
        if !log.reaches(from) {
            return None;
        }
        let Session { start, cut, holder } = sessions.take(&wish.pid)?;
        let saved = match holder {
            Holder::Socket(socket) => socket.surrender(),
            Holder::Saved(saved) => saved,
        };
        Some(Claim { pid: wish.pid.as_str().into(), generation: 0, start, sent, from, cut, saved })
    }

    /// Puts a session back whose client was lost again on its way in. One that is shared has not been taken away.
    pub(super) fn give_back(&self, claim: Claim) {
        let Claim { pid, start, from, cut, saved, .. } = claim;
        if self.shared.is_none() {
            let mut state = self.lock();
            state.sessions.insert(pid.clone(), Session { start, cut, holder: Holder::Saved(saved) });
            if cut.is_none() {
                state.sessions.cut(&pid, from, now());
            }
        }
    }

    /// Lets a socket take over a session, and passes what it missed to `send`.
    pub(super) fn restore(&self, socket: &Socket, claim: Claim, send: impl FnMut(Outgoing)) -> Restored {
        let Claim { pid, generation, start, sent, from, mut saved, .. } = claim;
        let mut state = self.lock();
        if let Some(shared) = &self.shared {
            if shared.is_ahead(&pid, generation) {
                return Restored::Superseded;
            }
            saved = shared.take(&pid).unwrap_or(saved);
        }
        let missed = state.log.after(from, socket.id(), &saved.rooms);
        let fits = |missed: &Vec<(Position, Outgoing)>| {
            missed.iter().map(|(_, packet)| packet.bytes()).sum::<usize>() <= self.max_missed_bytes
        };
        let Some(missed) = missed.filter(fits) else {
            if let Some(shared) = &self.shared {
                shared.end(pid, generation);
            }
            return Restored::TooLate;
        };
        let sent = missed.last().map_or(sent, |(position, _)| *position);
        socket.attach(pid.clone(), true, sent.number, generation, from);
        socket.enter();
        socket.adopt(saved);
        missed.into_iter().map(|(_, packet)| packet).for_each(send);
        match &self.shared {
            Some(shared) => shared.enter(socket, pid),
            None => state.sessions.insert(pid, Session { start, cut: None, holder: Holder::Socket(socket.clone()) }),
        }
        Restored::Done
    }

    /// Lets a socket in that can come back from here on.
    pub(super) fn enter(&self, socket: &Socket) {
        let mut state = self.lock();
        let knows = self.shared.as_ref().is_none_or(Shared::has_begun);
        if let Some(pid) = SocketId::random().filter(|_| knows) {
            let (pid, start) = (ByteString::from(pid.as_str()), state.log.head());
            socket.attach(pid.clone(), false, start.number, FIRST, start);
            match &self.shared {
                Some(shared) => shared.enter(socket, pid),
                None => {
                    state.sessions.insert(pid, Session { start, cut: None, holder: Holder::Socket(socket.clone()) });
                }
            }
        }
        socket.enter();
    }

    /// Notes the end of a socket's connection; `keep` says whether its client may come back.
    pub(super) fn hang_up(&self, socket: &Socket, pid: &ByteString, keep: bool) {
        let mut state = self.lock();
        socket.unplug();
        if let Some(shared) = &self.shared {
            return shared.hang_up(socket, pid, keep);
        }
        let State { log, sessions, .. } = &mut *state;
        if sessions.get(pid).is_some_and(|session| session.is_of(socket)) {
            if keep {
                sessions.cut(pid, log.head(), now());
            } else {
                drop(sessions.take(pid));
            }
        }
    }

    /// Takes a socket out of its namespace, and what a session needs out of the socket.
    pub(super) fn exit(&self, socket: &Socket, pid: &ByteString) {
        let mut state = self.lock();
        socket.unplug();
        let Some(saved) = socket.exit_saving() else { return };
        if let Some(shared) = &self.shared {
            return shared.exit(socket, pid);
        }
        let Some(session) = state.sessions.get(pid).filter(|session| session.is_of(socket)) else { return };
        if session.cut.is_some() {
            session.holder = Holder::Saved(saved);
        } else {
            drop(state.sessions.take(pid));
        }
    }
}

impl Session<Holder> {
    fn is_of(&self, socket: &Socket) -> bool {
        matches!(&self.holder, Holder::Socket(holder) if holder.serial() == socket.serial())
    }
}

/// More than an event grows by its offset.
const OFFSET_BYTES: usize = 64;

/// The generation of a session that nobody has taken over yet.
const FIRST: u64 = 1;

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
