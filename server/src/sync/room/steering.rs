//! What the room watches, and who moves it.
//!
//! A sync command is checked for membership, permission, a source to act on, the participant's rate limit, and a sequence
//! number to give it, in this order. Only a command that passes counts towards the limit.

use std::sync::Arc;

use super::{Audience, ConnectionId, Effect, Room, SeatKey};
use crate::sync::event::{ErrorCode, Refusal, ServerEvent, SourceRequest, SyncCommand};
use crate::sync::playback::{self, Motion, PlaybackState, Timeline};

impl Room {
    pub(super) fn source(
        &mut self,
        connection: ConnectionId,
        source: SourceRequest,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let key = self.controlling(connection)?;
        let sequence = self.next_sequence(key, now_ms)?;
        let state = PlaybackState {
            room_id: self.row.id.clone(),
            source_type: source.source_type,
            source_id: source.source_id,
            is_playing: false,
            playback_rate: 1.0,
            anchor_server_time_ms: now_ms,
            anchor_media_time_ms: source.start_media_time_ms.unwrap_or(0.0),
            sequence_number: sequence,
        };
        self.playback = Some(Arc::new(Timeline::new(state.clone())));
        self.tell_all(ServerEvent::SyncState { state, server_time: now_ms });
        Ok(())
    }

    pub(super) fn steer(
        &mut self,
        connection: ConnectionId,
        motion: Motion,
        proposed_ms: Option<f64>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let key = self.controlling(connection)?;
        if self.playback.is_none() {
            return Err(no_source());
        }
        let sequence_number = self.next_sequence(key, now_ms)?;
        let at_server_time =
            playback::effective_at(proposed_ms, now_ms, playback::lead_ms(self.seats.slowest_one_way_ms()));
        let Some(timeline) = self.playback.as_mut().map(Arc::make_mut) else { return Err(no_source()) };
        timeline.apply(motion, at_server_time, now_ms, sequence_number);
        let state = timeline.state().clone();
        let command = match motion {
            Motion::Play => SyncCommand::Play { at_server_time, sequence_number },
            Motion::Pause => SyncCommand::Pause { at_server_time, sequence_number },
            Motion::Seek(target_media_time) => SyncCommand::Seek { target_media_time, at_server_time, sequence_number },
            Motion::SetRate(rate) => SyncCommand::SetRate { rate, at_server_time, sequence_number },
        };
        self.tell_all(ServerEvent::SyncCommand { command, state });
        Ok(())
    }

    pub(super) fn resync(&mut self, connection: ConnectionId, now_ms: i64) -> Result<(), Refusal> {
        self.seat_of(connection)?;
        let state = self.playback.as_ref().ok_or_else(no_source)?.state().clone();
        let event = ServerEvent::SyncState { state, server_time: now_ms };
        self.emit(Effect::Send { to: Audience::One(connection), event });
        Ok(())
    }

    pub(super) fn measured(&mut self, connection: ConnectionId, round_trip_ms: u32) {
        if let Ok(key) = self.seat_of(connection) {
            self.seats.change(key, |seat| seat.one_way_ms = round_trip_ms.div_ceil(2));
        }
    }

    /// Counts a command of this seat and numbers it, if both its rate and the numbers left allow.
    fn next_sequence(&mut self, key: SeatKey, now_ms: i64) -> Result<u64, Refusal> {
        if let Some(wait_ms) = self.seats[key].must_wait_ms(now_ms) {
            let refusal = Refusal::new(ErrorCode::RateLimitExceeded, "too many sync commands");
            return Err(Refusal { retry_after_ms: Some(wait_ms), ..refusal });
        }
        if self.sequence >= self.sequence_limit {
            return Err(Refusal::new(ErrorCode::Unavailable, "the room cannot be changed now, try again"));
        }
        self.seats.change(key, |seat| seat.count_command(now_ms));
        self.sequence += 1;
        Ok(self.sequence)
    }
}

fn no_source() -> Refusal {
    Refusal::invalid("the room has no source yet")
}
