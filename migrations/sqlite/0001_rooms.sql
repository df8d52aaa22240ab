-- Rooms outlive the process: the code somebody was sent must still work after a restart.
CREATE TABLE rooms (
    id               TEXT    NOT NULL PRIMARY KEY,
    -- Upper case only, so that one index answers without regard to case.
    code             TEXT    NOT NULL UNIQUE CHECK (length(code) = 8 AND code NOT GLOB '*[^A-Z0-9]*'),
    name             TEXT    NOT NULL,
    owner_id         TEXT    NOT NULL,
    max_participants INTEGER NOT NULL,
    password_hash    TEXT,
    playback_control TEXT    NOT NULL,
    wait_for         TEXT    NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    expires_at_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX rooms_by_expiry ON rooms (expires_at_ms);
