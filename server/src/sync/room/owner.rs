//! Who owns the room, who stands in for them, and what that lets them do.
//!
//! The owner is a user, whether or not they are here. When they have been away for long enough, the user who has been here
//! longest acts as owner: controls playback, grants and kicks. Settings, transfer and deletion stay with the owner, so
//! that nobody can take a room away from its owner by outwaiting them. Who stands in keeps the part through a lost
//! connection's grace, and loses it to the owner only.

use super::{ConnectionId, Effect, Room, Seat};
use crate::sync::event::{ErrorCode, OwnerChange, Refusal, ServerEvent};
use crate::sync::rows::{PlaybackControl, Role, RowChange};

/// Who has the owner's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The owner, who is online.
    Present,
    /// Nobody; the owner has been away since then, and may be back in time.
    Absent { since_ms: i64 },
    /// Nobody; the next user to come online.
    Vacant,
    /// A stand-in.
    Acting {
        /// The stand-in's participant row.
        participant_id: String,
        /// The name others were told.
        oder_id: String,
    },
}

impl Room {
    /// Finds out who has the owner's part, now that somebody came or went or time has passed, and tells of a change.
    pub(super) fn settle_owner(&mut self, now_ms: i64) {
        if let Some(owner) = self.seats.iter().find(|seat| seat.row.role == Role::Owner && seat.connection().is_some())
        {
            let oder_id = owner.row.oder_id.clone();
            if let Ownership::Acting { .. } = std::mem::replace(&mut self.owner, Ownership::Present) {
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
        let next = self.acting().or_else(|| {
            self.seats.iter().find(|seat| seat.row.role == Role::Participant && seat.connection().is_some())
        });
        let Some(next) = next else {
            self.owner = Ownership::Vacant;
            return;
        };
        let acting = Ownership::Acting { participant_id: next.row.id.clone(), oder_id: next.row.oder_id.clone() };
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

    /// The stand-in's seat.
    pub(super) fn acting(&self) -> Option<&Seat> {
        match &self.owner {
            Ownership::Acting { participant_id, .. } => self.seats.iter().find(|seat| seat.row.id == *participant_id),
            Ownership::Present | Ownership::Absent { .. } | Ownership::Vacant => None,
        }
    }

    /// Whether a seat has the owner's part, by right or for the time being.
    fn presides(&self, index: usize) -> bool {
        self.is_owner(index) || self.acting().is_some_and(|seat| seat.row.id == self.seats[index].row.id)
    }

    /// The seat of a connection that may grant and kick.
    pub(super) fn presiding(&self, connection: ConnectionId) -> Result<usize, Refusal> {
        let index = self.seat_of(connection)?;
        if self.presides(index) { Ok(index) } else { Err(not_the_owner()) }
    }

    /// The seat of a connection that may change and hand over the room.
    pub(super) fn owning(&self, connection: ConnectionId) -> Result<usize, Refusal> {
        let index = self.seat_of(connection)?;
        if self.is_owner(index) { Ok(index) } else { Err(not_the_owner()) }
    }

    /// The seat of a connection that may control playback.
    pub(super) fn controlling(&self, connection: ConnectionId) -> Result<usize, Refusal> {
        let index = self.seat_of(connection)?;
        let row = &self.seats[index].row;
        let may = match self.row.playback_control {
            PlaybackControl::OwnerOnly => self.presides(index),
            PlaybackControl::All => row.role != Role::Guest,
            PlaybackControl::Selected => row.can_control || self.presides(index),
        };
        if may { Ok(index) } else { Err(Refusal::new(ErrorCode::Unauthorized, "you may not control playback")) }
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
        for index in [new, old] {
            let participant = self.seats[index].view();
            self.tell_all(ServerEvent::ParticipantUpdated { participant });
        }
        self.settle_owner(now_ms);
        Ok(())
    }
}

fn not_the_owner() -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, "only the owner may do that")
}
