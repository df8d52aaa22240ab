//! The realtime state: the rooms people are in right now.
//!
//! The state is the shell around [`Room`](crate::sync::room::Room). Whatever keeps it promises the same:
//!
//! - A room is serial: one command after the other, and what each publishes goes out in that order.
//! - A join and every change the owner makes is durable before anybody hears of it. If the store fails or takes too
//!   long, the answer is UNAVAILABLE and nothing has happened.
//! - A leave, a lost connection and the end of a grace count at once. The store learns of them when it can.
//! - Playback is written behind, within [`StateOptions::flush_after_ms`] if the store works: what came later is missing
//!   after a crash. A restart never gives out a sequence number twice.
//! - After a restart everybody is offline, and has the grace to come back.
//!
//! [`rooms`] keeps the rooms in this process, and where there are other instances agrees with them by [`cluster`].

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;

use crate::store;
use crate::sync::event::{RoomState, ServerEvent};
use crate::sync::room::{Audience, ConnectionId, Identity, RoomOptions};

pub mod cluster;
pub mod rooms;

pub use rooms::{Admission, Rooms};

/// The way from a room to the sockets of its members.
///
/// Called in the order of the effects, by one room at a time for each room, while the room is locked: a call hands over
/// to bounded queues and returns at once. A connection that is gone by now is nobody's error.
pub trait Publisher: Send + Sync + 'static {
    /// Tells whether a connection still lasts. One that does not takes no seat, even if the room has yet to hear of its
    /// end.
    fn is_open(&self, connection: ConnectionId) -> bool;

    /// From here on the connection gets what is sent to all in this room.
    fn admit(&self, room_id: &str, connection: ConnectionId);

    /// Sends `room:state` to a connection, right after it was admitted.
    fn state(&self, connection: ConnectionId, state: &Arc<RoomState>);

    /// Sends an event to members of a room; `event` is its payload, `event.name()` its name.
    fn send(&self, room_id: &str, to: Audience, event: &ServerEvent);

    /// Sends an event to members of a room that came from another instance, as it was encoded there.
    fn relay(&self, room_id: &str, to: Audience, name: &str, payload: &RawValue);

    /// From here on the connection gets nothing more of this room.
    fn remove(&self, room_id: &str, connection: ConnectionId);

    /// Closes a connection that has lost its seat without its doing, so that its client comes back for it.
    fn cut(&self, connection: ConnectionId);
}

/// What the shell of a joiner has found out before the room is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Joiner {
    /// The id by which Socket.IO knows its connection.
    pub socket_id: Option<Arc<str>>,
    /// Who it is, by its token; a guest with the name it asks for.
    pub identity: Identity,
    /// The resume token shown, as it came.
    pub resume_token: Option<String>,
    /// The hash the shown password was verified against, if it was right; see [`Admission::password_hash`].
    pub proved_hash: Option<String>,
}

/// The limits of the realtime state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateOptions {
    /// The waits that rule each room.
    pub room: RoomOptions,
    /// How many rooms may be in memory; past it, joining one that is not is UNAVAILABLE. Default: 10,000.
    pub max_rooms: usize,
    /// How long changes that are not waited for are collected before they are written. Default: 250 ms.
    pub flush_after_ms: i64,
    /// How long an empty room stays in memory, for the next one to come. Default: 5 s.
    pub linger_ms: i64,
    /// How long a command waits for the store. Default: [`store::DEADLINE`].
    pub store_deadline: Duration,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            room: RoomOptions::default(),
            max_rooms: 10_000,
            flush_after_ms: 250,
            linger_ms: 5_000,
            store_deadline: store::DEADLINE,
        }
    }
}

/// How much there is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Rooms, empty ones that linger included.
    pub rooms: usize,
    /// Connections that are in a room, or about to be.
    pub connections: usize,
}
