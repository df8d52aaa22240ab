-- Seats outlive the process: who was in a room can resume after a restart, with the same role and rights.
CREATE TABLE participants (
    id           TEXT    NOT NULL PRIMARY KEY,
    room_id      TEXT    NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    oder_id      TEXT    NOT NULL,
    user_id      TEXT,
    username     TEXT,
    guest_name   TEXT,
    role         TEXT    NOT NULL,
    can_control  INTEGER NOT NULL CHECK (can_control IN (0, 1)),
    joined_at_ms INTEGER NOT NULL,
    resume_hash  BLOB    NOT NULL CHECK (length(resume_hash) = 32)
) STRICT, WITHOUT ROWID;

-- Also the way to all participants of a room.
CREATE UNIQUE INDEX participants_by_oder_id ON participants (room_id, oder_id);

-- A user has one seat in a room; guests are not users.
CREATE UNIQUE INDEX participants_by_user ON participants (room_id, user_id) WHERE user_id IS NOT NULL;
