// Rooms over REST, and the people in them.
import assert from 'node:assert/strict';
import { connect } from './client.mjs';
import { user } from './token.mjs';
import { until } from './wait.mjs';

/** One REST call: `{ status, headers, body }`. */
export async function rest(server, method, path, { token, body, headers = {} } = {}) {
  const response = await fetch(`${server.url}${path}`, {
    method,
    headers: {
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const text = await response.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, body: json };
}

/** A room of `owner`, who is a new user unless given. */
export async function createRoom(server, body = {}, owner = user('owner')) {
  const answer = await rest(server, 'POST', '/api/rooms', { token: owner.token, body: { name: 'a room', ...body } });
  assert.equal(answer.status, 201, answer.text);
  assert.equal(answer.body.success, true, answer.text);
  return { ...answer.body.data, owner };
}

/** A room whose owner is in it. */
export async function openRoom(server, transport, body = {}) {
  const room = await createRoom(server, body);
  const owner = await connect(server, { transport, token: room.owner.token, name: 'owner' });
  await owner.join(room, body.password === undefined ? {} : { password: body.password });
  return { room, owner };
}

/** Connects a user and joins. */
export async function joinUser(server, transport, room, { who = user(), payload, ...options } = {}) {
  const client = await connect(server, { transport, token: who.token, name: who.username, ...options });
  client.user = who;
  client.state = await client.join(room, payload);
  return client;
}

/** Connects a guest and joins. */
export async function joinGuest(server, transport, room, { guestName = 'guest', payload, ...options } = {}) {
  const client = await connect(server, { transport, name: guestName, ...options });
  client.state = await client.join(room, { guestName, ...payload });
  return client;
}

let barriers = 0;

/**
 * Waits until each client has been told all that happened in the room so far: the owner renames the room, and events of a
 * room keep their order. What a client has not got by then, it was not sent.
 */
export async function settle(owner, ...clients) {
  const name = `barrier ${++barriers}`;
  await owner.must('room:update', { name });
  await Promise.all([owner, ...clients].map((client) => client.next('room:updated', ({ room }) => room.name === name)));
}

/** How many seats REST says are taken. */
export async function participantCount(server, room) {
  const answer = await rest(server, 'GET', `/api/rooms/${room.code}`, { token: room.owner?.token });
  assert.equal(answer.status, 200, answer.text);
  return answer.body.data.participantCount;
}

/** Waits until that many seats are taken. */
export function seats(server, room, wanted, ms) {
  return until(`${wanted} seats taken in ${room.code}`, async () => (await participantCount(server, room)) === wanted, ms);
}
