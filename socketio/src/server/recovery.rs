//! Connection state recovery: clients that were cut off come back as who they were, and get what they missed.
//!
//! One lock for each namespace covers an event's place in the order, the log and the queues of those who get it, so that
//! an event is either behind a client's return or in front of it, never both or neither. It is taken before any lock of a
//! socket or a room. Nothing that a broadcast does to a slow client takes it: that is left to the client's own task.

mod log;
mod sessions;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use serde::Deserialize;

use self::log::{Limits, Log};
use self::sessions::{Cut, Session, Sessions};
use super::adapter::{Memory, Target};
use super::outgoing::Outgoing;
use super::socket::{Closed, Saved, Socket, SocketId};

/// Settings of connection state recovery, see [`IoBuilder::recovery`](super::IoBuilder::recovery).
///
/// The limits are those of one namespace.
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
    /// Most clients that were cut off and may still come back. Default: 100,000. Beyond it those that are away longest
    /// begin anew.
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
    /// What offsets begin with: those of another process mean nothing here.
    prefix: Box<str>,
    /// What one client may have waiting for it.
    max_missed_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
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
    start: u64,
    sent: u64,
    from: u64,
    cut: Option<Cut>,
    saved: Saved,
}

impl Claim {
    /// Returns the public id that the client keeps.
    pub(super) fn id(&self) -> &SocketId {
        &self.saved.id
    }
}

impl Recovery {
    /// `silence` is how long a client may be cut off before anybody notices. `None` where there is no randomness.
    pub(super) fn new(config: &RecoveryConfig, silence: Duration, max_missed_bytes: usize) -> Option<Self> {
        let prefix = SocketId::random()?.as_str().get(..PREFIX_LEN)?.into();
        let limits = Limits {
            packets: config.max_packets,
            bytes: config.max_bytes,
            age: config.max_disconnection.saturating_add(silence),
        };
        let state =
            State { log: Log::new(limits), sessions: Sessions::new(config.max_sessions, config.max_disconnection) };
        Some(Self { skip_middlewares: config.skip_middlewares, prefix, max_missed_bytes, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of the application's runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an event its place, and keeps it.
    fn append(&self, state: &mut State, packet: &Outgoing, target: Target) -> Outgoing {
        let packet = packet.with_offset(&format!("{}.{}", self.prefix, state.log.head()));
        state.log.append(packet.clone(), target, now());
        packet
    }

    /// Sends an event to the sockets of a target, and keeps it for those who are to get it later.
    pub(super) fn broadcast(&self, memory: &Memory, packet: &Outgoing, target: &Target) {
        let mut state = self.lock();
        let packet = self.append(&mut state, packet, target.clone());
        memory.broadcast_until(&packet, target, state.log.head());
    }

    /// Sends an event to one socket, or keeps it where that has just been cut off.
    pub(super) fn emit(&self, socket: &Socket, packet: &Outgoing) -> Result<(), Closed> {
        let mut state = self.lock();
        if socket.is_gone() {
            return Err(Closed);
        }
        let target = Target { rooms: vec![socket.id().as_str().into()], ..Target::default() };
        let packet = self.append(&mut state, packet, target);
        if socket.is_connected() {
            socket.sent_until(state.log.head());
            // One whose connection has just ended gets it from the log.
            let _gone = socket.send(packet, false);
        }
        Ok(())
    }

    /// Takes the session that a CONNECT's credentials ask for, if all its client missed is there. Its old socket, if
    /// nobody has noticed its end yet, is out of the namespace from here on.
    pub(super) fn claim(&self, auth: Option<&str>) -> Option<Claim> {
        let Wish { pid, offset } = serde_json::from_str(auth?).ok()?;
        let mut state = self.lock();
        let State { log, sessions } = &mut *state;
        sessions.expire(now());
        let session = sessions.get(&pid)?;
        let sent = match &session.holder {
            Holder::Socket(socket) => socket.sent(),
            Holder::Saved(saved) => saved.sent,
        };
        let received = self.received(offset.as_deref(), session.start, sent)?;
        // Where all that was sent has arrived, nothing from before the cut is needed, however long ago the last was.
        let from = if received >= sent { session.cut.map_or(log.head(), |cut| cut.position) } else { received };
        if !log.reaches(from) {
            return None;
        }
        let Session { start, cut, holder } = sessions.take(&pid)?;
        let saved = match holder {
            Holder::Socket(socket) => socket.surrender(),
            Holder::Saved(saved) => saved,
        };
        Some(Claim { pid: pid.into(), start, sent, from, cut, saved })
    }

    /// Up to which position a client has got everything that was for it.
    fn received(&self, offset: Option<&str>, start: u64, sent: u64) -> Option<u64> {
        let Some(offset) = offset else { return Some(start) };
        let ours = offset.strip_prefix(&*self.prefix).and_then(|rest| rest.strip_prefix('.'));
        match ours.and_then(|number| number.parse::<u64>().ok()) {
            Some(number) if number < sent => Some(start.max(number + 1)),
            // The client takes any string that ends an event for an offset. Nothing can be missed where nothing was sent.
            Some(_) | None => (sent == start).then_some(start),
        }
    }

    /// Puts a session back whose client was lost again on its way in.
    pub(super) fn give_back(&self, claim: Claim) {
        let Claim { pid, start, from, cut, saved, .. } = claim;
        let mut state = self.lock();
        state.sessions.insert(pid.clone(), Session { start, cut, holder: Holder::Saved(saved) });
        if cut.is_none() {
            state.sessions.cut(&pid, from, now());
        }
    }

    /// Lets a socket take over a session, and passes what it missed to `send`; false where some of that is gone.
    pub(super) fn restore(&self, socket: &Socket, claim: Claim, send: impl FnMut(Outgoing)) -> bool {
        let Claim { pid, start, sent, from, saved, .. } = claim;
        let mut state = self.lock();
        let Some(missed) = state.log.since(from, socket.id(), &saved.rooms) else { return false };
        if missed.iter().map(|(_, packet)| packet.bytes()).sum::<usize>() > self.max_missed_bytes {
            return false;
        }
        let sent = missed.last().map_or(sent, |(position, _)| position + 1);
        socket.attach(pid.clone(), true, sent);
        socket.enter();
        socket.adopt(saved);
        missed.into_iter().map(|(_, packet)| packet).for_each(send);
        state.sessions.insert(pid, Session { start, cut: None, holder: Holder::Socket(socket.clone()) });
        true
    }

    /// Lets a socket in that can come back from here on.
    pub(super) fn enter(&self, socket: &Socket) {
        let mut state = self.lock();
        if let Some(pid) = SocketId::random() {
            let (pid, start) = (ByteString::from(pid.as_str()), state.log.head());
            socket.attach(pid.clone(), false, start);
            state.sessions.insert(pid, Session { start, cut: None, holder: Holder::Socket(socket.clone()) });
        }
        socket.enter();
    }

    /// Notes the end of a socket's connection; `keep` says whether its client may come back.
    pub(super) fn hang_up(&self, socket: &Socket, pid: &ByteString, keep: bool) {
        let mut state = self.lock();
        socket.unplug();
        let State { log, sessions } = &mut *state;
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

/// Random characters that tell the offsets of this process from those of others.
const PREFIX_LEN: usize = 8;

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
