-- Rooms outlive the process: the code somebody was sent must still work after a restart.
-- Text is as the store's `escaped` writes it, for PostgreSQL keeps no NUL.
CREATE TABLE rooms (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- Upper case only, so that one index answers without regard to case.
    code             TEXT COLLATE "C" NOT NULL UNIQUE CHECK (code ~ '^[A-Z0-9]{8}$'),
    name             TEXT    NOT NULL,
    owner_id         TEXT    NOT NULL,
    max_participants BIGINT  NOT NULL,
    password_hash    TEXT,
    playback_control TEXT    NOT NULL,
    wait_for         TEXT    NOT NULL,
    created_at_ms    BIGINT  NOT NULL,
    expires_at_ms    BIGINT  NOT NULL
);

CREATE INDEX rooms_by_expiry ON rooms (expires_at_ms);
