//! Where playback is: media time from an anchor, a rate and the server's time.
//!
//! A command takes effect at a moment slightly ahead, so the newest state may lie in the future when the next command
//! comes. [`Timeline`] therefore keeps what holds until then: a command that takes effect before an earlier one starts
//! from where the media really is at that moment, and replaces the earlier one. Only a jump that had not happened yet is
//! not undone: its target is where the later command starts from, so a PAUSE right after a SEEK pauses at the target.

use serde::{Deserialize, Serialize, Serializer};

/// What a room watches and how it moves, as the wire and the store have it.
///
/// From `anchor_server_time_ms` on, the media is at `anchor_media_time_ms`, plus the time passed since then times
/// `playback_rate` where `is_playing`. Media times are milliseconds, and may have a fraction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaybackState {
    /// The room this is the playback of.
    pub room_id: String,
    /// Where the media comes from.
    pub source_type: SourceType,
    /// Which media it is, in the words of its source.
    pub source_id: String,
    /// Whether media time passes.
    pub is_playing: bool,
    /// Media milliseconds per server millisecond while playing.
    #[serde(serialize_with = "plain_number")]
    pub playback_rate: f64,
    /// The server time, in Unix milliseconds, at which this takes effect.
    pub anchor_server_time_ms: i64,
    /// The media time at that moment, in milliseconds.
    #[serde(serialize_with = "plain_number")]
    pub anchor_media_time_ms: f64,
    /// The number of the change that made this state; grows while the room lives.
    pub sequence_number: u64,
}

/// Where media comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// A file somebody uploaded.
    Upload,
    /// A YouTube video.
    Youtube,
    /// Any other address.
    External,
}

/// What a command does to playback.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Motion {
    /// Media time passes from now on.
    Play,
    /// Media time stands still from now on.
    Pause,
    /// Media time becomes this, in milliseconds.
    Seek(f64),
    /// Media time passes at this many milliseconds per millisecond.
    SetRate(f64),
}

/// A room's playback over server time: the newest state, and what holds until its anchor is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    state: PlaybackState,
    /// Whether the media leaves its course at the state's anchor.
    jumps: bool,
    /// Stretches before the state's anchor, oldest first; the first may have begun long ago.
    earlier: Vec<Stretch>,
}

/// An even course of the media, from a moment to the start of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Stretch {
    from_ms: i64,
    media_ms: f64,
    speed: f64,
    jumps: bool,
}

impl Timeline {
    /// Takes up a state; before its anchor the media is held where the anchor has it.
    pub fn new(state: PlaybackState) -> Self {
        Self { state, jumps: true, earlier: Vec::new() }
    }

    /// The newest state, whose anchor may still be ahead.
    pub fn state(&self) -> &PlaybackState {
        &self.state
    }

    /// The media time, in milliseconds, at a server time from the last command on; never below 0.
    pub fn position_at(&self, at_ms: i64) -> f64 {
        let newest = self.newest();
        let stretch = if at_ms >= newest.from_ms {
            newest
        } else {
            let held = self.earlier.iter().rev().find(|stretch| stretch.from_ms <= at_ms);
            *held.or(self.earlier.first()).unwrap_or(&newest)
        };
        stretch.media_at(at_ms)
    }

    /// Lets a command take effect at `at_ms`, which is not before `now_ms`.
    pub fn apply(&mut self, motion: Motion, at_ms: i64, now_ms: i64, sequence: u64) {
        let newest = self.newest();
        let replaced = |stretch: &&Stretch| stretch.from_ms >= at_ms;
        let jump = Some(&newest).into_iter().chain(self.earlier.iter().rev()).filter(replaced).find(|it| it.jumps);
        let (course_ms, jumps) = match jump {
            Some(jump) => (jump.media_ms, true),
            None => (self.position_at(at_ms), false),
        };
        self.earlier.push(newest);
        self.earlier.retain(|stretch| stretch.from_ms < at_ms);
        let begun = self.earlier.iter().filter(|stretch| stretch.from_ms <= now_ms).count();
        let surplus = begun.saturating_sub(1).max(self.earlier.len().saturating_sub(MAX_STRETCHES));
        self.earlier.drain(..surplus);

        let state = &mut self.state;
        match motion {
            Motion::Play => state.is_playing = true,
            Motion::Pause => state.is_playing = false,
            Motion::Seek(_) => {}
            Motion::SetRate(rate) => state.playback_rate = rate,
        }
        let target = if let Motion::Seek(target_ms) = motion { Some(target_ms) } else { None };
        self.jumps = jumps || target.is_some();
        state.anchor_media_time_ms = thousandths(target.unwrap_or(course_ms).max(0.0));
        state.anchor_server_time_ms = at_ms;
        state.sequence_number = sequence;
    }

    fn newest(&self) -> Stretch {
        let state = &self.state;
        Stretch {
            from_ms: state.anchor_server_time_ms,
            media_ms: state.anchor_media_time_ms,
            speed: if state.is_playing { state.playback_rate } else { 0.0 },
            jumps: self.jumps,
        }
    }
}

impl Stretch {
    fn media_at(&self, at_ms: i64) -> f64 {
        let passed_ms = at_ms.saturating_sub(self.from_ms).max(0) as f64;
        (self.media_ms + passed_ms * self.speed).max(0.0)
    }
}

/// When a command takes effect: as proposed, if that is within the next two seconds, else `lead_ms` from now.
pub fn effective_at(proposed_ms: Option<f64>, now_ms: i64, lead_ms: i64) -> i64 {
    let window = now_ms as f64..=(now_ms + MAX_PROPOSED_LEAD_MS) as f64;
    match proposed_ms {
        Some(proposed_ms) if window.contains(&proposed_ms) => proposed_ms.round() as i64,
        _ => now_ms + lead_ms,
    }
}

/// How far ahead commands take effect, when the slowest member hears of them after `one_way_ms`.
pub fn lead_ms(one_way_ms: u32) -> i64 {
    (i64::from(one_way_ms) + LEAD_MARGIN_MS).clamp(MIN_LEAD_MS, MAX_LEAD_MS)
}

/// A float of `1100.0000000000002` is noise on the wire; a microsecond of media is below what anyone can set.
fn thousandths(media_ms: f64) -> f64 {
    (media_ms * 1000.0).round() / 1000.0
}

/// Writes a number without a fraction as an integer, for readers that tell `1500.0` from `1500`.
pub(crate) fn plain_number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    // Beyond 2^53 a float no longer holds every integer, and the cast would claim a precision that is not there.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// What a client takes to act on a command it has received.
const LEAD_MARGIN_MS: i64 = 30;

/// Below this, ordinary jitter would make some members late.
const MIN_LEAD_MS: i64 = 50;

/// Beyond this, the one who pressed the button takes it for broken; who is slower than that catches up.
const MAX_LEAD_MS: i64 = 500;

/// How far ahead a client may put a command.
const MAX_PROPOSED_LEAD_MS: i64 = 2_000;

/// Stretches kept before the newest state. Only commands set for ever later moments within the same two seconds add to
/// them; past the limit the oldest is forgotten, and the media held at the next one's start until then.
const MAX_STRETCHES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(media_ms: f64) -> Timeline {
        Timeline::new(PlaybackState {
            room_id: "room".into(),
            source_type: SourceType::External,
            source_id: "film".into(),
            is_playing: false,
            playback_rate: 1.0,
            anchor_server_time_ms: 1_000,
            anchor_media_time_ms: media_ms,
            sequence_number: 1,
        })
    }

    fn playing(media_ms: f64) -> Timeline {
        let mut timeline = paused(media_ms);
        timeline.apply(Motion::Play, 1_000, 1_000, 2);
        timeline
    }

    /// The anchors a command leaves behind.
    fn anchors(timeline: &Timeline) -> (i64, f64) {
        (timeline.state().anchor_server_time_ms, timeline.state().anchor_media_time_ms)
    }

    #[test]
    fn paused_media_stays_where_it_is() {
        assert_eq!(paused(500.0).position_at(9_000), 500.0);
    }

    #[test]
    fn playing_media_moves_with_the_server_time() {
        assert_eq!(playing(500.0).position_at(3_500), 3_000.0);
    }

    #[test]
    fn playing_media_moves_at_its_rate() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::SetRate(2.5), 2_000, 1_950, 3);
        assert_eq!(timeline.position_at(4_000), 6_000.0);
    }

    #[test]
    fn the_position_is_never_below_zero() {
        let mut timeline = paused(0.0);
        timeline.apply(Motion::Seek(-5.0), 1_100, 1_050, 2);
        assert_eq!(timeline.position_at(1_100), 0.0);
        assert_eq!(playing(0.0).position_at(0), 0.0);
    }

    #[test]
    fn a_play_while_playing_moves_nobody() {
        let mut timeline = playing(500.0);
        let before = timeline.position_at(8_000);
        timeline.apply(Motion::Play, 5_050, 5_000, 3);
        assert_eq!(anchors(&timeline), (5_050, 4_550.0));
        assert_eq!(timeline.position_at(8_000), before);
    }

    #[test]
    fn a_pause_stops_where_the_media_is_when_it_takes_effect() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Pause, 3_050, 3_000, 3);
        assert_eq!(anchors(&timeline), (3_050, 2_050.0));
        assert_eq!(timeline.position_at(99_000), 2_050.0);
    }

    #[test]
    fn a_new_rate_counts_from_its_anchor_only() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::SetRate(2.0), 2_000, 1_950, 3);
        assert_eq!(anchors(&timeline), (2_000, 1_000.0));
        assert_eq!(timeline.position_at(1_990), 990.0);
        assert_eq!(timeline.position_at(2_010), 1_020.0);
    }

    #[test]
    fn a_new_rate_while_paused_moves_nothing() {
        let mut timeline = paused(700.0);
        timeline.apply(Motion::SetRate(4.0), 2_000, 1_950, 2);
        assert_eq!(timeline.position_at(60_000), 700.0);
        assert!(!timeline.state().is_playing);
    }

    #[test]
    fn a_seek_keeps_playing_or_paused() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Seek(60_000.0), 2_000, 1_950, 3);
        assert_eq!(timeline.position_at(2_100), 60_100.0);
        let mut timeline = paused(0.0);
        timeline.apply(Motion::Seek(60_000.0), 2_000, 1_950, 3);
        assert_eq!(timeline.position_at(2_100), 60_000.0);
    }

    #[test]
    fn before_a_seek_takes_effect_the_media_is_on_its_old_course() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Seek(60_000.0), 3_000, 2_000, 3);
        assert_eq!(timeline.position_at(2_500), 1_500.0);
        assert_eq!(timeline.position_at(3_000), 60_000.0);
    }

    #[test]
    fn before_a_play_takes_effect_the_media_stands_still() {
        let mut timeline = paused(400.0);
        timeline.apply(Motion::Play, 3_000, 2_000, 2);
        assert_eq!(timeline.position_at(2_500), 400.0);
        assert_eq!(timeline.position_at(3_500), 900.0);
    }

    #[test]
    fn a_pause_ahead_of_a_pending_play_stays_where_it_was() {
        let mut timeline = paused(400.0);
        timeline.apply(Motion::Play, 3_000, 1_100, 2);
        timeline.apply(Motion::Pause, 1_200, 1_150, 3);
        assert_eq!(anchors(&timeline), (1_200, 400.0));
        assert_eq!(timeline.position_at(5_000), 400.0);
    }

    #[test]
    fn a_pause_after_a_pending_play_counts_what_will_have_played() {
        let mut timeline = paused(400.0);
        timeline.apply(Motion::Play, 1_150, 1_100, 2);
        timeline.apply(Motion::Pause, 1_160, 1_110, 3);
        assert_eq!(anchors(&timeline), (1_160, 410.0));
    }

    #[test]
    fn a_pause_ahead_of_a_pending_rate_counts_the_old_rate() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::SetRate(4.0), 3_000, 2_000, 3);
        timeline.apply(Motion::Pause, 2_100, 2_050, 4);
        assert_eq!(anchors(&timeline), (2_100, 1_100.0));
        assert_eq!(timeline.state().playback_rate, 4.0);
    }

    #[test]
    fn a_play_ahead_of_a_pending_pause_plays_on() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Pause, 3_000, 2_000, 3);
        timeline.apply(Motion::Play, 2_100, 2_050, 4);
        assert_eq!(timeline.position_at(4_000), 3_000.0);
    }

    #[test]
    fn a_pause_ahead_of_a_pending_seek_pauses_at_its_target() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Seek(60_000.0), 3_000, 2_000, 3);
        timeline.apply(Motion::Pause, 2_100, 2_050, 4);
        assert_eq!(anchors(&timeline), (2_100, 60_000.0));
    }

    #[test]
    fn a_jump_stays_a_jump_under_commands_for_the_same_moment() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Seek(60_000.0), 3_000, 2_000, 3);
        timeline.apply(Motion::SetRate(2.0), 3_000, 2_010, 4);
        timeline.apply(Motion::Pause, 2_100, 2_050, 5);
        assert_eq!(anchors(&timeline), (2_100, 60_000.0));
    }

    #[test]
    fn the_later_of_two_pending_seeks_wins() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::Seek(60_000.0), 3_000, 2_000, 3);
        timeline.apply(Motion::Seek(5_000.0), 2_100, 2_010, 4);
        assert_eq!(timeline.position_at(2_050), 1_050.0);
        assert_eq!(timeline.position_at(3_100), 6_000.0);
    }

    #[test]
    fn three_pending_commands_out_of_order_leave_the_real_position() {
        let mut timeline = paused(500.0);
        timeline.apply(Motion::Play, 3_000, 1_010, 2);
        timeline.apply(Motion::Pause, 3_500, 1_500, 3);
        timeline.apply(Motion::SetRate(2.0), 1_600, 1_550, 4);
        assert_eq!(anchors(&timeline), (1_600, 500.0));
    }

    #[test]
    fn what_holds_until_the_anchor_is_bounded() {
        let mut timeline = playing(0.0);
        for step in 0..1_900 {
            timeline.apply(Motion::Play, 1_001 + step, 1_000, 3);
            assert!(timeline.earlier.len() <= MAX_STRETCHES);
        }
        timeline.apply(Motion::Play, 90_000, 89_950, 4);
        assert_eq!(timeline.earlier.len(), 1);
        assert_eq!(timeline.position_at(100_000), 99_000.0);
    }

    #[test]
    fn re_anchoring_does_not_drift() {
        let mut timeline = playing(0.0);
        timeline.apply(Motion::SetRate(1.1), 2_000, 1_950, 3);
        for step in 0..1_000 {
            let now = 2_000 + step * 7;
            timeline.apply(Motion::Play, now + 50, now, 4);
        }
        assert!((timeline.position_at(102_000) - 111_000.0).abs() < 1.0);
    }

    #[test]
    fn a_proposal_counts_only_within_two_seconds() {
        assert_eq!(effective_at(None, 1_000, 80), 1_080);
        assert_eq!(effective_at(Some(1_000.0), 1_000, 80), 1_000);
        assert_eq!(effective_at(Some(1_499.6), 1_000, 80), 1_500);
        assert_eq!(effective_at(Some(3_000.0), 1_000, 80), 3_000);
        assert_eq!(effective_at(Some(999.9), 1_000, 80), 1_080);
        assert_eq!(effective_at(Some(3_000.1), 1_000, 80), 1_080);
        assert_eq!(effective_at(Some(f64::NAN), 1_000, 80), 1_080);
    }

    #[test]
    fn the_lead_is_the_slowest_way_and_a_margin_within_bounds() {
        assert_eq!(lead_ms(0), 50);
        assert_eq!(lead_ms(20), 50);
        assert_eq!(lead_ms(21), 51);
        assert_eq!(lead_ms(470), 500);
        assert_eq!(lead_ms(u32::MAX), 500);
    }

    #[test]
    fn whole_numbers_are_written_without_a_fraction() {
        let json = serde_json::to_value(paused(1_500.0).state()).unwrap();
        let expected = serde_json::json!({
            "roomId": "room", "sourceType": "external", "sourceId": "film", "isPlaying": false, "playbackRate": 1,
            "anchorServerTimeMs": 1_000, "anchorMediaTimeMs": 1_500, "sequenceNumber": 1,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::to_value(paused(0.5).state()).unwrap()["anchorMediaTimeMs"], 0.5);
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let state = playing(12.5).state().clone();
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<PlaybackState>(&json).unwrap(), state);
    }
}
