-- Seats outlive the process: who was in a room can resume after a restart, with the same role and rights.
CREATE TABLE participants (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    room_id      TEXT COLLATE "C" NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    oder_id      TEXT COLLATE "C" NOT NULL,
    user_id      TEXT COLLATE "C",
    username     TEXT,
    guest_name   TEXT,
    role         TEXT    NOT NULL,
    can_control  BOOLEAN NOT NULL,
    joined_at_ms BIGINT  NOT NULL,
    resume_hash  BYTEA   NOT NULL CHECK (octet_length(resume_hash) = 32)
);

-- Also the way to all participants of a room.
CREATE UNIQUE INDEX participants_by_oder_id ON participants (room_id, oder_id);

-- A user has one seat in a room; guests are not users.
CREATE UNIQUE INDEX participants_by_user ON participants (room_id, user_id) WHERE user_id IS NOT NULL;
