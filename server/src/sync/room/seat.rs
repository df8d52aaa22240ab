//! A seat: who is in it, by which connection, and how busy they have been.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ConnectionId, Identity};
use crate::sync::event::ParticipantView;
use crate::sync::rows::ParticipantRow;

/// A participant of the room, online or in its grace.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seat {
    pub(super) row: Arc<ParticipantRow>,
    pub(super) presence: Presence,
    /// The id by which Socket.IO knows the connection, where other instances have to know it.
    pub(super) socket_id: Option<Arc<str>>,
    /// How long an event takes to the participant: half its last round trip, 0 before the first.
    pub(super) one_way_ms: u32,
    /// When the last sync commands came, oldest first; allocated by the first one.
    recent: Option<Arc<Vec<i64>>>,
    view: ParticipantView,
}

/// Whether a connection is in the seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Presence {
    Online(ConnectionId),
    Offline { until_ms: i64 },
}

impl Seat {
    pub(super) fn online(row: Arc<ParticipantRow>, connection: ConnectionId, socket_id: Option<Arc<str>>) -> Self {
        Self::taken_up(row, Presence::Online(connection), socket_id, 0, Vec::new())
    }

    pub(super) fn offline(row: ParticipantRow, until_ms: i64) -> Self {
        Self::taken_up(Arc::new(row), Presence::Offline { until_ms }, None, 0, Vec::new())
    }

    pub(super) fn taken_up(
        row: Arc<ParticipantRow>,
        presence: Presence,
        socket_id: Option<Arc<str>>,
        one_way_ms: u32,
        recent: Vec<i64>,
    ) -> Self {
        let view = ParticipantView::new(Arc::clone(&row), matches!(presence, Presence::Online(_)));
        let recent = (!recent.is_empty()).then(|| Arc::new(recent));
        Self { row, presence, socket_id, one_way_ms, recent, view }
    }

    /// When the last sync commands came, oldest first.
    pub(super) fn recent(&self) -> &[i64] {
        self.recent.as_ref().map_or(&[], |recent| recent.as_slice())
    }

    /// The participant as others see it.
    pub(super) fn view(&self) -> ParticipantView {
        self.view.clone()
    }

    /// To be called when the row or the presence has changed.
    pub(super) fn looks_different(&mut self) {
        self.view = ParticipantView::new(Arc::clone(&self.row), self.is_online());
    }

    pub(super) fn is_online(&self) -> bool {
        matches!(self.presence, Presence::Online(_))
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Online(connection) => Some(connection),
            Presence::Offline { .. } => None,
        }
    }

    pub(super) fn grace_until(&self) -> Option<i64> {
        match self.presence {
            Presence::Online(_) => None,
            Presence::Offline { until_ms } => Some(until_ms),
        }
    }

    pub(super) fn grace_is_over(&self, now_ms: i64) -> bool {
        self.grace_until().is_some_and(|until_ms| now_ms >= until_ms)
    }

    /// Whether the seat is this user's, or a guest's and this is a guest.
    pub(super) fn suits(&self, identity: &Identity) -> bool {
        match identity {
            Identity::User { user_id, .. } => self.row.user_id.as_ref() == Some(user_id),
            Identity::Guest { .. } => self.row.user_id.is_none(),
        }
    }

    /// Hands the seat to another connection, whose way is not known yet.
    pub(super) fn take_over(
        &mut self,
        row: Arc<ParticipantRow>,
        connection: ConnectionId,
        socket_id: Option<Arc<str>>,
    ) {
        self.row = row;
        self.presence = Presence::Online(connection);
        self.socket_id = socket_id;
        self.one_way_ms = 0;
    }

    /// How long the participant must wait before its next sync command; none if it need not.
    pub(super) fn must_wait_ms(&self, now_ms: i64) -> Option<u64> {
        let recent = self.recent.as_ref().filter(|recent| recent.len() >= COMMANDS_PER_WINDOW)?;
        u64::try_from(recent.first()? + WINDOW_MS - now_ms).ok().filter(|wait_ms| *wait_ms > 0)
    }

    /// Counts a sync command.
    pub(super) fn count_command(&mut self, now_ms: i64) {
        let recent = Arc::make_mut(self.recent.get_or_insert_default());
        if recent.len() >= COMMANDS_PER_WINDOW {
            recent.remove(0);
        }
        recent.push(now_ms);
    }
}

/// Sync commands a participant may give in any window: more is not a person at the controls.
const COMMANDS_PER_WINDOW: usize = 10;

const WINDOW_MS: i64 = 1_000;
