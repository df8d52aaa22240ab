// The server goes down, gently or not, and comes back on the same data.
import assert from 'node:assert/strict';
import { after, afterEach } from 'node:test';
import { connect } from '../lib/client.mjs';
import { joinGuest, joinUser, openRoom, rest, seats } from '../lib/room.mjs';
import { FOUND_LOST_MS, Server } from '../lib/server.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';
import { until } from '../lib/wait.mjs';

const GRACE_MS = 3_000;
const servers = [];

async function start() {
  const server = await new Server({ RECONNECT_GRACE_MS: String(GRACE_MS) }).start();
  servers.push(server);
  return server;
}
afterEach(() => servers.forEach((server) => server.dropClients()));
after(async () => {
  for (const server of servers) await server.stop();
});

scenario('killed and started again: the room is there, and who comes back has their seat', async (transport) => {
  const server = await start();
  const { room, owner } = await openRoom(server, transport, { maxParticipants: 3, name: 'survivor', playbackControl: 'all' });
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  const ghost = await joinGuest(server, transport, room, { guestName: 'ghost' });
  await server.kill();
  await Promise.all([owner, bob, ghost].map((client) => client.next('disconnect')));
  await server.start();

  const answer = await rest(server, 'GET', `/api/rooms/${room.code}`);
  assert.equal(answer.status, 200, answer.text);
  const { name, code, id, maxParticipants, playbackControl, ownerId } = answer.body.data;
  assert.deepEqual(
    { name, code, id, maxParticipants, playbackControl, ownerId },
    { name: 'survivor', code: room.code, id: room.id, maxParticipants: 3, playbackControl: 'all', ownerId: room.owner.userId },
  );

  const back = await joinUser(server, transport, room, { who: bob.user, payload: { resumeToken: bob.self.resumeToken } });
  assert.equal(back.oderId, bob.oderId, 'the seat and its oderId outlive the process');
  const boss = await joinUser(server, transport, room, { who: room.owner, payload: { resumeToken: owner.self.resumeToken } });
  assert.equal(boss.oderId, owner.oderId);
  assert.equal(boss.state.participants.find(({ oderId }) => oderId === boss.oderId).role, 'owner');

  // The ghost does not come back: its seat is kept for the grace and then free.
  const late = await connect(server, { transport });
  await until(
    'the seat of the ghost is free after the grace',
    async () => {
      const answer = await late.ask('room:join', { roomCode: room.code, guestName: 'late' });
      if (!answer.ok) throw new Error(JSON.stringify(answer.error));
      return true;
    },
    GRACE_MS * 4 + FOUND_LOST_MS,
  );
  const people = late.all('room:state')[0].participants.map(({ oderId }) => oderId);
  assert.ok(!people.includes(ghost.oderId));
  assert.equal(people.length, 3);
});

scenario('killed and started again: a guest resumes', async (transport) => {
  const server = await start();
  const { room } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  await server.kill();
  await server.start();
  const back = await joinGuest(server, transport, room, { payload: { resumeToken: guest.self.resumeToken } });
  assert.equal(back.oderId, guest.oderId);
});

scenario('killed and started again: without a return every seat is free in the end', async (transport) => {
  const server = await start();
  const { room } = await openRoom(server, transport);
  await joinGuest(server, transport, room);
  await server.kill();
  await server.start();
  await seats(server, room, 0, GRACE_MS * 4 + FOUND_LOST_MS);
});

scenario('a graceful stop says goodbye and ends with status 0', async (transport) => {
  const server = await start();
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const outside = await connect(server, { transport });
  const end = server.terminate();
  for (const client of [owner, guest, outside]) {
    const { message, reconnectIn } = await client.next('server:shutdown');
    assert.equal(typeof message, 'string');
    assert.ok(Number.isFinite(reconnectIn) && reconnectIn >= 0, `reconnectIn is ${reconnectIn}`);
    await client.next('disconnect');
  }
  assert.deepEqual(await end, { code: 0, signal: null });
  await server.start();
  const back = await joinGuest(server, transport, room, { payload: { resumeToken: guest.self.resumeToken } });
  assert.equal(back.oderId, guest.oderId, 'a stop of the server is no leaving of its guests');
});
