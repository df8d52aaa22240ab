-- Playback is written far more often than its room, and its sequence numbers must never restart, not even by a crash.
CREATE TABLE playback (
    room_id        TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES rooms (id) ON DELETE CASCADE,
    -- JSON in the shape clients see, as it was written; null before the first source.
    state          TEXT,
    sequence       BIGINT NOT NULL CHECK (sequence >= 0),
    sequence_limit BIGINT NOT NULL CHECK (sequence_limit >= sequence)
);
