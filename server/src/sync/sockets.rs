//! From rooms to sockets: effects carried out over Socket.IO.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustc_hash::FxBuildHasher;
use serde::Serialize;
use serde_json::value::RawValue;
use socketio::{Namespace, Socket};

use super::emit;
use super::event::{RoomState, ServerEvent};
use super::room::{Audience, ConnectionId};
use crate::state::Publisher;

/// The open connections, by the number that rooms know them by.
#[derive(Debug, Default)]
pub struct Sockets {
    namespace: RwLock<Option<Namespace>>,
    shards: [Mutex<HashMap<ConnectionId, Socket, FxBuildHasher>>; SHARDS],
}

/// Every event to one connection passes here, so that one lock for all would be felt.
const SHARDS: usize = 16;

impl Sockets {
    /// Sets the namespace that rooms broadcast in; to be called before the first connection.
    pub fn attach(&self, namespace: Namespace) {
        *self.namespace.write().unwrap_or_else(PoisonError::into_inner) = Some(namespace);
    }

    /// Lets go of the namespace; to be called in the end, since its handlers hold what holds this.
    pub fn detach(&self) {
        *self.namespace.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn namespace(&self) -> Option<Namespace> {
        self.namespace.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn insert(&self, connection: ConnectionId, socket: &Socket) {
        self.shard(connection).insert(connection, socket.clone());
    }

    pub(super) fn remove(&self, connection: ConnectionId) {
        self.shard(connection).remove(&connection);
    }

    fn find(&self, connection: ConnectionId) -> Option<Socket> {
        self.shard(connection).get(&connection).cloned()
    }

    fn shard(&self, connection: ConnectionId) -> MutexGuard<'_, HashMap<ConnectionId, Socket, FxBuildHasher>> {
        let shard = &self.shards[(connection.0 % SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every client that the server is about to stop, and when to come back: each at another moment within
    /// `window_ms`, so that they do not come all at once.
    pub fn announce_shutdown(&self, window_ms: u64) {
        let Some(namespace) = self.namespace() else { return };
        let sockets = namespace.broadcast().sockets();
        let count = sockets.len().max(1) as u64;
        for (place, socket) in sockets.iter().enumerate() {
            let reconnect_in = MIN_RECONNECT_MS + window_ms * place as u64 / count;
            let event = ServerEvent::Shutdown { message: "the server is restarting".into(), reconnect_in };
            emit(socket, event.name(), &event);
        }
    }

    fn tell(&self, room_id: &str, to: Audience, name: &str, payload: &(impl Serialize + ?Sized)) {
        let but = match to {
            Audience::One(connection) => return self.to(connection, name, &payload),
            Audience::Others(connection) => self.find(connection),
            Audience::All => None,
        };
        let audience = match but {
            Some(socket) => socket.to(room_id),
            None => match self.namespace() {
                Some(namespace) => namespace.to(room_id),
                None => return,
            },
        };
        if let Err(error) = audience.emit(name, payload) {
            tracing::error!(event = name, %error, "an event could not be encoded");
        }
    }

    fn to(&self, connection: ConnectionId, name: &str, payload: &impl Serialize) {
        if let Some(socket) = self.find(connection) {
            emit(&socket, name, payload);
        }
    }
}

/// No client should be back before the process has ended.
const MIN_RECONNECT_MS: u64 = 500;

impl Publisher for Arc<Sockets> {
    fn is_open(&self, connection: ConnectionId) -> bool {
        self.find(connection).is_some_and(|socket| socket.is_connected())
    }

    fn admit(&self, room_id: &str, connection: ConnectionId) {
        if let Some(socket) = self.find(connection) {
            socket.join(room_id);
        }
    }

    fn state(&self, connection: ConnectionId, state: &Arc<RoomState>) {
        self.to(connection, "room:state", &**state);
    }

    fn send(&self, room_id: &str, to: Audience, event: &ServerEvent) {
        self.tell(room_id, to, event.name(), event);
    }

    fn relay(&self, room_id: &str, to: Audience, name: &str, payload: &RawValue) {
        self.tell(room_id, to, name, payload);
    }

    fn cut(&self, connection: ConnectionId) {
        if let Some(socket) = self.find(connection) {
            socket.close_connection();
        }
    }

    fn remove(&self, room_id: &str, connection: ConnectionId) {
        if let Some(socket) = self.find(connection) {
            socket.leave(room_id);
        }
    }
}
