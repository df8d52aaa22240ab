//! What the owner does to the room and the people in it.

use std::{borrow::Cow, sync::Arc};

use super::{Audience, ConnectionId, Editor, Effect, Room, RoomPatch, SeatKey};
use crate::sync::event::{ErrorCode, LeftReason, Refusal, ServerEvent};
use crate::sync::rows::{ParticipantRow, RowChange};

impl Room {
    /// Whether this editor may change the settings; to be asked before hashing a password for them.
    ///
    /// # Errors
    /// What [`Command::Update`](super::Command::Update) would be refused with.
    pub fn check_editor(&self, editor: &Editor) -> Result<(), Refusal> {
        match editor {
            Editor::Member(connection) => self.owning(*connection).map(drop),
            Editor::User(user_id) if *user_id == self.row.owner_id => Ok(()),
            Editor::User(_) => Err(Refusal::new(ErrorCode::Unauthorized, "only the owner may do that")),
        }
    }

    pub(super) fn update(&mut self, editor: &Editor, patch: RoomPatch) -> Result<(), Refusal> {
        self.check_editor(editor)?;
        let row = Arc::make_mut(&mut self.row);
        let RoomPatch { name, max_participants, password_hash, playback_control, wait_for } = patch;
        row.name = name.unwrap_or_else(|| std::mem::take(&mut row.name));
        row.max_participants = max_participants.unwrap_or(row.max_participants);
        row.password_hash = password_hash.unwrap_or_else(|| row.password_hash.take());
        row.playback_control = playback_control.unwrap_or(row.playback_control);
        row.wait_for = wait_for.unwrap_or(row.wait_for);
        let row = row.clone();
        self.emit(Effect::Persist(RowChange::SaveRoom(row)));
        let room = self.view();
        self.tell_all(ServerEvent::RoomUpdated { room });
        Ok(())
    }

    pub(super) fn grant(&mut self, connection: ConnectionId, oder_id: &str, can_control: bool) -> Result<(), Refusal> {
        self.presiding(connection)?;
        let key = self.seat_named(oder_id)?;
        if self.is_owner(key) && !can_control {
            return Err(Refusal::invalid("canControl must be true for the owner"));
        }
        self.change_seat(key, |row| row.can_control = can_control);
        let participant = self.seats[key].view();
        self.tell_all(ServerEvent::ParticipantUpdated { participant });
        Ok(())
    }

    pub(super) fn kick(
        &mut self,
        connection: ConnectionId,
        oder_id: &str,
        reason: Option<String>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let own = self.presiding(connection)?;
        let key = self.seat_named(oder_id)?;
        if key == own {
            return Err(Refusal::invalid("oderId must name another participant"));
        }
        if self.is_owner(key) {
            return Err(Refusal::new(ErrorCode::Unauthorized, "nobody may kick the owner"));
        }
        let Some(seat) = self.seats.remove(key) else { return Ok(()) };
        self.emit(Effect::Persist(RowChange::RemoveParticipant(seat.row.id.clone())));
        if let Some(target) = seat.connection() {
            self.send_off(target, reason.map(Cow::Owned));
        }
        let oder_id = seat.row.oder_id.clone();
        self.tell_all(ServerEvent::ParticipantLeft { oder_id, reason: LeftReason::Kicked });
        self.settle_owner(now_ms);
        Ok(())
    }

    /// Tells a connection that it has to go, and lets it hear no more.
    pub(super) fn send_off(&mut self, connection: ConnectionId, reason: Option<Cow<'static, str>>) {
        self.emit(Effect::Send { to: Audience::One(connection), event: ServerEvent::Kicked { reason } });
        self.emit(Effect::Remove { connection });
    }

    /// Changes a participant's row, here and in the store.
    pub(super) fn change_seat(&mut self, key: SeatKey, change: impl FnOnce(&mut ParticipantRow)) {
        let row = self.seats.change_row(key, change);
        self.emit(Effect::Persist(RowChange::UpsertParticipant(row)));
    }
}
