// What lasts: rooms and participants, in PostgreSQL.
import pg from 'pg';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS rooms (
    id               text PRIMARY KEY,
    code             text NOT NULL UNIQUE,
    name             text NOT NULL,
    owner_id         text NOT NULL,
    max_participants integer NOT NULL,
    password_hash    text,
    playback_control text NOT NULL,
    wait_for         text NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
  );
  CREATE TABLE IF NOT EXISTS participants (
    id          text PRIMARY KEY,
    room_id     text NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    oder_id     text NOT NULL,
    user_id     text,
    username    text,
    guest_name  text,
    role        text NOT NULL,
    can_control boolean NOT NULL,
    joined_at   timestamptz NOT NULL,
    resume_hash bytea NOT NULL
  );
  CREATE UNIQUE INDEX IF NOT EXISTS participants_by_oder_id ON participants (room_id, oder_id);
  CREATE UNIQUE INDEX IF NOT EXISTS participants_by_user ON participants (room_id, user_id) WHERE user_id IS NOT NULL;
  CREATE INDEX IF NOT EXISTS participants_by_resume ON participants (resume_hash);
`;

// Named, so that each connection plans them once.
const CREATE_ROOM = {
  name: 'create-room',
  text: `INSERT INTO rooms VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (code) DO NOTHING`,
};
const ROOM = { name: 'room', text: `SELECT * FROM rooms WHERE code = $1 AND expires_at > now()` };
const ENTER = {
  name: 'enter',
  text: `INSERT INTO participants VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (room_id, user_id) WHERE user_id IS NOT NULL
         DO UPDATE SET oder_id = EXCLUDED.oder_id, username = EXCLUDED.username, resume_hash = EXCLUDED.resume_hash
         RETURNING *`,
};
const RESUME = {
  name: 'resume',
  text: `UPDATE participants SET resume_hash = $4
         WHERE resume_hash = $2 AND room_id = $1 AND user_id IS NOT DISTINCT FROM $3 RETURNING *`,
};
const REMOVE = { name: 'remove', text: `DELETE FROM participants WHERE id = $1` };

export class Store {
  #pool;

  constructor(url) {
    this.#pool = new pg.Pool({ connectionString: url, max: 10 });
  }

  async open() {
    await this.#pool.query(SCHEMA);
  }

  /** Stores a new room; false where its code is taken. */
  async createRoom(room) {
    const { id, code, name, ownerId, maxParticipants, passwordHash, playbackControl, waitFor, createdAt, expiresAt } = room;
    const values = [id, code, name, ownerId, maxParticipants, passwordHash, playbackControl, waitFor, createdAt, expiresAt];
    return (await this.#pool.query({ ...CREATE_ROOM, values })).rowCount === 1;
  }

  async room(code) {
    const { rows } = await this.#pool.query({ ...ROOM, values: [code.toUpperCase()] });
    return rows.length ? roomOf(rows[0]) : undefined;
  }

  /** Writes a participant; a user's earlier row is taken over. Answers the row as it is now. */
  async enter(participant, resumeHash) {
    const { id, roomId, oderId, userId, username, guestName, role, canControl, joinedAt } = participant;
    const values = [id, roomId, oderId, userId, username, guestName, role, canControl, joinedAt, resumeHash];
    return participantOf((await this.#pool.query({ ...ENTER, values })).rows[0]);
  }

  /** Trades a resume token for a new one; nothing where the token brings back nobody. */
  async resume(roomId, shownHash, userId, nextHash) {
    const { rows } = await this.#pool.query({ ...RESUME, values: [roomId, shownHash, userId, nextHash] });
    return rows.length ? participantOf(rows[0]) : undefined;
  }

  async remove(participantId) {
    await this.#pool.query({ ...REMOVE, values: [participantId] });
  }
}

function roomOf(row) {
  return {
    id: row.id,
    code: row.code,
    name: row.name,
    ownerId: row.owner_id,
    maxParticipants: row.max_participants,
    passwordHash: row.password_hash,
    playbackControl: row.playback_control,
    waitFor: row.wait_for,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
  };
}

/** A row as members see it; what is null is absent. */
function participantOf(row) {
  return {
    id: row.id,
    oderId: row.oder_id,
    userId: row.user_id ?? undefined,
    username: row.username ?? undefined,
    guestName: row.guest_name ?? undefined,
    role: row.role,
    canControl: row.can_control,
    joinedAt: row.joined_at,
    online: true,
  };
}
