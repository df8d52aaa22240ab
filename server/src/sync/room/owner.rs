//! Who owns the room, who stands in for them, and what that lets them do.
//!
//! The owner is a user, whether or not they are here. When they have been away for long enough, the user who has been here
//! longest acts as owner: controls playback, grants and kicks. Settings, transfer and deletion stay with the owner, so
//! that nobody can take a room away from its owner by outwaiting them. Who stands in keeps the part through a lost
//! connection's grace, and loses it to the owner only.

use serde::{Deserialize, Serialize};

use super::{ConnectionId, Effect, Room, Seat, SeatKey};
use crate::sync::event::{ErrorCode, OwnerChange, Refusal, ServerEvent};
use crate::sync::rows::{PlaybackControl, Role, RowChange};

/// Who has the owner's part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ownership {
    /// The owner, who is online.
    Present,
    /// Nobody; the owner has been away since then, and may be back in time.
    Absent { since_ms: i64 },
    /// Nobody; the next user to come online.
    #[default]
    Vacant,
    /// A stand-in.
    Acting {
        /// The stand-in's seat.
        key: SeatKey,
        /// The name others were told.
        oder_id: String,
    },
}

impl Room {
    /// Finds out who has the owner's part, now that somebody came or went or time has passed, and tells of a change.
    pub(super) fn settle_owner(&mut self, now_ms: i64) {
        if let Some(owner) = self.owner_online() {
            if let Ownership::Acting { .. } = std::mem::replace(&mut self.owner, Ownership::Present) {
                let oder_id = self.seats[owner].row.oder_id.clone();
                let owner_id = self.row.owner_id.clone();
                self.tell_all(ServerEvent::OwnerChanged { owner_id, oder_id, reason: OwnerChange::Returned });
            }
            return;
        }
        if self.owner == Ownership::Present {
            self.owner = Ownership::Absent { since_ms: now_ms };
        }
        if self.handover_at().is_some_and(|due_ms| now_ms < due_ms) {
            return;
        }
        let Some(key) = self.acting_key().or_else(|| self.seats.first_stand_in()) else {
            self.owner = Ownership::Vacant;
            return;
        };
        let next = &self.seats[key];
        let acting = Ownership::Acting { key, oder_id: next.row.oder_id.clone() };
        if self.owner != acting {
            // Only users have this role, so the id is there.
            let owner_id = next.row.user_id.clone().unwrap_or_default();
            let oder_id = next.row.oder_id.clone();
            self.owner = acting;
            self.tell_all(ServerEvent::OwnerChanged { owner_id, oder_id, reason: OwnerChange::Absent });
        }
    }

    /// When somebody will stand in, unless the owner is back by then.
    pub(super) fn handover_at(&self) -> Option<i64> {
        match &self.owner {
            Ownership::Absent { since_ms } => Some(since_ms + self.options.owner_handover_ms),
            Ownership::Present | Ownership::Vacant | Ownership::Acting { .. } => None,
        }
    }

    fn owner_online(&self) -> Option<SeatKey> {
        let key = self.seats.of_user(&self.row.owner_id)?;
        (self.is_owner(key) && self.seats[key].is_online()).then_some(key)
    }

    /// The stand-in's seat.
    pub(super) fn acting(&self) -> Option<&Seat> {
        self.seats.get(self.acting_key()?)
    }

    fn acting_key(&self) -> Option<SeatKey> {
        match self.owner {
            Ownership::Acting { key, .. } => self.seats.get(key).map(|_| key),
            Ownership::Present | Ownership::Absent { .. } | Ownership::Vacant => None,
        }
    }

    /// Whether a seat has the owner's part, by right or for the time being.
    fn presides(&self, key: SeatKey) -> bool {
        self.is_owner(key) || self.acting_key() == Some(key)
    }

    /// The seat of a connection that may grant and kick.
    pub(super) fn presiding(&self, connection: ConnectionId) -> Result<SeatKey, Refusal> {
        let key = self.seat_of(connection)?;
        if self.presides(key) { Ok(key) } else { Err(not_the_owner()) }
    }

    /// The seat of a connection that may change and hand over the room.
    pub(super) fn owning(&self, connection: ConnectionId) -> Result<SeatKey, Refusal> {
        let key = self.seat_of(connection)?;
        if self.is_owner(key) { Ok(key) } else { Err(not_the_owner()) }
    }

    /// The seat of a connection that may control playback.
    pub(super) fn controlling(&self, connection: ConnectionId) -> Result<SeatKey, Refusal> {
        let key = self.seat_of(connection)?;
        let row = &self.seats[key].row;
        let may = match self.row.playback_control {
            PlaybackControl::OwnerOnly => self.presides(key),
            PlaybackControl::All => row.role != Role::Guest,
            PlaybackControl::Selected => row.can_control || self.presides(key),
        };
        if may { Ok(key) } else { Err(Refusal::new(ErrorCode::Unauthorized, "you may not control playback")) }
    }

    pub(super) fn transfer(&mut self, connection: ConnectionId, oder_id: &str, now_ms: i64) -> Result<(), Refusal> {
        let old = self.owning(connection)?;
        let new = self.seat_named(oder_id)?;
        if new == old {
            return Err(Refusal::invalid("oderId must name another participant"));
        }
        let Some(owner_id) = self.seats[new].row.user_id.clone() else {
            return Err(Refusal::invalid("oderId must name a user, not a guest"));
        };
        let row = std::sync::Arc::make_mut(&mut self.row);
        row.owner_id.clone_from(&owner_id);
        let row = row.clone();
        self.emit(Effect::Persist(RowChange::SaveRoom(row)));
        self.change_seat(old, |row| (row.role, row.can_control) = (Role::Participant, false));
        self.change_seat(new, |row| (row.role, row.can_control) = (Role::Owner, true));
        let oder_id = oder_id.to_owned();
        self.tell_all(ServerEvent::OwnerChanged { owner_id, oder_id, reason: OwnerChange::Transfer });
        for key in [new, old] {
            let participant = self.seats[key].view();
            self.tell_all(ServerEvent::ParticipantUpdated { participant });
        }
        self.settle_owner(now_ms);
        Ok(())
    }
}

fn not_the_owner() -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, "only the owner may do that")
}
