//! Dialogues with a room. Connection 1 joins as seat `p1` with the name `o1` and the token `t1`, and so on.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::*;
use crate::id;
use crate::sync::event::{ParticipantView, SourceRequest, SyncCommand};
use crate::sync::playback::{Motion, PlaybackState, SourceType};
use crate::sync::rows::{PlaybackControl, WaitFor};

mod lifecycle;
mod membership;
mod owner;
mod resume;
mod sequences;
mod settings;
mod steering;

/// When every scene begins.
const START: i64 = 1_700_000_000_000;

const DAY: i64 = 86_400_000;

/// When a room with members online is next given more time.
const HOUR: i64 = 3_600_000;

/// A room, a time, and a way to talk about both.
#[derive(Clone)]
struct Scene {
    room: Room,
    now: i64,
}

impl Scene {
    /// Ann's room of five seats, which nobody has entered.
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, but for what the closure changes.
    fn with(change: impl FnOnce(&mut RoomRow)) -> Self {
        let mut row = row();
        change(&mut row);
        let room = Room::load(row, Vec::new(), None, START, START, RoomOptions::default());
        let mut scene = Self { room, now: START };
        scene.room.raise_sequence_limit(1_000_000);
        scene
    }

    /// The room after these have joined, in the order given.
    fn after(joins: &[Join]) -> Self {
        Self::new().joined(joins)
    }

    fn joined(mut self, joins: &[Join]) -> Self {
        for join in joins {
            self.tell(Command::Join(Box::new(join.clone())));
        }
        self
    }

    /// The room with a source, put on by connection 1.
    fn watching(mut self) -> Self {
        self.tell(source(1));
        self
    }

    fn later(&mut self, ms: i64) -> &mut Self {
        self.now += ms;
        self
    }

    /// Carries out a command and describes its effects.
    fn tell(&mut self, command: Command) -> Vec<String> {
        self.room.handle(command, self.now).unwrap();
        std::iter::from_fn(|| self.room.poll_effect()).map(|effect| describe(&effect)).collect()
    }

    /// Carries out a command and asserts all its effects.
    #[track_caller]
    fn expect<T: AsRef<str>>(&mut self, command: Command, effects: &[T]) {
        let effects: Vec<_> = effects.iter().map(AsRef::as_ref).collect();
        assert_eq!(self.tell(command), effects);
    }

    /// Asserts that a command is refused and changes nothing.
    #[track_caller]
    fn refuse(&mut self, command: Command, code: ErrorCode) -> Refusal {
        let before = self.room.clone();
        let refusal = self.room.handle(command, self.now).unwrap_err();
        assert_eq!(refusal.code, code);
        assert_eq!(self.room, before);
        refusal
    }

    /// Lets the room's next deadline come and carries it out.
    #[track_caller]
    fn timeout(&mut self, effects: &[&str]) {
        self.now = self.room.poll_timeout().unwrap();
        self.expect(Command::Timeout, effects);
    }

    /// The next deadline, since the start.
    fn due(&self) -> i64 {
        self.room.poll_timeout().unwrap() - START
    }

    fn participant(&self, oder_id: &str) -> &ParticipantRow {
        &self.room.seats[self.room.seat_named(oder_id).unwrap()].row
    }
}

fn row() -> RoomRow {
    RoomRow {
        id: "room".into(),
        code: "ABCD2345".into(),
        name: "Film".into(),
        owner_id: "ann".into(),
        max_participants: 5,
        password_hash: None,
        playback_control: PlaybackControl::OwnerOnly,
        wait_for: WaitFor::None,
        created_at_ms: START,
        expires_at_ms: START + DAY,
    }
}

fn joiner(number: u64, identity: Identity) -> Join {
    Join {
        socket_id: None,
        connection: ConnectionId(number),
        identity,
        resume_hash: None,
        proved_hash: None,
        participant_id: format!("p{number}"),
        oder_id: format!("o{number}"),
        token: ResumeToken::new(format!("t{number}")),
    }
}

fn user(number: u64, name: &str) -> Join {
    joiner(number, Identity::User { user_id: name.into(), username: Some(name.to_uppercase()) })
}

fn guest(number: u64, name: &str) -> Join {
    joiner(number, Identity::Guest { name: Some(name.into()) })
}

/// The same joiner, showing a token.
fn showing(join: Join, token: &str) -> Join {
    Join { resume_hash: Some(id::resume_hash(token)), ..join }
}

fn enter(join: Join) -> Command {
    Command::Join(Box::new(join))
}

fn leave(number: u64) -> Command {
    Command::Leave { connection: ConnectionId(number) }
}

fn lost(number: u64) -> Command {
    Command::Disconnected { connection: ConnectionId(number), deliberate: false }
}

fn hung_up(number: u64) -> Command {
    Command::Disconnected { connection: ConnectionId(number), deliberate: true }
}

fn update(number: u64, patch: RoomPatch) -> Command {
    Command::Update { editor: Editor::Member(ConnectionId(number)), patch }
}

fn grant(number: u64, oder_id: &str, can_control: bool) -> Command {
    Command::Grant { connection: ConnectionId(number), oder_id: oder_id.into(), can_control }
}

fn kick(number: u64, oder_id: &str) -> Command {
    Command::Kick { connection: ConnectionId(number), oder_id: oder_id.into(), reason: None }
}

fn transfer(number: u64, oder_id: &str) -> Command {
    Command::Transfer { connection: ConnectionId(number), oder_id: oder_id.into() }
}

fn delete(user_id: &str) -> Command {
    Command::Delete { user_id: user_id.into() }
}

fn source(number: u64) -> Command {
    let source =
        SourceRequest { source_type: SourceType::External, source_id: "film".into(), start_media_time_ms: None };
    Command::Source { connection: ConnectionId(number), source }
}

fn steer(number: u64, motion: Motion) -> Command {
    Command::Steer { connection: ConnectionId(number), motion, at_server_time: None }
}

fn play(number: u64) -> Command {
    steer(number, Motion::Play)
}

fn pause(number: u64) -> Command {
    steer(number, Motion::Pause)
}

fn resync(number: u64) -> Command {
    Command::Resync { connection: ConnectionId(number) }
}

fn measured(number: u64, round_trip_ms: u32) -> Command {
    Command::Measured { connection: ConnectionId(number), round_trip_ms }
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Persist(RowChange::UpsertParticipant(row)) => {
            format!("store {} {} {}", row.id, row_text(row), token_text(row.resume_hash))
        }
        Effect::Persist(RowChange::RemoveParticipant(id)) => format!("forget {id}"),
        Effect::Persist(RowChange::SaveRoom(row)) => format!("store room {}", room_text(row)),
        Effect::Persist(RowChange::RemoveRoom(id)) => format!("forget {id}"),
        Effect::Persist(RowChange::RemoveExpired { .. }) => panic!("not the room's to ask for"),
        Effect::Admit { connection } => format!("admit {}", connection.0),
        Effect::State { connection, state } => {
            let acting = state.room.acting_oder_id.as_ref().map_or(String::new(), |oder| format!(" acting {oder}"));
            let seats: Vec<_> = state.participants.iter().map(seat_text).collect();
            let playback = state.playback.as_ref().map_or("nothing".into(), playback_text);
            let own = &state.own;
            let (connection, seats) = (connection.0, seats.join(", "));
            format!(
                "state {connection} is {} {} in [{seats}]{acting} watching {playback}",
                own.oder_id, own.resume_token
            )
        }
        Effect::Send { to: Audience::One(connection), event } => format!("to {}: {}", connection.0, event_text(event)),
        Effect::Send { to: Audience::Others(connection), event } => {
            format!("but {}: {}", connection.0, event_text(event))
        }
        Effect::Send { to: Audience::All, event } => format!("all: {}", event_text(event)),
        Effect::Remove { connection } => format!("remove {}", connection.0),
        Effect::Cut { connection } => format!("cut {}", connection.0),
    }
}

fn event_text(event: &ServerEvent) -> String {
    match event {
        ServerEvent::ParticipantJoined { participant } => format!("joined {}", seat_text(participant)),
        ServerEvent::ParticipantLeft { oder_id, reason } => format!("left {oder_id} {reason:?}").to_lowercase(),
        ServerEvent::ParticipantUpdated { participant } => format!("updated {}", seat_text(participant)),
        ServerEvent::RoomUpdated { room } => format!("room {}", room_text(&room.row)),
        ServerEvent::OwnerChanged { owner_id, oder_id, reason } => {
            format!("owner {owner_id} {oder_id} {reason:?}").to_lowercase()
        }
        ServerEvent::Kicked { reason: Some(reason) } => format!("kicked {reason}"),
        ServerEvent::Kicked { reason: None } => "kicked".into(),
        ServerEvent::RoomClosed { reason } => format!("closed {reason:?}").to_lowercase(),
        ServerEvent::SyncCommand { command, state } => {
            let (text, at, sequence) = match command {
                SyncCommand::Play { at_server_time, sequence_number } => {
                    ("PLAY".into(), at_server_time, sequence_number)
                }
                SyncCommand::Pause { at_server_time, sequence_number } => {
                    ("PAUSE".into(), at_server_time, sequence_number)
                }
                SyncCommand::Seek { target_media_time, at_server_time, sequence_number } => {
                    (format!("SEEK {target_media_time}"), at_server_time, sequence_number)
                }
                SyncCommand::SetRate { rate, at_server_time, sequence_number } => {
                    (format!("SET_RATE {rate}"), at_server_time, sequence_number)
                }
            };
            assert_eq!((*at, *sequence), (state.anchor_server_time_ms, state.sequence_number));
            format!("{text} -> {}", playback_text(state))
        }
        ServerEvent::SyncState { state, server_time } => {
            format!("sync at {} {}", server_time - START, playback_text(state))
        }
        ServerEvent::TimePong { .. } | ServerEvent::Shutdown { .. } => panic!("not the room's to send"),
    }
}

fn playback_text(state: &PlaybackState) -> String {
    let motion = if state.is_playing { "playing" } else { "paused" };
    let (rate, media, at) = (state.playback_rate, state.anchor_media_time_ms, state.anchor_server_time_ms - START);
    format!("#{} {motion} x{rate} {media}@{at}", state.sequence_number)
}

fn room_text(row: &RoomRow) -> String {
    let password = row.password_hash.as_deref().unwrap_or("open");
    let (control, wait) = (row.playback_control.as_str(), row.wait_for.as_str());
    format!("{} of {} {} seats {password} {control} {wait}", row.name, row.owner_id, row.max_participants)
}

fn seat_text(view: &ParticipantView) -> String {
    format!("{}{}", row_text(&view.row), if view.online { "" } else { " offline" })
}

fn row_text(row: &ParticipantRow) -> String {
    let name = row.user_id.as_ref().or(row.guest_name.as_ref()).unwrap();
    format!("{} {} {name}{}", row.oder_id, row.role.as_str(), if row.can_control { "+" } else { "" })
}

/// The token behind a hash.
fn token_text(hash: [u8; 32]) -> &'static str {
    static TOKENS: LazyLock<HashMap<[u8; 32], String>> =
        LazyLock::new(|| (0..2_000).map(|number| format!("t{number}")).map(|it| (id::resume_hash(&it), it)).collect());
    &TOKENS[&hash]
}
