//! Durable rooms and participants: the contract every backend keeps.
//!
//! The realtime state works from memory; the store is what is left after a restart.

pub mod metered;
pub mod postgres;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod suite;

use std::fmt;
use std::future::Future;

use crate::id;
use crate::sync::rows::{ParticipantRow, PlaybackControl, PlaybackRow, Role, RoomRow, RowChange, WaitFor};

/// Durable rooms, participants and playback.
///
/// A write that answered `Ok` is durable, survives the loss of power, and is seen by every later read. Each takes effect
/// wholly or not at all. A write of a room that is begun once an earlier one of that room was answered, or given up,
/// takes effect after it; two at once may do so in either order. Every call answers within [`DEADLINE`]. A store that
/// failed heals by itself: once its cause has gone, calls work again.
///
/// Absence is `None` or an empty list, and never stands for a failure. The store knows no time: whether a room it
/// answers with has expired is the caller's question.
///
/// # Errors
/// Every method answers [`StoreError::Unavailable`] where the store cannot be reached, is too busy or too slow, and
/// [`StoreError::Corrupt`] where what is stored cannot be read. A write that answered `Unavailable` has had no effect,
/// except where its commit outlasted the deadline; doing it again is safe, for every write but
/// [`create_room`](Self::create_room) replaces.
pub trait RoomStore: Send + Sync + 'static {
    /// Stores a new room.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the id or the code is taken: the caller draws new ones.
    fn create_room(&self, room: RoomRow) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Finds a room by its code, without regard to the case of ASCII letters.
    fn room_by_code(&self, code: &str) -> impl Future<Output = Result<Option<RoomRow>, StoreError>> + Send;

    /// Finds a room by its id.
    fn room_by_id(&self, id: &str) -> impl Future<Output = Result<Option<RoomRow>, StoreError>> + Send;

    /// Lists the participants of a room, the one who joined first in front.
    fn participants(&self, room_id: &str) -> impl Future<Output = Result<Vec<ParticipantRow>, StoreError>> + Send;

    /// Finds what a room watches.
    fn playback(&self, room_id: &str) -> impl Future<Output = Result<Option<PlaybackRow>, StoreError>> + Send;

    /// Makes all changes, in order, or none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where a participant's user or `oderId` already has another seat in the room, and
    /// [`StoreError::Missing`] where a change belongs to a room that does not exist.
    fn apply(&self, changes: Vec<RowChange>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stores what a room watches, in place of what was there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where the room does not exist.
    fn save_playback(&self, playback: PlaybackRow) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lists up to `limit` rooms that have expired by `now_ms`, the longest expired in front.
    fn expired_rooms(&self, now_ms: i64, limit: u32) -> impl Future<Output = Result<Vec<RoomRow>, StoreError>> + Send;

    /// Counts the rooms, expired ones included.
    fn room_count(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Answers once the store has made a write durable and has answered a read.
    ///
    /// The write touches every table and index, and is as large as an ordinary one, so that it fails where ordinary
    /// writes fail: on a full disk, or at a server that only reads. Other calls see nothing of it.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why a store did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another row has what this one must have for itself.
    Conflict,
    /// The room the row belongs to does not exist.
    Missing,
    /// The store cannot be reached, is too busy or too slow. For the log; nothing in it is for clients.
    Unavailable(String),
    /// What is stored, or was to be, is not a row of ours.
    Corrupt(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("the row conflicts with another"),
            Self::Missing => f.write_str("the room does not exist"),
            Self::Unavailable(cause) => write!(f, "the store is unavailable: {cause}"),
            Self::Corrupt(what) => write!(f, "the store holds what it should not: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// The rows of a write that [`RoomStore::ping`] makes: a room, which is removed again in the same transaction.
struct Probe {
    room: RoomRow,
    participant: ParticipantRow,
    playback: PlaybackRow,
}

impl Probe {
    /// Draws the rows of a probe. Two probes at the same time do not wait for each other.
    fn new() -> Self {
        let mut code = id::room_code();
        code.replace_range(..1, "0"); // no code of a room has this digit
        let room = RoomRow {
            id: id::row_id(),
            code,
            name: "probe".to_owned(),
            owner_id: "probe".to_owned(),
            max_participants: 2,
            password_hash: None,
            playback_control: PlaybackControl::OwnerOnly,
            wait_for: WaitFor::None,
            created_at_ms: 0,
            expires_at_ms: 0,
        };
        let participant = ParticipantRow {
            id: id::row_id(),
            room_id: room.id.clone(),
            oder_id: id::order_id(),
            user_id: Some("probe".to_owned()),
            username: None,
            guest_name: None,
            role: Role::Participant,
            can_control: false,
            joined_at_ms: 0,
            resume_hash: [0; 32],
        };
        let playback = PlaybackRow { room_id: room.id.clone(), state: None, sequence: 0, sequence_limit: 0 };
        Self { room, participant, playback }
    }
}

/// Longest time a call takes.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);
