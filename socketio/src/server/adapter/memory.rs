//! Rooms within one process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::{FixedState, RandomState};

use super::Target;
use crate::server::outgoing::{Flushes, Outgoing};
use crate::server::recovery::Position;
use crate::server::socket::{Room, Socket};

/// The sockets and rooms of one namespace in this instance.
///
/// Rooms come into being with their first member and go with their last. No method waits. Maps are sharded by room. A
/// broadcast takes a snapshot of the room's members, which is kept until the room changes, so none of their locks is held
/// while it fans out.
#[derive(Debug, Default)]
pub(in crate::server) struct Memory {
    everyone: Mutex<Members>,
    by_id: Sharded<Socket>,
    rooms: Sharded<Members>,
}

/// The members of one room, by their serial number.
#[derive(Debug, Default)]
struct Members {
    // Serial numbers are our own: nothing to defend against.
    members: HashMap<u64, Socket, FixedState>,
    snapshot: Option<Arc<[Socket]>>,
}

impl Members {
    fn insert(&mut self, socket: &Socket) {
        if self.members.insert(socket.serial(), socket.clone()).is_none() {
            self.snapshot = None;
        }
    }

    fn remove(&mut self, socket: &Socket) {
        if self.members.remove(&socket.serial()).is_some() {
            self.snapshot = None;
        }
    }

    fn snapshot(&mut self) -> Arc<[Socket]> {
        Arc::clone(self.snapshot.get_or_insert_with(|| self.members.values().cloned().collect()))
    }
}

const SHARDS: usize = 32;

/// A map in shards. Its keys may be chosen by clients, hence the seeded hash.
#[derive(Debug)]
struct Sharded<T> {
    hash: RandomState,
    shards: Box<[Mutex<HashMap<Room, T, RandomState>>]>,
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self { hash: RandomState::default(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl<T> Sharded<T> {
    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<Room, T, RandomState>> {
        use std::hash::BuildHasher;
        // The high bits, since the map inside of the shard uses the low ones of a hash of its own.
        let shard = (self.hash.hash_one(key) >> 32) as usize % SHARDS;
        lock(&self.shards[shard])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What happens under these locks leaves the maps whole at every point where it could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Returns the members of a room, and the one socket whose id it is.
    fn members(&self, room: &str) -> Option<Arc<[Socket]>> {
        let joined = self.rooms.shard(room).get_mut(room).map(Members::snapshot);
        let own = self.by_id.shard(room).get(room).cloned();
        match (joined, own) {
            (joined, None) => joined,
            (None, Some(own)) => Some(Arc::from([own])),
            // Others may join a room by that name; it stays the socket's own.
            (Some(joined), Some(own)) if joined.iter().any(|socket| socket.serial() == own.serial()) => Some(joined),
            (Some(joined), Some(own)) => Some(joined.iter().cloned().chain([own]).collect()),
        }
    }

    /// Calls `visit` for each socket of a target, once, without a lock.
    fn for_each(&self, target: &Target, mut visit: impl FnMut(&Socket)) {
        let mut excluded: HashMap<u64, (), FixedState> = HashMap::default();
        for room in &target.except_rooms {
            excluded.extend(self.members(room).iter().flat_map(|members| members.iter()).map(|s| (s.serial(), ())));
        }
        let mut wanted = |socket: &Socket| {
            // Middleware may have put a socket into a room that is not connected yet.
            if socket.is_connected() && !excluded.contains_key(&socket.serial()) && !target.except.contains(socket.id())
            {
                visit(socket);
            }
        };
        match &target.rooms[..] {
            [] => {
                let everyone = lock(&self.everyone).snapshot();
                for socket in everyone.iter() {
                    wanted(socket);
                }
            }
            [room] => {
                for socket in self.members(room).iter().flat_map(|members| members.iter()) {
                    wanted(socket);
                }
            }
            rooms => {
                let mut seen: HashMap<u64, (), FixedState> = HashMap::default();
                for room in rooms {
                    for socket in self.members(room).iter().flat_map(|members| members.iter()) {
                        if seen.insert(socket.serial(), ()).is_none() {
                            wanted(socket);
                        }
                    }
                }
            }
        }
    }

    /// Adds a socket that has just connected.
    pub(in crate::server) fn add(&self, socket: &Socket) {
        self.by_id.shard(socket.id()).insert(socket.id().as_str().into(), socket.clone());
        lock(&self.everyone).insert(socket);
    }

    /// Removes a socket from the namespace; false where it was not in it.
    pub(in crate::server) fn remove(&self, socket: &Socket) -> bool {
        lock(&self.everyone).remove(socket);
        let mut by_id = self.by_id.shard(socket.id());
        // Its client may be back already, with the same id.
        let own = by_id.get(socket.id().as_str()).is_some_and(|known| known.serial() == socket.serial());
        own && by_id.remove(socket.id().as_str()).is_some()
    }

    /// Puts a socket into a room, where it may be already. Calls `created` for a room that had nobody, while no other
    /// socket can join or leave it.
    pub(in crate::server) fn join(&self, socket: &Socket, room: Room, created: impl FnOnce(&Room)) {
        match self.rooms.shard(&room).entry(room) {
            Entry::Occupied(mut members) => members.get_mut().insert(socket),
            Entry::Vacant(vacant) => {
                created(vacant.key());
                vacant.insert(Members::default()).insert(socket);
            }
        }
    }

    /// Takes a socket out of a room, where it need not be. Calls `deleted` for a room that has nobody left, while no
    /// other socket can join or leave it.
    pub(in crate::server) fn leave(&self, socket: &Socket, room: &str, deleted: impl FnOnce()) {
        let mut rooms = self.rooms.shard(room);
        if let Some(members) = rooms.get_mut(room) {
            members.remove(socket);
            if members.members.is_empty() {
                rooms.remove(room);
                deleted();
            }
        }
    }

    /// Sends a packet to all sockets of a target, in order with other broadcasts from the same task.
    ///
    /// The namespace's policy decides about recipients that are too far behind; those that are not ready are passed over if
    /// `volatile`. They note the position of the packet, if it has one.
    pub(in crate::server) fn broadcast(&self, packet: &Outgoing, target: &Target, position: Option<Position>) {
        let bytes = packet.bytes();
        let mut flushes = Flushes::default();
        self.for_each(target, |socket| {
            if let Some(position) = position {
                socket.sent_until(position);
            }
            socket.deliver(packet.clone(), bytes, target.volatile, &mut flushes);
        });
    }

    /// Returns the sockets of a target.
    pub(in crate::server) fn sockets(&self, target: &Target) -> Vec<Socket> {
        let mut sockets = Vec::new();
        self.for_each(target, |socket| sockets.push(socket.clone()));
        sockets
    }

    /// Returns how many sockets are in the namespace.
    pub(in crate::server) fn len(&self) -> usize {
        lock(&self.everyone).members.len()
    }

    /// Returns how many rooms have members.
    pub(in crate::server) fn rooms(&self) -> usize {
        self.rooms.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Returns the names of all rooms, those of the sockets included.
    pub(in crate::server) fn names(&self) -> Vec<Room> {
        let mut names: Vec<Room> = Vec::new();
        self.rooms.shards.iter().for_each(|shard| names.extend(lock(shard).keys().cloned()));
        self.by_id.shards.iter().for_each(|shard| names.extend(lock(shard).keys().cloned()));
        names
    }

    /// Tells whether somebody is in a room, or is named like it.
    pub(in crate::server) fn has_room(&self, room: &str) -> bool {
        self.rooms.shard(room).contains_key(room) || self.by_id.shard(room).contains_key(room)
    }
}
