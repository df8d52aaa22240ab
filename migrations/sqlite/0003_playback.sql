-- Playback is written far more often than its room, and its sequence numbers must never restart, not even by a crash.
CREATE TABLE playback (
    room_id        TEXT    NOT NULL PRIMARY KEY REFERENCES rooms (id) ON DELETE CASCADE,
    -- JSON in the shape clients see; null before the first source.
    state          TEXT,
    sequence       INTEGER NOT NULL CHECK (sequence >= 0),
    sequence_limit INTEGER NOT NULL CHECK (sequence_limit >= sequence)
) STRICT, WITHOUT ROWID;
