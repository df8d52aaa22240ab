//! A room in several places at once: what has changed in one of them, told to the others.
//!
//! The place that carries out a command takes what has changed since its [mark](Room::mark) as a [`Diff`]; the others
//! [apply](Room::apply) it. So only one of them ever decides anything, and what the others do not need, drawing ids or
//! checking passwords, is not done twice.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::owner::Ownership;
use super::seat::{Presence, Seat};
use super::{Audience, ConnectionId, Effect, Room, RoomOptions, SeatKey, Seats};
use crate::sync::event::{ClosedReason, LeftReason, ParticipantView, ServerEvent};
use crate::sync::playback::{PlaybackState, Timeline};
use crate::sync::rows::{ParticipantRow, RoomRow};

/// What has changed in a room, or all there is of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Diff {
    /// What is small enough not to be looked at for changes.
    pub head: Head,
    /// The room's row, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<RoomRow>,
    /// The playback, if it is another one. Once there is one, there always is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback: Option<Timeline>,
    /// The seats that are taken, or taken in another way; those given up have nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<(SeatKey, Option<SeatRecord>)>,
}

/// The small things of a room.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Head {
    pub(super) owner: Ownership,
    /// The last sequence number given out.
    pub sequence: u64,
    /// The highest sequence number that may be given out.
    pub sequence_limit: u64,
    /// Whether the room was closed.
    pub closed: bool,
    pub(super) next_seat: u64,
}

/// A seat and everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeatRecord {
    /// The durable row.
    pub row: ParticipantRow,
    presence: Presence,
    /// The id by which Socket.IO knows the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_id: Option<String>,
    #[serde(default)]
    one_way_ms: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<i64>,
}

impl SeatRecord {
    fn of(seat: &Seat) -> Self {
        Self {
            row: (*seat.row).clone(),
            presence: seat.presence,
            socket_id: seat.socket_id.as_deref().map(str::to_owned),
            one_way_ms: seat.one_way_ms,
            recent: seat.recent().to_vec(),
        }
    }

    fn into_seat(self) -> Seat {
        let row = Arc::new(self.row);
        Seat::taken_up(row, self.presence, self.socket_id.map(Arc::from), self.one_way_ms, self.recent)
    }

    /// The participant as others see it.
    pub fn view(&self) -> ParticipantView {
        ParticipantView::new(Arc::new(self.row.clone()), self.connection().is_some())
    }

    /// The connection in the seat, if its grace does not run.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Online(connection) => Some(connection),
            Presence::Offline { .. } => None,
        }
    }
}

impl Diff {
    /// The playback as everybody may see it, if it has changed.
    pub fn playback_state(&self) -> Option<&PlaybackState> {
        self.playback.as_ref().map(Timeline::state)
    }
}

impl SeatKey {
    /// The number by which all places know the seat.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The seat of this number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl Room {
    /// What has changed since the mark; without one, only what is always told.
    pub fn diff(&self) -> Diff {
        let mark = self.mark.as_deref();
        let is_other_row = mark.is_some_and(|mark| !Arc::ptr_eq(&mark.row, &self.row));
        let playback = self
            .playback
            .as_ref()
            .filter(|new| mark.is_some_and(|mark| mark.playback.as_ref().is_none_or(|old| !Arc::ptr_eq(old, new))));
        let seats = self.seats.changed().into_iter().map(|key| (key, self.seats.get(key).map(SeatRecord::of)));
        Diff {
            head: self.head(),
            row: is_other_row.then(|| (*self.row).clone()),
            playback: playback.map(|timeline| (**timeline).clone()),
            seats: seats.collect(),
        }
    }

    /// Whether anything has changed since the mark.
    pub fn has_changed(&self) -> bool {
        self.mark.as_deref().is_some_and(|mark| {
            let pointer = |playback: &Option<Arc<Timeline>>| playback.as_ref().map(Arc::as_ptr);
            !Arc::ptr_eq(&mark.row, &self.row)
                || pointer(&mark.playback) != pointer(&self.playback)
                || (&mark.owner, mark.sequence, mark.sequence_limit, mark.closed)
                    != (&self.owner, self.sequence, self.sequence_limit, self.closed)
                || self.seats.has_changed()
        })
    }

    /// All there is of the room.
    pub fn whole(&self) -> Diff {
        Diff {
            head: self.head(),
            row: Some((*self.row).clone()),
            playback: self.playback.as_deref().cloned(),
            seats: self.seats.entries().map(|(key, seat)| (key, Some(SeatRecord::of(seat)))).collect(),
        }
    }

    /// Takes up a room from [all there is of it](Self::whole); none without its row.
    pub fn take_up(whole: Diff, options: RoomOptions) -> Option<Self> {
        let mut room = Self::empty(whole.row.clone()?, options);
        room.apply(whole);
        Some(room)
    }

    /// Makes the change that was made elsewhere. It has no effects here.
    pub fn apply(&mut self, diff: Diff) {
        let Diff { head, row, playback, seats } = diff;
        let Head { owner, sequence, sequence_limit, closed, next_seat } = head;
        (self.owner, self.sequence, self.sequence_limit, self.closed) = (owner, sequence, sequence_limit, closed);
        if let Some(row) = row {
            self.row = Arc::new(row);
        }
        if let Some(playback) = playback {
            self.playback = Some(Arc::new(playback));
        }
        for (key, record) in seats {
            self.seats.set(key, record.map(SeatRecord::into_seat));
        }
        self.seats.go_on_from(next_seat);
    }

    /// How many connections of an instance are in seats.
    pub fn connections_of(&self, instance: u32) -> usize {
        self.seats.connections_of(instance)
    }

    /// The instances that have connections in seats.
    pub fn instances(&self) -> impl Iterator<Item = u32> {
        self.seats.instances()
    }

    /// The connections of an instance that are in seats.
    pub fn members_of(&self, instance: u32) -> Vec<ConnectionId> {
        let connections = self.seats.iter().filter_map(Seat::connection);
        connections.filter(|connection| connection.instance() == instance).collect()
    }

    /// The row of a seat.
    pub fn row_of(&self, key: SeatKey) -> Option<&Arc<ParticipantRow>> {
        self.seats.get(key).map(|seat| &seat.row)
    }

    /// Whether a round trip differs enough from the last to be told to other instances: by a quarter, and by 10 ms.
    pub fn is_worth_telling(&self, connection: ConnectionId, round_trip_ms: u32) -> bool {
        let seat = self.seats.of_connection(connection).and_then(|key| self.seats.get(key));
        seat.is_some_and(|seat| {
            let known_ms = seat.one_way_ms * 2;
            known_ms.abs_diff(round_trip_ms) > (known_ms / 4).max(10)
        })
    }

    /// What connections of an instance have to be told when `newer` takes the place of this room.
    pub fn missed(&self, newer: &Self, instance: u32, now_ms: i64) -> Vec<Effect> {
        let mut missed = Vec::new();
        let all = |event| Effect::Send { to: Audience::All, event };
        for seat in self.seats.iter() {
            let connection = seat.connection().filter(|connection| connection.instance() == instance);
            if let Some(connection) = connection.filter(|it| newer.seats.of_connection(*it).is_none()) {
                missed.extend([Effect::Remove { connection }, Effect::Cut { connection }]);
            }
            if newer.seats.of_oder_id(&seat.row.oder_id).is_none() && !newer.closed {
                let oder_id = seat.row.oder_id.clone();
                missed.push(all(ServerEvent::ParticipantLeft { oder_id, reason: LeftReason::Timeout }));
            }
        }
        if newer.closed {
            missed.push(all(ServerEvent::RoomClosed { reason: ClosedReason::Deleted }));
            return missed;
        }
        for seat in newer.seats.iter() {
            let participant = seat.view();
            match self.seats.of_oder_id(&seat.row.oder_id).map(|key| self.seats[key].view()) {
                None => missed.push(all(ServerEvent::ParticipantJoined { participant })),
                Some(known) if known != participant => {
                    missed.push(all(ServerEvent::ParticipantUpdated { participant }));
                }
                Some(_) => {}
            }
        }
        if self.view() != newer.view() {
            missed.push(all(ServerEvent::RoomUpdated { room: newer.view() }));
        }
        if self.playback != newer.playback
            && let Some(timeline) = &newer.playback
        {
            let state = timeline.state().clone();
            missed.push(all(ServerEvent::SyncState { state, server_time: now_ms }));
        }
        missed
    }

    /// The row of every seat.
    pub fn participant_rows(&self) -> impl Iterator<Item = &Arc<ParticipantRow>> {
        self.seats.iter().map(|seat| &seat.row)
    }

    /// Numbers go on from here at the least: higher ones may have been given out.
    pub fn skip_sequence(&mut self, to: u64) {
        self.sequence = self.sequence.max(to);
        self.sequence_limit = self.sequence_limit.max(to);
    }

    fn head(&self) -> Head {
        Head {
            owner: self.owner.clone(),
            sequence: self.sequence,
            sequence_limit: self.sequence_limit,
            closed: self.closed,
            next_seat: self.seats.next_number(),
        }
    }

    fn empty(row: RoomRow, options: RoomOptions) -> Self {
        Self {
            row: Arc::new(row),
            options,
            seats: Seats::default(),
            owner: Ownership::default(),
            playback: None,
            sequence: 0,
            sequence_limit: 0,
            closed: false,
            effects: std::collections::VecDeque::new(),
            mark: None,
        }
    }
}
