// `/api/rooms` and `/health/live`, and what a room is to who may see it.
import { randomBytes, randomInt, randomUUID, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { Refusal, check } from './refusal.mjs';

const hashPassword = promisify(scrypt);
const ALPHABET = 'ABCDEFGHJKLMNPQRSTUVWXYZ23456789';
const MOST_PARTICIPANTS = 1000;
const TTL_MS = 24 * 60 * 60 * 1000;
const STATUS = { ROOM_NOT_FOUND: 404, VALIDATION_ERROR: 400, INVALID_TOKEN: 401, UNAUTHORIZED: 401 };

/** A room without its secret. */
export function viewOf({ passwordHash, ...room }) {
  return { ...room, hasPassword: passwordHash !== null };
}

export async function isPasswordRight(password, stored) {
  const [salt, hash] = stored.split(':').map((part) => Buffer.from(part, 'base64'));
  return timingSafeEqual(await hashPassword(password, salt, hash.length), hash);
}

/** Answers the requests that Socket.IO leaves. */
export function rest({ store, state, tokens }) {
  async function create(request) {
    const body = await read(request);
    const bearer = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const ownerId = bearer ? tokens.verify(bearer).userId : `guest-${randomUUID()}`;
    const maxParticipants = body.maxParticipants ?? 50;
    const isCount = Number.isInteger(maxParticipants) && maxParticipants >= 2 && maxParticipants <= MOST_PARTICIPANTS;
    check(isCount, `maxParticipants must be a whole number from 2 to ${MOST_PARTICIPANTS}`);
    const name = body.name ?? 'Watch party';
    check(typeof name === 'string' && name.length >= 1 && name.length <= 50, 'name must be 1 to 50 characters');
    const playbackControl = body.playbackControl ?? 'owner_only';
    check(['owner_only', 'all', 'selected'].includes(playbackControl), 'playbackControl is not known');
    const now = Date.now();
    const room = {
      id: randomUUID(),
      name,
      ownerId,
      maxParticipants,
      passwordHash: body.password ? await hashed(body.password) : null,
      playbackControl,
      waitFor: 'none',
      createdAt: new Date(now),
      expiresAt: new Date(now + TTL_MS),
    };
    do room.code = Array.from({ length: 8 }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
    while (!(await store.createRoom(room)));
    return { status: 201, data: viewOf(room), token: bearer ? undefined : tokens.issue(ownerId) };
  }

  async function lookUp(code) {
    const room = await store.room(code);
    if (!room) throw new Refusal('ROOM_NOT_FOUND', 'there is no such room');
    return { status: 200, data: { ...viewOf(room), participantCount: await state.count(room.id) } };
  }

  async function route(request) {
    const [, code] = /^\/api\/rooms\/([a-z0-9]{8})$/i.exec(request.url) ?? [];
    if (request.method === 'POST' && request.url === '/api/rooms') return create(request);
    if (request.method === 'GET' && code) return lookUp(code);
    if (request.method === 'GET' && request.url === '/health/live') return { status: 200, data: { status: 'ok' } };
    throw new Refusal('ROOM_NOT_FOUND', 'there is nothing here');
  }

  return async (request, response) => {
    const answer = await route(request).catch((error) => {
      const { code, message } = Refusal.of(error);
      return { status: STATUS[code] ?? 500, error: { code, message } };
    });
    const { status, ...content } = answer;
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ success: status < 400, ...content }));
  };
}

async function read(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    check(text.length <= 16 * 1024, 'the body must be 16 KiB at most');
  }
  try {
    return JSON.parse(text || '{}') ?? {};
  } catch {
    throw new Refusal('VALIDATION_ERROR', 'the body must be a JSON object');
  }
}

async function hashed(password) {
  check(typeof password === 'string' && password.length >= 4 && password.length <= 128, 'password must be 4 to 128 characters');
  const salt = randomBytes(16);
  const hash = await hashPassword(password, salt, 32);
  return `${salt.toString('base64')}:${hash.toString('base64')}`;
}
