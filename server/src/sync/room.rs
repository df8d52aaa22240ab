//! One room: [`Command`] in, [`Effect`] out.
//!
//! [`Room`] knows who sits in it, who may do what, and what it watches. It reads no clock, draws no randomness, and knows
//! connections as numbers only. The shell hands it a command and the time, and then carries out the effects in order:
//!
//! 1. [`Effect::Persist`] is a change of the durable rows, and comes ahead of what must not be seen before it is durable.
//!    A shell sets a [mark](Room::mark) before the command, and goes back to it if it cannot make the change. For a leave,
//!    a lost connection or a timeout it is a fact to be written down when possible: the one who left does not come back
//!    for a slow store.
//! 2. The others reach sockets. From [`Effect::Admit`] to [`Effect::Remove`] a connection gets what is sent to
//!    [`Audience::All`]; its [`Effect::State`] follows its `Admit` at once, so nothing comes before `room:state`.
//!
//! ```text
//!  seat:     (none) --join--> online --lost--> offline --grace over--> (none)
//!                               |  ^              |
//!             leave, kick, close|  +---resume-----+
//!                               v
//!                             (none)
//!
//!  owner:    present --away--> absent --60 s--> acting, or vacant while no user is online
//!               ^                |                |
//!               +-----back-------+------back------+
//! ```
//!
//! A room expires its time to live after the last member went offline, or out of it. While members are online it does not,
//! and [`RoomRow::expires_at_ms`] moves along.
//!
//! A refused command changes nothing. Several commands without polling between them are legal. Repeated or early timeouts
//! do nothing, and nothing follows `room:closed`.

use std::{collections::VecDeque, sync::Arc};

use super::event::{ClosedReason, ErrorCode, LeftReason, Refusal, RoomState, RoomView, SelfView, ServerEvent};
use super::playback::Timeline;
use super::rows::{ParticipantRow, PlaybackRow, Role, RoomRow, RowChange};

mod command;
mod join;
mod owner;
pub mod replica;
mod seat;
mod seats;
mod settings;
mod steering;
#[cfg(test)]
mod tests;

pub use command::{Audience, Command, ConnectionId, Editor, Effect, Identity, Join, ResumeToken, RoomPatch};
use owner::Ownership;
use seat::{Presence, Seat};
pub use seats::SeatKey;
use seats::Seats;

/// A room, its participants and its playback; see the [module](self) for how it is driven.
///
/// Times are Unix milliseconds and must not go back from one command to the next. What a command costs does not grow with
/// the room, but for what it tells: `room:state` has everybody in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    row: Arc<RoomRow>,
    options: RoomOptions,
    seats: Seats,
    owner: Ownership,
    playback: Option<Arc<Timeline>>,
    sequence: u64,
    sequence_limit: u64,
    closed: bool,
    effects: VecDeque<Effect>,
    mark: Option<Box<Mark>>,
}

/// What a room was, but for its seats, which have a journal of their own.
#[derive(Debug, Clone, PartialEq)]
struct Mark {
    row: Arc<RoomRow>,
    owner: Ownership,
    playback: Option<Arc<Timeline>>,
    sequence: u64,
    sequence_limit: u64,
    closed: bool,
}

/// The waits that rule a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomOptions {
    /// How long a seat is kept for a lost connection.
    pub grace_ms: i64,
    /// How long the owner may be away before somebody stands in.
    pub owner_handover_ms: i64,
    /// How long a room lives on once its last member is gone, or offline.
    pub ttl_ms: i64,
}

impl RoomOptions {
    /// How far `expiresAt` may fall behind while members are online: the 24th part of the time to live, an hour at most. An
    /// instance that crashes leaves it so far behind.
    fn expiry_lag_ms(&self) -> i64 {
        (self.ttl_ms / 24).clamp(1, MAX_EXPIRY_LAG_MS)
    }
}

/// Well below the time that Redis keeps a room in which nothing happens.
const MAX_EXPIRY_LAG_MS: i64 = 3_600_000;

impl Default for RoomOptions {
    fn default() -> Self {
        Self { grace_ms: 20_000, owner_handover_ms: 60_000, ttl_ms: 86_400_000 }
    }
}

impl Room {
    /// Takes up a room from its rows: everybody is offline, and their grace ends at `grace_until_ms`.
    ///
    /// So a crash or a restart leaves no ghosts: who does not come back in time is gone. Sequence numbers go on from the
    /// stored limit, since any number up to it may have been given out; new ones need
    /// [`raise_sequence_limit`](Self::raise_sequence_limit).
    pub fn load(
        row: RoomRow,
        participants: Vec<ParticipantRow>,
        playback: Option<PlaybackRow>,
        now_ms: i64,
        grace_until_ms: i64,
        options: RoomOptions,
    ) -> Self {
        let mut participants = participants;
        participants.sort_by(|a, b| (a.joined_at_ms, &a.id).cmp(&(b.joined_at_ms, &b.id)));
        let sequence = playback.as_ref().map_or(0, |stored| stored.sequence.max(stored.sequence_limit));
        let mut seats = Seats::default();
        for row in participants {
            seats.push(Seat::offline(row, grace_until_ms));
        }
        Self {
            row: Arc::new(row),
            options,
            seats,
            owner: Ownership::Absent { since_ms: now_ms },
            playback: playback.and_then(|stored| stored.state).map(|state| Arc::new(Timeline::new(state))),
            sequence,
            sequence_limit: sequence,
            closed: false,
            effects: VecDeque::new(),
            mark: None,
        }
    }

    /// Notes what the room is, so that [`revert`](Self::revert) can bring it back.
    ///
    /// This costs the same whatever the size of the room; from then on a change of a seat costs a little more.
    pub fn mark(&mut self) {
        self.seats.mark();
        self.mark = Some(Box::new(Mark {
            row: Arc::clone(&self.row),
            owner: self.owner.clone(),
            playback: self.playback.clone(),
            sequence: self.sequence,
            sequence_limit: self.sequence_limit,
            closed: self.closed,
        }));
    }

    /// Forgets the mark: what has happened since stays.
    pub fn keep(&mut self) {
        self.seats.keep();
        self.mark = None;
    }

    /// Brings the room back to what it was at the mark, and forgets it: what has happened since has not. Effects that
    /// were not polled are gone. Without a mark nothing happens.
    pub fn revert(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        let Mark { row, owner, playback, sequence, sequence_limit, closed } = *mark;
        (self.row, self.owner, self.playback) = (row, owner, playback);
        (self.sequence, self.sequence_limit, self.closed) = (sequence, sequence_limit, closed);
        self.seats.revert();
        self.effects.clear();
    }

    /// Carries out a command at `now_ms`.
    ///
    /// # Errors
    /// A [`Refusal`] for the one who asked. The room is then as it was, and there are no effects.
    pub fn handle(&mut self, command: Command, now_ms: i64) -> Result<(), Refusal> {
        if self.is_over(now_ms) {
            return self.handle_over(command);
        }
        let before = (self.seats.len(), self.seats.has_online());
        self.carry_out(command, now_ms)?;
        self.settle_expiry(before, now_ms);
        Ok(())
    }

    fn carry_out(&mut self, command: Command, now_ms: i64) -> Result<(), Refusal> {
        match command {
            Command::Join(join) => self.join(*join, now_ms),
            Command::Leave { connection } => self.leave(connection, now_ms),
            Command::Disconnected { connection, deliberate } => {
                self.disconnected(connection, deliberate, now_ms);
                Ok(())
            }
            Command::Update { editor, patch } => self.update(&editor, patch),
            Command::Grant { connection, oder_id, can_control } => self.grant(connection, &oder_id, can_control),
            Command::Kick { connection, oder_id, reason } => self.kick(connection, &oder_id, reason, now_ms),
            Command::Transfer { connection, oder_id } => self.transfer(connection, &oder_id, now_ms),
            Command::Delete { user_id } => self.delete(&user_id),
            Command::Source { connection, source } => self.source(connection, source, now_ms),
            Command::Steer { connection, motion, at_server_time } => {
                self.steer(connection, motion, at_server_time, now_ms)
            }
            Command::Resync { connection } => self.resync(connection, now_ms),
            Command::Measured { connection, round_trip_ms } => {
                self.measured(connection, round_trip_ms);
                Ok(())
            }
            Command::InstanceLost { instance } => {
                self.instance_lost(instance, now_ms);
                Ok(())
            }
            Command::Timeout => {
                self.end_graces(now_ms);
                Ok(())
            }
            Command::Vanished => {
                self.close(ClosedReason::Deleted);
                Ok(())
            }
        }
    }

    /// The next effect to carry out, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to send [`Command::Timeout`] at the latest; none once the room is closed.
    ///
    /// It changes with every command.
    pub fn poll_timeout(&self) -> Option<i64> {
        if self.closed {
            return None;
        }
        let others = [self.seats.next_grace(), self.handover_at()];
        others.into_iter().flatten().chain([self.expiry_due_at()]).min()
    }

    /// When the room expires, or is to be given more time because members are online.
    fn expiry_due_at(&self) -> i64 {
        let expires_at_ms = self.row.expires_at_ms;
        if !self.seats.has_online() {
            return expires_at_ms;
        }
        expires_at_ms.saturating_sub(self.options.ttl_ms).saturating_add(self.options.expiry_lag_ms())
    }

    /// Has the room expire its time to live after members were last in it. `before` is how many seats were taken, and
    /// whether a member was online.
    fn settle_expiry(&mut self, before: (usize, bool), now_ms: i64) {
        let (taken, was_online) = before;
        let is_online = self.seats.has_online();
        let is_due = is_online && self.expiry_due_at() <= now_ms;
        let has_left = (was_online && !is_online) || (taken > 0 && self.seats.len() == 0);
        let expires_at_ms = now_ms.saturating_add(self.options.ttl_ms);
        if self.closed || !(is_due || has_left) || expires_at_ms <= self.row.expires_at_ms {
            return;
        }
        let row = Arc::make_mut(&mut self.row);
        row.expires_at_ms = expires_at_ms;
        let row = row.clone();
        self.emit(Effect::Persist(RowChange::SaveRoom(row)));
    }

    /// The room's row as it is now.
    pub fn row(&self) -> &Arc<RoomRow> {
        &self.row
    }

    /// The room as others see it.
    pub fn view(&self) -> RoomView {
        RoomView { row: Arc::clone(&self.row), acting_oder_id: self.acting().map(|seat| seat.row.oder_id.clone()) }
    }

    /// How many seats are taken, those of lost connections in their grace included.
    pub fn participant_count(&self) -> usize {
        self.seats.len()
    }

    /// The row of a participant, online or not.
    pub fn participant_row(&self, id: &str) -> Option<&ParticipantRow> {
        self.seats.iter().find(|seat| seat.row.id == id).map(|seat| &*seat.row)
    }

    /// Whether the room does not exist any more: closed, or past its time with no member online.
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.closed || (now_ms >= self.row.expires_at_ms && !self.seats.has_online())
    }

    /// Whether the room was closed, so that no command will ever have an effect again.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What to store of the playback now, letting numbers up to `sequence_limit` be given out.
    pub fn playback_row(&self, sequence_limit: u64) -> PlaybackRow {
        PlaybackRow {
            room_id: self.row.id.clone(),
            state: self.playback.as_ref().map(|timeline| timeline.state().clone()),
            sequence: self.sequence,
            sequence_limit,
        }
    }

    /// The last sequence number given out.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The highest sequence number that may be given out; a command that needs a higher one is UNAVAILABLE.
    pub fn sequence_limit(&self) -> u64 {
        self.sequence_limit
    }

    /// Lets numbers up to `limit` be given out, which must be durable before this is called.
    pub fn raise_sequence_limit(&mut self, limit: u64) {
        self.sequence_limit = self.sequence_limit.max(limit);
    }

    /// Answers a command to a room that is no more; all that is left to do is to say so.
    fn handle_over(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Timeout | Command::Vanished => {
                if !self.closed {
                    self.close(ClosedReason::Expired);
                }
                Ok(())
            }
            Command::Disconnected { .. } | Command::Measured { .. } | Command::InstanceLost { .. } => Ok(()),
            Command::Join(_)
            | Command::Leave { .. }
            | Command::Update { .. }
            | Command::Grant { .. }
            | Command::Kick { .. }
            | Command::Transfer { .. }
            | Command::Delete { .. }
            | Command::Source { .. }
            | Command::Steer { .. }
            | Command::Resync { .. } => Err(Refusal::new(ErrorCode::RoomNotFound, "there is no such room")),
        }
    }

    fn leave(&mut self, connection: ConnectionId, now_ms: i64) -> Result<(), Refusal> {
        let key = self.seat_of(connection)?;
        self.vacate(key, LeftReason::Leave, now_ms);
        Ok(())
    }

    /// Takes note of a connection's end; one whose seat was taken over is nobody's by now.
    fn disconnected(&mut self, connection: ConnectionId, deliberate: bool, now_ms: i64) {
        let Ok(key) = self.seat_of(connection) else { return };
        if deliberate {
            return self.vacate(key, LeftReason::Disconnect, now_ms);
        }
        self.lose(key, connection, now_ms);
        self.settle_owner(now_ms);
    }

    /// Lets the grace of a seat begin whose connection is gone.
    fn lose(&mut self, key: SeatKey, connection: ConnectionId, now_ms: i64) {
        let until_ms = now_ms + self.options.grace_ms;
        self.seats.change(key, |seat| (seat.presence, seat.socket_id) = (Presence::Offline { until_ms }, None));
        self.emit(Effect::Remove { connection });
        let participant = self.seats[key].view();
        self.tell_all(ServerEvent::ParticipantUpdated { participant });
    }

    /// Takes note that an instance is gone. If it was only taken for gone, its connections are not to go on as if nothing
    /// had happened.
    fn instance_lost(&mut self, instance: u32, now_ms: i64) {
        let lost = self.seats.entries().filter_map(|(key, seat)| Some((key, seat.connection()?)));
        let lost: Vec<_> = lost.filter(|(_, connection)| connection.instance() == instance).collect();
        for &(key, connection) in &lost {
            self.lose(key, connection, now_ms);
            self.emit(Effect::Cut { connection });
        }
        if !lost.is_empty() {
            self.settle_owner(now_ms);
        }
    }

    fn end_graces(&mut self, now_ms: i64) {
        for key in self.seats.given_up(now_ms) {
            self.remove_seat(key, LeftReason::Timeout);
        }
        self.settle_owner(now_ms);
    }

    /// Ends a seat whose participant is gone, and sees who owns the room without them.
    fn vacate(&mut self, key: SeatKey, reason: LeftReason, now_ms: i64) {
        self.remove_seat(key, reason);
        self.settle_owner(now_ms);
    }

    fn remove_seat(&mut self, key: SeatKey, reason: LeftReason) {
        let Some(seat) = self.seats.remove(key) else { return };
        self.emit(Effect::Persist(RowChange::RemoveParticipant(seat.row.id.clone())));
        if let Some(connection) = seat.connection() {
            self.emit(Effect::Remove { connection });
        }
        self.tell_all(ServerEvent::ParticipantLeft { oder_id: seat.row.oder_id.clone(), reason });
    }

    fn delete(&mut self, user_id: &str) -> Result<(), Refusal> {
        if self.row.owner_id != user_id {
            return Err(Refusal::new(ErrorCode::Unauthorized, "only the owner may delete the room"));
        }
        self.close(ClosedReason::Deleted);
        Ok(())
    }

    fn close(&mut self, reason: ClosedReason) {
        self.closed = true;
        self.emit(Effect::Persist(RowChange::RemoveRoom(self.row.id.clone())));
        self.tell_all(ServerEvent::RoomClosed { reason });
        for seat in self.seats.clear() {
            if let Some(connection) = seat.connection() {
                self.emit(Effect::Remove { connection });
            }
        }
    }

    fn snapshot(&self, own: SelfView, now_ms: i64) -> RoomState {
        RoomState {
            room: self.view(),
            participants: self.seats.iter().map(Seat::view).collect(),
            playback: self.playback.as_ref().map(|timeline| timeline.state().clone()),
            own,
            server_time: now_ms,
        }
    }

    /// The seat a connection is in.
    fn seat_of(&self, connection: ConnectionId) -> Result<SeatKey, Refusal> {
        self.seats.of_connection(connection).ok_or_else(|| Refusal::new(ErrorCode::NotInRoom, "you are not in a room"))
    }

    /// The seat others know by this name.
    fn seat_named(&self, oder_id: &str) -> Result<SeatKey, Refusal> {
        self.seats.of_oder_id(oder_id).ok_or_else(|| Refusal::invalid("oderId must name a participant of this room"))
    }

    fn is_owner(&self, key: SeatKey) -> bool {
        self.seats[key].row.role == Role::Owner
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    fn tell_all(&mut self, event: ServerEvent) {
        self.emit(Effect::Send { to: Audience::All, event });
    }
}
