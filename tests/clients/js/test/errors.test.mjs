// Every error of the contract, as the ack tells it and as `room:error` does.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { createRoom, joinGuest, joinUser, openRoom, rest, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer();
const NOWHERE = 'ZZZZ9999';

scenario('ROOM_NOT_FOUND: no such room', async (transport) => {
  const guest = await connect(server, { transport });
  await guest.refused('ROOM_NOT_FOUND', 'room:join', { roomCode: NOWHERE, guestName: 'Ann' });
});

scenario('ROOM_NOT_FOUND: the room was deleted, and its members are told', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const answer = await rest(server, 'DELETE', `/api/rooms/${room.code}`, { token: room.owner.token });
  assert.equal(answer.status, 200, answer.text);
  for (const client of [owner, guest]) {
    const { reason } = await client.next('room:closed');
    assert.equal(typeof reason, 'string');
  }
  await guest.refused('ROOM_NOT_FOUND', 'room:join', { roomCode: room.code, guestName: 'Ann' });
});

scenario('ROOM_FULL', async (transport) => {
  const { room, owner } = await openRoom(server, transport, { maxParticipants: 2 });
  const guest = await joinGuest(server, transport, room);
  const late = await connect(server, { transport });
  await late.refused('ROOM_FULL', 'room:join', { roomCode: room.code, guestName: 'late' });
  await guest.must('room:leave');
  await late.join(room, { guestName: 'late' });
  await settle(owner);
  assert.deepEqual(
    owner.all('room:participant:joined').map(({ participant }) => participant.guestName),
    ['guest', 'late'],
  );
});

scenario('INVALID_PASSWORD: wrong, missing, empty', async (transport) => {
  const room = await createRoom(server, { password: 'open sesame' });
  const guest = await connect(server, { transport });
  for (const extra of [{ password: 'open sesamE' }, {}, { password: '' }]) {
    await guest.refused('INVALID_PASSWORD', 'room:join', { roomCode: room.code, guestName: 'Ann', ...extra });
  }
});

scenario('UNAUTHORIZED: a guest without a name', async (transport) => {
  const room = await createRoom(server);
  const guest = await connect(server, { transport });
  await guest.refused('UNAUTHORIZED', 'room:join', { roomCode: room.code });
});

scenario('UNAUTHORIZED: no permission for the act', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  const guest = await joinGuest(server, transport, room);
  await owner.must('sync:source', { sourceType: 'external', sourceId: 'https://video.example/a.mp4' });
  for (const client of [bob, guest]) {
    await client.refused('UNAUTHORIZED', 'room:update', { name: 'mine now' });
    await client.refused('UNAUTHORIZED', 'room:grant', { oderId: client.oderId, canControl: true });
    await client.refused('UNAUTHORIZED', 'room:kick', { oderId: owner.oderId });
    await client.refused('UNAUTHORIZED', 'room:transfer', { oderId: client.oderId });
    await client.refused('UNAUTHORIZED', 'sync:source', { sourceType: 'youtube', sourceId: 'x' });
    await client.refused('UNAUTHORIZED', 'sync:play', {});
    await client.refused('UNAUTHORIZED', 'sync:pause', {});
    await client.refused('UNAUTHORIZED', 'sync:seek', { targetMediaTime: 1 });
    await client.refused('UNAUTHORIZED', 'sync:rate', { rate: 2 });
  }
});

scenario('ALREADY_IN_ROOM: the same room and another', async (transport) => {
  const { room } = await openRoom(server, transport);
  const other = await createRoom(server);
  const guest = await joinGuest(server, transport, room);
  for (const roomCode of [room.code, other.code, NOWHERE]) {
    await guest.refused('ALREADY_IN_ROOM', 'room:join', { roomCode, guestName: 'Ann' });
  }
});

scenario('NOT_IN_ROOM: every act of a member', async (transport) => {
  const guest = await connect(server, { transport });
  const acts = [
    ['room:leave', {}],
    ['room:update', { name: 'x' }],
    ['room:grant', { oderId: 'AAAAAAAAAA', canControl: true }],
    ['room:kick', { oderId: 'AAAAAAAAAA' }],
    ['room:transfer', { oderId: 'AAAAAAAAAA' }],
    ['sync:source', { sourceType: 'youtube', sourceId: 'x' }],
    ['sync:play', {}],
    ['sync:pause', {}],
    ['sync:seek', { targetMediaTime: 1 }],
    ['sync:rate', { rate: 1 }],
    ['sync:resync', {}],
  ];
  for (const [event, payload] of acts) await guest.refused('NOT_IN_ROOM', event, payload);
});

scenario('VALIDATION_ERROR names the field', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await connect(server, { transport });
  const error = await guest.refused('VALIDATION_ERROR', 'room:join', { roomCode: 7, guestName: 'Ann' });
  assert.match(error.message, /roomCode/);
  const seek = await owner.refused('VALIDATION_ERROR', 'sync:seek', { targetMediaTime: -1 });
  assert.match(seek.message, /targetMediaTime/);
  assert.equal(room.code.length, 8);
});

scenario('RATE_LIMIT_EXCEEDED: the eleventh sync command in a second', async (transport) => {
  const { owner } = await openRoom(server, transport);
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  await new Promise((resolve) => setTimeout(resolve, 1_100)); // the source may count as a command
  owner.forget();
  const start = Date.now();
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, n) => owner.ask('sync:seek', { targetMediaTime: n * 1_000 })),
  );
  const elapsed = Date.now() - start;
  const good = answers.filter(({ ok }) => ok).length;
  assert.ok(answers.slice(0, 10).every(({ ok }) => ok), 'ten are let through');
  assert.ok(good <= 10 + Math.floor(elapsed / 100), `${good} let through in ${elapsed} ms`);
  const { error } = answers.find(({ ok }) => !ok);
  assert.equal(error.code, 'RATE_LIMIT_EXCEEDED');
  assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 1_000, `retryAfterMs is ${error.retryAfterMs}`);
  const told = await owner.next('room:error');
  assert.equal(told.code, 'RATE_LIMIT_EXCEEDED');
  assert.ok(told.retryAfterMs > 0);
  const commands = await Promise.all(Array.from({ length: good }, () => owner.next('sync:command')));
  commands.reduce((a, b) => (assert.equal(b.command.sequenceNumber, a.command.sequenceNumber + 1), b));
  // The wait that was told is enough.
  await new Promise((resolve) => setTimeout(resolve, answers.at(-1).error?.retryAfterMs ?? 0));
  await owner.must('sync:seek', { targetMediaTime: 5 });
});

scenario('the checks of room:join come in their order', async (transport) => {
  const { room } = await openRoom(server, transport, { password: 'open sesame', maxParticipants: 2 });
  const member = await joinGuest(server, transport, room, { payload: { password: 'open sesame' } });
  const join = { roomCode: room.code };
  await member.refused('VALIDATION_ERROR', 'room:join', { roomCode: 'short' });
  await member.refused('ALREADY_IN_ROOM', 'room:join', { ...join, password: 'wrong' });
  const guest = await connect(server, { transport });
  await guest.refused('ROOM_NOT_FOUND', 'room:join', { roomCode: NOWHERE, password: 'wrong' });
  await guest.refused('INVALID_PASSWORD', 'room:join', { ...join, password: 'wrong' });
  await guest.refused('UNAUTHORIZED', 'room:join', { ...join, password: 'open sesame' });
  await guest.refused('ROOM_FULL', 'room:join', { ...join, password: 'open sesame', guestName: 'Ann' });
});

scenario('an unknown event is ignored, but its ack is answered', async (transport) => {
  const guest = await connect(server, { transport });
  for (const event of ['room:explode', 'sync:', '', 'message', '__proto__', 'constructor']) {
    const answer = await guest.ask(event, { a: 1 });
    assert.equal(answer.ok, false);
    assert.equal(answer.error.code, 'VALIDATION_ERROR');
  }
  guest.socket.emit('room:explode', { a: 1 });
  await guest.must('time:ping', { clientTime: 1 });
});
