//! Which connection is in which room.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::cell::Cell;
use crate::sync::room::ConnectionId;

/// Where each connection is; one that is in no room is not in here.
#[derive(Debug, Default)]
pub(super) struct Connections {
    shards: [Mutex<FxHashMap<ConnectionId, Place>>; SHARDS],
}

/// Where a connection is.
#[derive(Debug)]
enum Place {
    /// On its way into a room.
    Joining,
    /// Gone while it was on its way.
    Gone,
    /// In a room.
    In(Arc<Cell>),
}

/// A connection on its way into a room; dropped before it has arrived, it is in no room.
#[derive(Debug)]
pub(super) struct Claim {
    connections: Arc<Connections>,
    pub(super) connection: ConnectionId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.connections.abandon(self.connection);
    }
}

impl Connections {
    /// Notes that a connection is on its way into a room; none if it is in one, or on its way, already.
    pub(super) fn begin(self: &Arc<Self>, connection: ConnectionId) -> Option<Claim> {
        match self.shard(connection).entry(connection) {
            Entry::Vacant(entry) => {
                entry.insert(Place::Joining);
                Some(Claim { connections: Arc::clone(self), connection })
            }
            Entry::Occupied(_) => None,
        }
    }

    /// Notes that a connection has arrived, if it has not before; `false` if it is gone by now.
    ///
    /// From here on its end is the room's business, which it reaches after the join.
    pub(super) fn arrive(&self, connection: ConnectionId, cell: &Arc<Cell>) -> bool {
        match self.shard(connection).get_mut(&connection) {
            Some(place @ Place::Joining) => {
                *place = Place::In(Arc::clone(cell));
                true
            }
            Some(Place::In(held)) => held.key == cell.key,
            Some(Place::Gone) | None => false,
        }
    }

    fn abandon(&self, connection: ConnectionId) {
        if let Entry::Occupied(entry) = self.shard(connection).entry(connection) {
            match entry.get() {
                Place::Joining | Place::Gone => drop(entry.remove()),
                Place::In(_) => {}
            }
        }
    }

    /// Notes the end of a connection, and says which room has to hear of it.
    pub(super) fn end(&self, connection: ConnectionId) -> Option<Arc<Cell>> {
        match self.shard(connection).get_mut(&connection)? {
            place @ Place::Joining => {
                *place = Place::Gone;
                None
            }
            Place::Gone => None,
            Place::In(cell) => Some(Arc::clone(cell)),
        }
    }

    /// The room a connection is in.
    pub(super) fn room_of(&self, connection: ConnectionId) -> Option<Arc<Cell>> {
        match self.shard(connection).get(&connection)? {
            Place::In(cell) => Some(Arc::clone(cell)),
            Place::Joining | Place::Gone => None,
        }
    }

    /// Whether a connection has arrived in this room.
    pub(super) fn is_in(&self, connection: ConnectionId, cell: &Cell) -> bool {
        self.room_of(connection).is_some_and(|held| held.key == cell.key)
    }

    /// Forgets a connection that a room has let go.
    pub(super) fn remove(&self, connection: ConnectionId) {
        self.shard(connection).remove(&connection);
    }

    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, connection: ConnectionId) -> MutexGuard<'_, FxHashMap<ConnectionId, Place>> {
        let shard = &self.shards[(connection.0 % SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every event of every member passes here, so that one lock for all would be felt.
const SHARDS: usize = 16;
