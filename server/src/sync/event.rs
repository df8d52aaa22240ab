//! What travels on the `/sync` namespace, in both directions.
//!
//! A request is decoded from the JSON text of its one argument into a value that is valid in itself; what it is worth in
//! a room is the room's business. A field that may be left out may also be `null`, except where `null` has a meaning;
//! fields nobody knows are ignored. A refusal names the field and what it allows, never what the peer sent.

use std::sync::{Arc, OnceLock};
use std::{borrow::Cow, fmt, ops};

use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::playback::{PlaybackState, plain_number};
use super::rows::{ParticipantRow, PlaybackControl, Role, RoomRow, WaitFor};

mod request;

pub(super) use request::unfit_field;
pub use request::{
    GrantRequest, JoinRequest, KickRequest, PlayRequest, RateRequest, ResyncRequest, SeekRequest, SourceRequest,
    TimePing, TransferRequest, UpdateRequest,
};

/// Why a request failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// There is no such room, or it has expired.
    RoomNotFound,
    /// Every seat is taken.
    RoomFull,
    /// The password is wrong, or missing where one is needed.
    InvalidPassword,
    /// A guest without a name, or no permission for the act.
    Unauthorized,
    /// The connection is in a room already.
    AlreadyInRoom,
    /// The connection is in no room.
    NotInRoom,
    /// The token is bad or has expired.
    InvalidToken,
    /// The server failed; the message has the id under which the cause is in the log.
    InternalError,
    /// The request is not what it should be; the message names the field.
    ValidationError,
    /// Too many requests.
    RateLimitExceeded,
    /// A backend is down; the request had no effect and may be tried again.
    Unavailable,
}

impl ErrorCode {
    /// The code as clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoomNotFound => "ROOM_NOT_FOUND",
            Self::RoomFull => "ROOM_FULL",
            Self::InvalidPassword => "INVALID_PASSWORD",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::AlreadyInRoom => "ALREADY_IN_ROOM",
            Self::NotInRoom => "NOT_IN_ROOM",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::InternalError => "INTERNAL_ERROR",
            Self::ValidationError => "VALIDATION_ERROR",
            Self::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A request's failure, which changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub message: Cow<'static, str>,
    /// After how many milliseconds another try may succeed, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal with a message for people.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// A refusal of a request that is not what it should be.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::ValidationError, message)
    }
}

/// `room:error`: a refusal, and the event it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomError {
    /// What was refused and why.
    #[serde(flatten)]
    pub refusal: Refusal,
    /// The name of the event that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Cow<'static, str>>,
}

/// An event to one or more members of a room; serialises as its payload.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum ServerEvent {
    /// `room:participant:joined`.
    ParticipantJoined {
        /// The new participant.
        participant: ParticipantView,
    },
    /// `room:participant:left`.
    ParticipantLeft {
        /// Who left.
        oder_id: String,
        /// How.
        reason: LeftReason,
    },
    /// `room:participant:updated`.
    ParticipantUpdated {
        /// The participant as it is now.
        participant: ParticipantView,
    },
    /// `room:updated`.
    RoomUpdated {
        /// The room as it is now.
        room: RoomView,
    },
    /// `room:owner:changed`.
    OwnerChanged {
        /// The user who has the owner's part now.
        owner_id: String,
        /// Their seat.
        oder_id: String,
        /// How they came by it.
        reason: OwnerChange,
    },
    /// `room:kicked`, to the one who has to go.
    Kicked {
        /// Why, in the words of who did it; `replaced` where another connection took over the seat.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Cow<'static, str>>,
    },
    /// `room:closed`.
    RoomClosed {
        /// Why the room is no more.
        reason: ClosedReason,
    },
    /// `sync:command`.
    SyncCommand {
        /// What happens.
        command: SyncCommand,
        /// What holds once it has happened.
        state: PlaybackState,
    },
    /// `sync:state`.
    SyncState {
        /// What the room watches.
        state: PlaybackState,
        /// The time it was sent.
        server_time: i64,
    },
    /// `time:pong`.
    TimePong {
        /// The time the client sent, returned as it was.
        #[serde(serialize_with = "plain_number")]
        client_time: f64,
        /// The server's time.
        server_time: i64,
    },
    /// `server:shutdown`.
    Shutdown {
        /// What happens, for people.
        message: Cow<'static, str>,
        /// After how many milliseconds to come back.
        reconnect_in: u64,
    },
}

impl ServerEvent {
    /// The event's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ParticipantJoined { .. } => "room:participant:joined",
            Self::ParticipantLeft { .. } => "room:participant:left",
            Self::ParticipantUpdated { .. } => "room:participant:updated",
            Self::RoomUpdated { .. } => "room:updated",
            Self::OwnerChanged { .. } => "room:owner:changed",
            Self::Kicked { .. } => "room:kicked",
            Self::RoomClosed { .. } => "room:closed",
            Self::SyncCommand { .. } => "sync:command",
            Self::SyncState { .. } => "sync:state",
            Self::TimePong { .. } => "time:pong",
            Self::Shutdown { .. } => "server:shutdown",
        }
    }
}

/// How a participant left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    /// With `room:leave`.
    Leave,
    /// By closing the connection on purpose.
    Disconnect,
    /// The connection was lost, and the grace ended.
    Timeout,
    /// Somebody showed them the door.
    Kicked,
    /// The same user joined again; a new `oderId` follows.
    Replaced,
}

/// How somebody came by the owner's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerChange {
    /// The owner handed the room over for good.
    Transfer,
    /// The owner has been away for so long that somebody stands in.
    Absent,
    /// The owner is back.
    Returned,
}

/// Why a room is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedReason {
    /// Its time was up.
    Expired,
    /// Its owner deleted it.
    Deleted,
}

/// A change of playback that everybody makes at the same moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum SyncCommand {
    /// Play.
    Play {
        /// When, in Unix milliseconds.
        at_server_time: i64,
        /// The number of the change.
        sequence_number: u64,
    },
    /// Pause.
    Pause {
        /// When, in Unix milliseconds.
        at_server_time: i64,
        /// The number of the change.
        sequence_number: u64,
    },
    /// Jump.
    Seek {
        /// Where to, in milliseconds of the media.
        #[serde(serialize_with = "plain_number")]
        target_media_time: f64,
        /// When, in Unix milliseconds.
        at_server_time: i64,
        /// The number of the change.
        sequence_number: u64,
    },
    /// Play at another rate.
    SetRate {
        /// Media milliseconds per millisecond.
        #[serde(serialize_with = "plain_number")]
        rate: f64,
        /// When, in Unix milliseconds.
        at_server_time: i64,
        /// The number of the change.
        sequence_number: u64,
    },
}

/// `room:state`: all a joiner needs to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomState {
    /// The room.
    pub room: RoomView,
    /// Everybody in it, longest present first.
    pub participants: Vec<ParticipantView>,
    /// What it watches; none before the first source.
    pub playback: Option<PlaybackState>,
    /// Which of them the reader is.
    #[serde(rename = "self")]
    pub own: SelfView,
    /// The server's time.
    pub server_time: i64,
}

/// What a joiner alone is told of itself.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfView {
    /// The joiner's own seat.
    pub oder_id: String,
    /// What brings the seat back after a lost connection, once.
    pub resume_token: String,
}

/// `Room` on the wire: the row without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    /// The row behind it.
    pub row: Arc<RoomRow>,
    /// Who stands in for the owner, while somebody does.
    pub acting_oder_id: Option<String>,
}

/// `RoomParticipant` on the wire: the row without its secrets.
///
/// A clone is the same participant at the same time. The text is written when it is first wanted, once for all clones: one
/// participant is told of to many.
#[derive(Clone)]
pub struct ParticipantView(Arc<Participant>);

/// What there is to see of a participant.
pub struct Participant {
    /// The row behind it.
    pub row: Arc<ParticipantRow>,
    /// Whether a connection is in the seat, or its grace runs.
    pub online: bool,
    text: OnceLock<Box<RawValue>>,
}

impl ParticipantView {
    /// A participant as it is now.
    pub fn new(row: Arc<ParticipantRow>, online: bool) -> Self {
        Self(Arc::new(Participant { row, online, text: OnceLock::new() }))
    }

    /// Whether this is a clone of the other.
    #[cfg(test)]
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl ops::Deref for ParticipantView {
    type Target = Participant;

    fn deref(&self) -> &Participant {
        &self.0
    }
}

impl PartialEq for ParticipantView {
    fn eq(&self, other: &Self) -> bool {
        (&self.row, self.online) == (&other.row, other.online)
    }
}

impl Eq for ParticipantView {}

// Without the text, which has the names of people in it.
impl fmt::Debug for ParticipantView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParticipantView").field("row", &self.row).field("online", &self.online).finish_non_exhaustive()
    }
}

/// Writes a time as RFC 3339 in UTC with exactly three fractional digits; one past the calendar's end, as that end.
pub fn iso(unix_ms: i64) -> String {
    let end = if unix_ms < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(end);
    ISO.timestamp_to_string(&time)
}

const ISO: jiff::fmt::temporal::DateTimePrinter = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3));

impl Serialize for RoomView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Room<'a> {
            id: &'a str,
            code: &'a str,
            name: &'a str,
            owner_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            acting_oder_id: Option<&'a str>,
            max_participants: u32,
            has_password: bool,
            playback_control: PlaybackControl,
            wait_for: WaitFor,
            created_at: String,
            expires_at: String,
        }
        let row = &*self.row;
        let room = Room {
            id: &row.id,
            code: &row.code,
            name: &row.name,
            owner_id: &row.owner_id,
            acting_oder_id: self.acting_oder_id.as_deref(),
            max_participants: row.max_participants,
            has_password: row.password_hash.is_some(),
            playback_control: row.playback_control,
            wait_for: row.wait_for,
            created_at: iso(row.created_at_ms),
            expires_at: iso(row.expires_at_ms),
        };
        room.serialize(serializer)
    }
}

impl Serialize for ParticipantView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct RoomParticipant<'a> {
            id: &'a str,
            oder_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            user_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            username: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            guest_name: Option<&'a str>,
            role: Role,
            can_control: bool,
            joined_at: String,
            online: bool,
        }
        if let Some(text) = self.text.get() {
            return text.serialize(serializer);
        }
        let row = &*self.row;
        let participant = RoomParticipant {
            id: &row.id,
            oder_id: &row.oder_id,
            user_id: row.user_id.as_deref(),
            username: row.username.as_deref(),
            guest_name: row.guest_name.as_deref(),
            role: row.role,
            can_control: row.can_control,
            joined_at: iso(row.joined_at_ms),
            online: self.online,
        };
        let text = to_raw_value(&participant).map_err(S::Error::custom)?;
        self.text.get_or_init(|| text).serialize(serializer)
    }
}

// A resume token in a log would be a seat for whoever reads it.
impl fmt::Debug for SelfView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfView").field("oder_id", &self.oder_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::sync::playback::SourceType;

    fn room() -> RoomView {
        let row = RoomRow {
            id: "0d1f".into(),
            code: "ABCD2345".into(),
            name: "Filmabend".into(),
            owner_id: "ann".into(),
            max_participants: 12,
            password_hash: Some("$argon2id$secret".into()),
            playback_control: PlaybackControl::OwnerOnly,
            wait_for: WaitFor::None,
            created_at_ms: 1_700_000_000_000,
            expires_at_ms: 1_700_086_400_007,
        };
        RoomView { row: Arc::new(row), acting_oder_id: None }
    }

    fn guest() -> ParticipantView {
        let row = ParticipantRow {
            id: "7c2e".into(),
            room_id: "0d1f".into(),
            oder_id: "o-gast____".into(),
            user_id: None,
            username: None,
            guest_name: Some("Gast".into()),
            role: Role::Guest,
            can_control: false,
            joined_at_ms: 1_700_000_000_120,
            resume_hash: [7; 32],
        };
        ParticipantView::new(Arc::new(row), true)
    }

    fn state() -> PlaybackState {
        PlaybackState {
            room_id: "0d1f".into(),
            source_type: SourceType::Youtube,
            source_id: "dQw4w9WgXcQ".into(),
            is_playing: true,
            playback_rate: 1.25,
            anchor_server_time_ms: 1_700_000_000_500,
            anchor_media_time_ms: 0.0,
            sequence_number: 4,
        }
    }

    fn room_json() -> Value {
        json!({
            "id": "0d1f", "code": "ABCD2345", "name": "Filmabend", "ownerId": "ann", "maxParticipants": 12,
            "hasPassword": true, "playbackControl": "owner_only", "waitFor": "none",
            "createdAt": "2023-11-14T22:13:20.000Z", "expiresAt": "2023-11-15T22:13:20.007Z",
        })
    }

    fn guest_json() -> Value {
        json!({
            "id": "7c2e", "oderId": "o-gast____", "guestName": "Gast", "role": "guest", "canControl": false,
            "joinedAt": "2023-11-14T22:13:20.120Z", "online": true,
        })
    }

    fn state_json() -> Value {
        json!({
            "roomId": "0d1f", "sourceType": "youtube", "sourceId": "dQw4w9WgXcQ", "isPlaying": true,
            "playbackRate": 1.25, "anchorServerTimeMs": 1_700_000_000_500_i64, "anchorMediaTimeMs": 0,
            "sequenceNumber": 4,
        })
    }

    #[test]
    fn a_room_goes_out_without_its_password_hash() {
        assert_eq!(to_value(room()).unwrap(), room_json());
    }

    #[test]
    fn a_room_names_who_stands_in_for_the_owner() {
        let view = RoomView { acting_oder_id: Some("o-bob_____".into()), ..room() };
        assert_eq!(to_value(view).unwrap()["actingOderId"], "o-bob_____");
    }

    #[test]
    fn a_participant_goes_out_without_its_resume_hash() {
        assert_eq!(to_value(guest()).unwrap(), guest_json());
    }

    #[test]
    fn a_user_goes_out_with_id_and_name() {
        let mut row = (*guest().row).clone();
        (row.user_id, row.username, row.guest_name) = (Some("ann".into()), Some("Ann".into()), None);
        row.role = Role::Owner;
        let json = to_value(ParticipantView::new(Arc::new(row), false)).unwrap();
        assert_eq!(
            (&json["userId"], &json["username"], &json["role"]),
            (&json!("ann"), &json!("Ann"), &json!("owner"))
        );
        assert_eq!((json.get("guestName"), &json["online"]), (None, &json!(false)));
    }

    #[test]
    fn a_room_state_has_the_shape_of_the_contract() {
        let own = SelfView { oder_id: "o-gast____".into(), resume_token: "tok".into() };
        let view = RoomState { room: room(), participants: vec![guest()], playback: None, own, server_time: 17 };
        let expected = json!({
            "room": room_json(), "participants": [guest_json()], "playback": null,
            "self": { "oderId": "o-gast____", "resumeToken": "tok" }, "serverTime": 17,
        });
        assert_eq!(to_value(&view).unwrap(), expected);
        assert!(!format!("{view:?}").contains("tok"));
    }

    #[test]
    fn every_event_has_the_name_and_shape_of_the_contract() {
        let vectors = [
            (
                ServerEvent::ParticipantJoined { participant: guest() },
                "room:participant:joined",
                json!({ "participant": guest_json() }),
            ),
            (
                ServerEvent::ParticipantLeft { oder_id: "o".into(), reason: LeftReason::Timeout },
                "room:participant:left",
                json!({ "oderId": "o", "reason": "timeout" }),
            ),
            (
                ServerEvent::ParticipantUpdated { participant: guest() },
                "room:participant:updated",
                json!({ "participant": guest_json() }),
            ),
            (ServerEvent::RoomUpdated { room: room() }, "room:updated", json!({ "room": room_json() })),
            (
                ServerEvent::OwnerChanged {
                    owner_id: "bob".into(),
                    oder_id: "o".into(),
                    reason: OwnerChange::Transfer,
                },
                "room:owner:changed",
                json!({ "ownerId": "bob", "oderId": "o", "reason": "transfer" }),
            ),
            (ServerEvent::Kicked { reason: None }, "room:kicked", json!({})),
            (ServerEvent::Kicked { reason: Some("replaced".into()) }, "room:kicked", json!({ "reason": "replaced" })),
            (ServerEvent::RoomClosed { reason: ClosedReason::Expired }, "room:closed", json!({ "reason": "expired" })),
            (
                ServerEvent::SyncState { state: state(), server_time: 9 },
                "sync:state",
                json!({ "state": state_json(), "serverTime": 9 }),
            ),
            (
                ServerEvent::TimePong { client_time: 12.0, server_time: 9 },
                "time:pong",
                json!({ "clientTime": 12, "serverTime": 9 }),
            ),
            (
                ServerEvent::Shutdown { message: "restart".into(), reconnect_in: 700 },
                "server:shutdown",
                json!({ "message": "restart", "reconnectIn": 700 }),
            ),
        ];
        for (event, name, payload) in vectors {
            assert_eq!(event.name(), name);
            assert_eq!(to_value(&event).unwrap(), payload, "{name}");
        }
    }

    #[test]
    fn every_command_has_the_shape_of_the_contract() {
        let (at_server_time, sequence_number) = (5_000, 4);
        let vectors = [
            (
                SyncCommand::Play { at_server_time, sequence_number },
                json!({ "type": "PLAY", "atServerTime": 5_000, "sequenceNumber": 4 }),
            ),
            (
                SyncCommand::Pause { at_server_time, sequence_number },
                json!({ "type": "PAUSE", "atServerTime": 5_000, "sequenceNumber": 4 }),
            ),
            (
                SyncCommand::Seek { target_media_time: 60_000.0, at_server_time, sequence_number },
                json!({ "type": "SEEK", "targetMediaTime": 60_000, "atServerTime": 5_000, "sequenceNumber": 4 }),
            ),
            (
                SyncCommand::SetRate { rate: 1.5, at_server_time, sequence_number },
                json!({ "type": "SET_RATE", "rate": 1.5, "atServerTime": 5_000, "sequenceNumber": 4 }),
            ),
        ];
        for (command, payload) in vectors {
            let event = ServerEvent::SyncCommand { command, state: state() };
            assert_eq!(event.name(), "sync:command");
            assert_eq!(to_value(&event).unwrap(), json!({ "command": payload, "state": state_json() }));
        }
    }

    #[test]
    fn every_reason_has_the_name_of_the_contract() {
        let left =
            [LeftReason::Leave, LeftReason::Disconnect, LeftReason::Timeout, LeftReason::Kicked, LeftReason::Replaced];
        assert_eq!(to_value(left).unwrap(), json!(["leave", "disconnect", "timeout", "kicked", "replaced"]));
        let owner = [OwnerChange::Transfer, OwnerChange::Absent, OwnerChange::Returned];
        assert_eq!(to_value(owner).unwrap(), json!(["transfer", "absent", "returned"]));
        let closed = [ClosedReason::Expired, ClosedReason::Deleted];
        assert_eq!(to_value(closed).unwrap(), json!(["expired", "deleted"]));
    }

    #[test]
    fn every_error_code_has_the_name_of_the_contract() {
        let codes = [
            ErrorCode::RoomNotFound,
            ErrorCode::RoomFull,
            ErrorCode::InvalidPassword,
            ErrorCode::Unauthorized,
            ErrorCode::AlreadyInRoom,
            ErrorCode::NotInRoom,
            ErrorCode::InvalidToken,
            ErrorCode::InternalError,
            ErrorCode::ValidationError,
            ErrorCode::RateLimitExceeded,
            ErrorCode::Unavailable,
        ];
        let names = json!([
            "ROOM_NOT_FOUND",
            "ROOM_FULL",
            "INVALID_PASSWORD",
            "UNAUTHORIZED",
            "ALREADY_IN_ROOM",
            "NOT_IN_ROOM",
            "INVALID_TOKEN",
            "INTERNAL_ERROR",
            "VALIDATION_ERROR",
            "RATE_LIMIT_EXCEEDED",
            "UNAVAILABLE"
        ]);
        assert_eq!(to_value(codes).unwrap(), names);
    }

    #[test]
    fn a_refusal_says_when_to_try_again_only_if_it_knows() {
        let refusal = Refusal::new(ErrorCode::RoomFull, "the room is full");
        assert_eq!(to_value(&refusal).unwrap(), json!({ "code": "ROOM_FULL", "message": "the room is full" }));
        let refusal = Refusal { retry_after_ms: Some(120), ..refusal };
        let error = RoomError { refusal, event: Some("sync:play".into()) };
        let expected = json!({
            "code": "ROOM_FULL", "message": "the room is full", "retryAfterMs": 120, "event": "sync:play",
        });
        assert_eq!(to_value(&error).unwrap(), expected);
    }

    #[test]
    fn times_have_three_fractional_digits_and_end_with_the_calendar() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
        assert!(iso(i64::MAX).starts_with("9999-12-3"));
        assert!(iso(i64::MIN).starts_with("-009999-"));
    }
}
