//! The durable rows of a room, and the changes a [`Room`](super::room::Room) asks to have made to them.
//!
//! Times are Unix milliseconds. The enums are written to the store, and to the wire, by the one name their `as_str` gives.

use std::{error, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::playback::PlaybackState;

/// A room.
///
/// Serialised whole, its password's hash included: for other instances, never for clients.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRow {
    /// The room's UUID.
    pub id: String,
    /// The eight upper-case letters or digits people type to join; never changes.
    pub code: String,
    /// What the room is called, 1 to 50 characters.
    pub name: String,
    /// The user the room belongs to, whoever stands in for them.
    pub owner_id: String,
    /// How many seats there are.
    pub max_participants: u32,
    /// The hash of the password, where one is set.
    pub password_hash: Option<String>,
    /// Who may control playback.
    pub playback_control: PlaybackControl,
    /// Whom playback waits for.
    pub wait_for: WaitFor,
    /// When the room was made.
    pub created_at_ms: i64,
    /// From when on the room does not exist any more, unless members are online.
    pub expires_at_ms: i64,
}

/// A seat in a room.
///
/// Serialised whole, the hash of its token included: for other instances, never for clients.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantRow {
    /// The seat's UUID; it outlives reconnections.
    pub id: String,
    /// The [`RoomRow::id`] the seat is in.
    pub room_id: String,
    /// The name others know the seat by: new at each join, kept by a resume.
    pub oder_id: String,
    /// The user in the seat; none for a guest.
    pub user_id: Option<String>,
    /// The name of the user, by their token; a number behind it tells it from the same name of another seat.
    pub username: Option<String>,
    /// The name of the guest, by their own words; with a number like that of a user.
    pub guest_name: Option<String>,
    /// What the participant is to the room.
    pub role: Role,
    /// Whether the participant was granted control; always true for the owner.
    pub can_control: bool,
    /// When the seat was first taken.
    pub joined_at_ms: i64,
    /// SHA-256 of the token that resumes the seat.
    pub resume_hash: [u8; 32],
}

impl ParticipantRow {
    /// The name that others see, if the participant has one.
    pub fn name(&self) -> Option<&str> {
        self.guest_name.as_deref().or(self.username.as_deref())
    }
}

/// What a room watches, and how far its sequence numbers may have gone.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaybackRow {
    /// The [`RoomRow::id`] this belongs to.
    pub room_id: String,
    /// The last state written; none before the first source.
    pub state: Option<PlaybackState>,
    /// The last sequence number given out when this was written.
    pub sequence: u64,
    /// The highest number that may have been given out since: after a crash, counting goes on from here.
    pub sequence_limit: u64,
}

/// One change to the durable rows; a list of them is one transaction, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Inserts the participant, or replaces the row with the same id.
    UpsertParticipant(ParticipantRow),
    /// Removes the participant with this id, if there is one.
    RemoveParticipant(String),
    /// Replaces the room's row.
    SaveRoom(RoomRow),
    /// Removes the room with this id, its participants and its playback, if there is one.
    RemoveRoom(String),
    /// Removes a room as [`RemoveRoom`](Self::RemoveRoom) does, if it has still expired by a time: its members may have
    /// come back since it was found.
    RemoveExpired {
        /// The room's id.
        id: String,
        /// The time.
        now_ms: i64,
    },
}

/// A text that names none of an enum's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownName {
    /// The enum, in words.
    pub kind: &'static str,
}

macro_rules! named {
    ($(#[$meta:meta])* $name:ident, $kind:literal { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// The value's name in the store and on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownName { kind: $kind }),
                }
            }
        }
    };
}

named! {
    /// Who may control playback.
    PlaybackControl, "playback control" {
        /// The owner, or whoever stands in for them.
        OwnerOnly = "owner_only",
        /// Everyone but guests.
        All = "all",
        /// The owner, and those who were granted control.
        Selected = "selected",
    }
}

named! {
    /// Whom playback waits for while they buffer.
    WaitFor, "wait for" {
        /// Nobody.
        None = "none",
        /// Everybody in the room.
        All = "all",
    }
}

named! {
    /// What a participant is to the room.
    Role, "role" {
        /// The user the room belongs to.
        Owner = "owner",
        /// Another user.
        Participant = "participant",
        /// Somebody without a token.
        Guest = "guest",
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {}", self.kind)
    }
}

impl error::Error for UnknownName {}

// Written out because a hash must not reach a log, and the names of people are theirs.
impl fmt::Debug for RoomRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomRow")
            .field("id", &self.id)
            .field("code", &self.code)
            .field("owner_id", &self.owner_id)
            .field("max_participants", &self.max_participants)
            .field("has_password", &self.password_hash.is_some())
            .field("playback_control", &self.playback_control)
            .field("wait_for", &self.wait_for)
            .field("created_at_ms", &self.created_at_ms)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ParticipantRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParticipantRow")
            .field("id", &self.id)
            .field("room_id", &self.room_id)
            .field("oder_id", &self.oder_id)
            .field("user_id", &self.user_id)
            .field("role", &self.role)
            .field("can_control", &self.can_control)
            .field("joined_at_ms", &self.joined_at_ms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_its_value() {
        for value in [PlaybackControl::OwnerOnly, PlaybackControl::All, PlaybackControl::Selected] {
            assert_eq!(value.as_str().parse(), Ok(value));
        }
        for value in [WaitFor::None, WaitFor::All] {
            assert_eq!(value.as_str().parse(), Ok(value));
        }
        for value in [Role::Owner, Role::Participant, Role::Guest] {
            assert_eq!(value.as_str().parse(), Ok(value));
        }
    }

    #[test]
    fn the_wire_and_the_store_use_the_same_names() {
        assert_eq!(serde_json::to_string(&PlaybackControl::OwnerOnly).unwrap(), r#""owner_only""#);
        assert_eq!(serde_json::to_string(&WaitFor::None).unwrap(), r#""none""#);
        assert_eq!(serde_json::to_string(&Role::Guest).unwrap(), r#""guest""#);
    }

    #[test]
    fn an_unknown_name_is_an_error_without_the_text() {
        let error = "boss".parse::<Role>().unwrap_err();
        assert_eq!(error.to_string(), "unknown role");
    }

    #[test]
    fn debug_output_keeps_hashes_to_itself() {
        let row = ParticipantRow {
            id: "p".into(),
            room_id: "r".into(),
            oder_id: "o".into(),
            user_id: None,
            username: None,
            guest_name: Some("Gast".into()),
            role: Role::Guest,
            can_control: false,
            joined_at_ms: 0,
            resume_hash: [7; 32],
        };
        assert!(!format!("{row:?}").contains('7'));
    }
}
