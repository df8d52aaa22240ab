//! What goes into a room, and what comes out.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::id;
use crate::sync::event::{RoomState, ServerEvent, SourceRequest};
use crate::sync::playback::Motion;
use crate::sync::rows::{PlaybackControl, RowChange, WaitFor};

/// A connection, as the shell numbers them; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The connection with this number at an instance.
    pub fn new(instance: u32, number: u64) -> Self {
        Self(u64::from(instance) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1))
    }

    /// The instance that has the connection; 0 where there is only one.
    pub fn instance(self) -> u32 {
        (self.0 >> NUMBER_BITS) as u32
    }
}

/// A million million connections before a number comes again, and 24 bits for the instance.
const NUMBER_BITS: u32 = 40;

/// A fact, or a request that is valid in itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Somebody wants a seat.
    Join(Box<Join>),
    /// A member leaves for good.
    Leave {
        /// The member.
        connection: ConnectionId,
    },
    /// A connection has ended; one that has no seat here is none of the room's business.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// Whether the peer ended it on purpose; otherwise the seat is kept for the grace.
        deliberate: bool,
    },
    /// Changes the room's settings; for the owner, not for who stands in.
    Update {
        /// Who asks.
        editor: Editor,
        /// What changes.
        patch: RoomPatch,
    },
    /// Lets a participant control a `selected` room, or not any more.
    Grant {
        /// Who asks.
        connection: ConnectionId,
        /// Whom it is about.
        oder_id: String,
        /// Whether they may.
        can_control: bool,
    },
    /// Shows a participant the door.
    Kick {
        /// Who asks.
        connection: ConnectionId,
        /// Who has to go.
        oder_id: String,
        /// Why, for them to read.
        reason: Option<String>,
    },
    /// Hands the room to another user; for the owner, not for who stands in.
    Transfer {
        /// Who asks.
        connection: ConnectionId,
        /// Who gets it.
        oder_id: String,
    },
    /// Closes the room and removes it, whether or not its owner sits in it.
    Delete {
        /// The user who asks.
        user_id: String,
    },
    /// Puts on other media, paused.
    Source {
        /// Who asks.
        connection: ConnectionId,
        /// What to watch.
        source: SourceRequest,
    },
    /// Plays, pauses, seeks or changes the rate.
    Steer {
        /// Who asks.
        connection: ConnectionId,
        /// What to do.
        motion: Motion,
        /// When everybody should act, if the peer has a wish.
        at_server_time: Option<f64>,
    },
    /// Asks for the playback as it is.
    Resync {
        /// Who asks.
        connection: ConnectionId,
    },
    /// A heartbeat of this connection has come back.
    Measured {
        /// The connection.
        connection: ConnectionId,
        /// How long it was on the way, there and back.
        round_trip_ms: u32,
    },
    /// An instance is gone, and its connections with it.
    InstanceLost {
        /// Which one.
        instance: u32,
    },
    /// Time has passed; see [`Room::poll_timeout`](super::Room::poll_timeout).
    Timeout,
    /// The room is not stored any more.
    Vanished,
}

impl Command {
    /// The connection that asks, or that it is about.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Join(join) => Some(join.connection),
            Self::Update { editor: Editor::Member(connection), .. }
            | Self::Leave { connection }
            | Self::Disconnected { connection, .. }
            | Self::Grant { connection, .. }
            | Self::Kick { connection, .. }
            | Self::Transfer { connection, .. }
            | Self::Source { connection, .. }
            | Self::Steer { connection, .. }
            | Self::Resync { connection }
            | Self::Measured { connection, .. } => Some(*connection),
            Self::Update { editor: Editor::User(_), .. }
            | Self::Delete { .. }
            | Self::InstanceLost { .. }
            | Self::Timeout
            | Self::Vanished => None,
        }
    }

    /// Whether what it changes must be durable before anybody hears of it.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Join(_)
            | Self::Update { .. }
            | Self::Grant { .. }
            | Self::Kick { .. }
            | Self::Transfer { .. }
            | Self::Delete { .. } => true,
            Self::Leave { .. }
            | Self::Disconnected { .. }
            | Self::Source { .. }
            | Self::Steer { .. }
            | Self::Resync { .. }
            | Self::Measured { .. }
            | Self::InstanceLost { .. }
            | Self::Timeout
            | Self::Vanished => false,
        }
    }
}

/// Somebody who wants a seat, and what the shell has drawn for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The connection that asks; it must not be in another room.
    pub connection: ConnectionId,
    /// The id by which Socket.IO knows the connection; none where nobody else has to know it.
    pub socket_id: Option<Arc<str>>,
    /// Who asks.
    pub identity: Identity,
    /// [`id::resume_hash`] of the resume token shown, if one was.
    pub resume_hash: Option<[u8; 32]>,
    /// The password hash that the password shown was proved against, if it was right.
    ///
    /// Verifying takes long and is done before, outside the room. A password changed meanwhile makes the proof void.
    pub proved_hash: Option<String>,
    /// The id of a new participant row.
    pub participant_id: String,
    /// A new name for the seat.
    pub oder_id: String,
    /// The token that will resume the seat.
    pub token: ResumeToken,
}

/// Who a connection is, on the word of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A user.
    User {
        /// Who.
        user_id: String,
        /// What they are called.
        username: Option<String>,
    },
    /// Somebody without a token.
    Guest {
        /// What they ask to be called; needed for a new seat.
        name: Option<String>,
    },
}

/// A resume token and what is stored of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken {
    /// The token, for its owner alone.
    pub text: String,
    /// Its hash.
    pub hash: [u8; 32],
}

impl ResumeToken {
    /// Hashes a token that was drawn at random.
    pub fn new(text: String) -> Self {
        let hash = id::resume_hash(&text);
        Self { text, hash }
    }
}

// Whoever reads a token in a log could take the seat.
impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeToken").finish_non_exhaustive()
    }
}

/// Who changes a room's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Editor {
    /// A member.
    Member(ConnectionId),
    /// A user who need not be in the room.
    User(String),
}

/// The settings to change; what is `None` stays.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RoomPatch {
    /// Another name.
    pub name: Option<String>,
    /// Another number of seats. Nobody has to go when it is below those taken; the next join waits until it is not.
    pub max_participants: Option<u32>,
    /// Another password's hash, or no password.
    pub password_hash: Option<Option<String>>,
    /// Who may control playback.
    pub playback_control: Option<PlaybackControl>,
    /// Whom playback waits for.
    pub wait_for: Option<WaitFor>,
}

impl fmt::Debug for RoomPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomPatch")
            .field("max_participants", &self.max_participants)
            .field("password", &self.password_hash.as_ref().map(Option::is_some))
            .field("playback_control", &self.playback_control)
            .field("wait_for", &self.wait_for)
            .finish_non_exhaustive()
    }
}

/// An order to the shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make this change durable.
    Persist(RowChange),
    /// From here on the connection gets what is sent to all.
    Admit {
        /// The connection.
        connection: ConnectionId,
    },
    /// Send `room:state`; right after the connection's `Admit`.
    State {
        /// The connection.
        connection: ConnectionId,
        /// What it is told.
        state: Arc<RoomState>,
    },
    /// Send an event.
    Send {
        /// Who gets it.
        to: Audience,
        /// The event.
        event: ServerEvent,
    },
    /// From here on the connection gets nothing more of the room.
    Remove {
        /// The connection.
        connection: ConnectionId,
    },
    /// Close the connection: its seat was given up for lost, and it has to come back for it.
    Cut {
        /// The connection.
        connection: ConnectionId,
    },
}

/// Who gets an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audience {
    /// One connection.
    One(ConnectionId),
    /// Every admitted connection but this one.
    Others(ConnectionId),
    /// Every admitted connection.
    All,
}
