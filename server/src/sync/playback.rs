//! Where playback is: media time from an anchor, a rate and the server's time.

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

/// Writes a number without a fraction as an integer, for readers that tell `1500.0` from `1500`.
pub(crate) fn plain_number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    // Beyond 2^53 a float no longer holds every integer, and the cast would claim a precision that is not there.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}
