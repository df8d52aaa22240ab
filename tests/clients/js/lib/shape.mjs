// The shapes of the contract. Optional fields may be added to a value; these must be there, of these types, and no secret beside them.
import assert from 'node:assert/strict';

export const ODER_ID = /^[A-Za-z0-9_-]{10}$/;
export const ROOM_CODE = /^[ABCDEFGHJKLMNPQRSTUVWXYZ23456789]{8}$/;
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const SECRET_NAME = /hash|secret|token|sid$|socket|email|password|address|^ip$/i;

const text = (value) => typeof value === 'string' && value.length > 0;
const flag = (value) => typeof value === 'boolean';
const number = (value) => typeof value === 'number' && Number.isFinite(value);
const whole = (value) => Number.isSafeInteger(value) && value >= 0;
const iso = (value) => ISO.test(value) && !Number.isNaN(Date.parse(value));
const oneOf = (...values) => (value) => values.includes(value);
const maybe = (check) => Object.assign((value) => check(value), { optional: true });

export const ROOM = {
  id: text,
  code: (value) => /^[A-Z0-9]{8}$/i.test(value),
  name: (value) => typeof value === 'string',
  ownerId: text,
  maxParticipants: (value) => whole(value) && value >= 2,
  hasPassword: flag,
  playbackControl: oneOf('owner_only', 'all', 'selected'),
  waitFor: oneOf('none', 'all'),
  createdAt: iso,
  expiresAt: iso,
};

export const PARTICIPANT = {
  id: text,
  oderId: (value) => ODER_ID.test(value),
  userId: maybe(text),
  username: maybe(text),
  guestName: maybe(text),
  role: oneOf('owner', 'participant', 'guest'),
  canControl: flag,
  joinedAt: iso,
  online: flag,
  buffering: maybe(flag),
};

export const PLAYBACK = {
  roomId: text,
  sourceType: oneOf('upload', 'youtube', 'external'),
  sourceId: text,
  isPlaying: flag,
  playbackRate: number,
  anchorServerTimeMs: whole,
  anchorMediaTimeMs: (value) => number(value) && value >= 0,
  sequenceNumber: whole,
};

/** Fails unless `value` has every field of `shape`, and no field that smells of a secret. */
export function assertShape(value, shape, what, allowed = []) {
  assert.equal(Object.prototype.toString.call(value), '[object Object]', `${what} is an object: ${JSON.stringify(value)}`);
  for (const [key, check] of Object.entries(shape)) {
    if (!(key in value) && check.optional) continue;
    assert.ok(key in value, `${what}.${key} is missing: ${JSON.stringify(value)}`);
    assert.ok(check(value[key]), `${what}.${key} is ${JSON.stringify(value[key])}`);
  }
  for (const key of Object.keys(value)) {
    if (key in shape || allowed.includes(key)) continue;
    assert.doesNotMatch(key, SECRET_NAME, `${what}.${key} should not be told`);
    assert.notEqual(value[key], null, `${what}.${key}: an optional field is absent, not null`);
  }
}

export const assertRoom = (value) => assertShape(value, ROOM, 'room');
export const assertPlayback = (value) => assertShape(value, PLAYBACK, 'playback');

export function assertParticipant(value) {
  assertShape(value, PARTICIPANT, 'participant');
  if (value.role === 'guest') {
    assert.ok(text(value.guestName), 'a guest has a name');
    assert.ok(!('userId' in value), 'a guest has no user id');
  } else {
    assert.ok(text(value.userId), 'a user has an id');
    assert.ok(!('guestName' in value), 'a user is no guest');
  }
}

export function assertRoomState(value) {
  assertShape(
    value,
    {
      room: (room) => (assertRoom(room), true),
      participants: (list) => Array.isArray(list) && (list.forEach(assertParticipant), true),
      playback: (playback) => playback === null || (assertPlayback(playback), true),
      self: (self) => ODER_ID.test(self.oderId) && text(self.resumeToken) && Object.keys(self).length === 2,
      serverTime: whole,
    },
    'room:state',
  );
  assert.equal(value.participants.filter(({ oderId }) => oderId === value.self.oderId).length, 1, 'the caller is in the list once');
  assert.equal(new Set(value.participants.map(({ oderId }) => oderId)).size, value.participants.length, 'each oderId once');
}
