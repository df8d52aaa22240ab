//! How a seat is taken: as a new participant, by a resume, or by the same user's next connection.
//!
//! A new participant gets a name that no other seat has: of two called Ann the second is Ann (2). The name is part of the
//! row, so that all instances have the same one, and it stays for as long as the seat does.

use std::sync::Arc;

use super::{Audience, Effect, Identity, Join, Room, Seat, SeatKey};
use crate::sync::event::{ErrorCode, LeftReason, Refusal, SelfView, ServerEvent};
use crate::sync::rows::{ParticipantRow, Role, RowChange};

impl Room {
    /// Checks in the order of the contract, section 4; a valid resume token stands for password and name.
    pub(super) fn join(&mut self, join: Join, now_ms: i64) -> Result<(), Refusal> {
        if self.seat_of(join.connection).is_ok() {
            return Err(Refusal::new(ErrorCode::AlreadyInRoom, "you are in this room already"));
        }
        if let Some(key) = self.resumable(&join, now_ms) {
            self.resume(key, join, now_ms);
        } else {
            self.check_password(&join)?;
            match join.identity {
                Identity::User { ref user_id, .. } => match self.seats.of_user(user_id) {
                    Some(key) => self.replace(key, join, now_ms),
                    None => self.enter(join, now_ms)?,
                },
                Identity::Guest { name: Some(_) } => self.enter(join, now_ms)?,
                Identity::Guest { name: None } => {
                    return Err(Refusal::new(ErrorCode::Unauthorized, "a guest needs a guestName"));
                }
            }
        }
        self.settle_owner(now_ms);
        Ok(())
    }

    /// The seat the token shown brings back: the very one it was made for, for who it was made for, and in time.
    fn resumable(&self, join: &Join, now_ms: i64) -> Option<SeatKey> {
        let key = self.seats.of_resume_hash(join.resume_hash.as_ref()?)?;
        let seat = &self.seats[key];
        (seat.suits(&join.identity) && !seat.grace_is_over(now_ms)).then_some(key)
    }

    fn check_password(&self, join: &Join) -> Result<(), Refusal> {
        if self.row.password_hash.is_none() || self.row.password_hash == join.proved_hash {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::InvalidPassword, "the password is wrong, or missing"))
    }

    /// Gives a new participant a seat of its own.
    fn enter(&mut self, join: Join, now_ms: i64) -> Result<(), Refusal> {
        if self.seats.len() >= self.row.max_participants as usize {
            return Err(Refusal::new(ErrorCode::RoomFull, "the room is full"));
        }
        let (user_id, username, guest_name) = match join.identity {
            Identity::User { user_id, username } => {
                (Some(user_id), username.map(|name| self.seats.free_name(name, None)), None)
            }
            Identity::Guest { name } => (None, None, name.map(|name| self.seats.free_name(name, None))),
        };
        let role = match &user_id {
            Some(user_id) if *user_id == self.row.owner_id => Role::Owner,
            Some(_) => Role::Participant,
            None => Role::Guest,
        };
        let row = Arc::new(ParticipantRow {
            id: join.participant_id,
            room_id: self.row.id.clone(),
            oder_id: join.oder_id,
            user_id,
            username,
            guest_name,
            role,
            can_control: role == Role::Owner,
            joined_at_ms: now_ms,
            resume_hash: join.token.hash,
        });
        self.emit(Effect::Persist(RowChange::UpsertParticipant((*row).clone())));
        let key = self.seats.push(Seat::online(row, join.connection, join.socket_id));
        self.admit(key, join.token.text, now_ms);
        let participant = self.seats[key].view();
        self.tell_others(join.connection, ServerEvent::ParticipantJoined { participant });
        Ok(())
    }

    /// Brings back a participant whose connection was lost, or is about to be found lost.
    fn resume(&mut self, key: SeatKey, join: Join, now_ms: i64) {
        let was_online = self.seats[key].connection().is_some();
        let mut row = (*self.seats[key].row).clone();
        row.resume_hash = join.token.hash;
        self.hand_over(key, row, &join, now_ms);
        if !was_online {
            let participant = self.seats[key].view();
            self.tell_others(join.connection, ServerEvent::ParticipantUpdated { participant });
        }
    }

    /// Gives the seat of a user to their next connection, which is somebody new to the others.
    fn replace(&mut self, key: SeatKey, join: Join, now_ms: i64) {
        let mut row = (*self.seats[key].row).clone();
        let left = std::mem::replace(&mut row.oder_id, join.oder_id.clone());
        row.resume_hash = join.token.hash;
        if let Identity::User { username: Some(username), .. } = &join.identity {
            row.username = Some(self.seats.free_name(username.clone(), Some(key)));
        }
        self.hand_over(key, row, &join, now_ms);
        self.tell_others(join.connection, ServerEvent::ParticipantLeft { oder_id: left, reason: LeftReason::Replaced });
        let participant = self.seats[key].view();
        self.tell_others(join.connection, ServerEvent::ParticipantJoined { participant });
    }

    /// Puts a connection in a seat that exists, and the one that may still be there out of it.
    fn hand_over(&mut self, key: SeatKey, row: ParticipantRow, join: &Join, now_ms: i64) {
        self.emit(Effect::Persist(RowChange::UpsertParticipant(row.clone())));
        if let Some(old) = self.seats[key].connection() {
            self.send_off(old, Some("replaced".into()));
        }
        self.seats.change(key, |seat| {
            seat.take_over(Arc::new(row), join.connection, join.socket_id.clone());
        });
        self.admit(key, join.token.text.clone(), now_ms);
    }

    /// Lets the connection of a seat hear the room, `room:state` first.
    fn admit(&mut self, key: SeatKey, token: String, now_ms: i64) {
        let seat = &self.seats[key];
        let Some(connection) = seat.connection() else { return };
        let own = SelfView { oder_id: seat.row.oder_id.clone(), resume_token: token };
        let state = Arc::new(self.snapshot(own, now_ms));
        self.emit(Effect::Admit { connection });
        self.emit(Effect::State { connection, state });
    }

    fn tell_others(&mut self, connection: super::ConnectionId, event: ServerEvent) {
        self.emit(Effect::Send { to: Audience::Others(connection), event });
    }
}
