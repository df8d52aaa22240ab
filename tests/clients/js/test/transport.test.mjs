// What Socket.IO and Engine.IO do underneath, as far as a client notices.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { connect } from '../lib/client.mjs';
import { joinGuest, openRoom } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { scenario } from '../lib/transports.mjs';
import { SOON_MS, until, within } from '../lib/wait.mjs';

const server = useServer({ WS_PING_INTERVAL: '300', WS_PING_TIMEOUT: '3000' });

scenario('the settings are told in the handshake', async (transport) => {
  const client = await connect(server, { transport });
  const engine = client.socket.io.engine;
  assert.equal(engine._pingInterval ?? engine.pingInterval, 300);
  assert.equal(engine._pingTimeout ?? engine.pingTimeout, 3_000);
  assert.ok(engine.id.length >= 20, 'a session id is long enough not to be guessed');
  assert.notEqual(client.socket.id, engine.id, 'the socket id is not the session’s');
});

scenario('a quiet client stays connected, heartbeat after heartbeat', async (transport) => {
  const client = await connect(server, { transport });
  let beats = 0;
  client.socket.io.on('ping', () => (beats += 1));
  await until('eight heartbeats', () => beats >= 8);
  assert.equal(client.all('disconnect').length, 0);
  await client.must('time:ping', { clientTime: 1 });
});

scenario('polling ends as a websocket where it may', async (transport) => {
  const client = await connect(server, { transport });
  if (transport === 'upgrade') await client.upgraded();
  assert.equal(client.socket.io.engine.transport.name, transport === 'polling' ? 'polling' : 'websocket');
  await client.must('time:ping', { clientTime: 1 });
});

scenario('nothing is lost or turned around while the transport changes', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await connect(server, { transport });
  await guest.join(room, { guestName: 'Ann' }); // the upgrade is under way
  const total = 100;
  const sent = Array.from({ length: total }, (_, n) => owner.must('room:update', { name: `number ${n}` }));
  const asked = Array.from({ length: total }, (_, n) => guest.must('time:ping', { clientTime: n }));
  await Promise.all([...sent, ...asked]);
  const names = [];
  while (names.length < total) names.push((await guest.next('room:updated')).room.name);
  assert.deepEqual(names, names.map((_, n) => `number ${n}`));
  assert.deepEqual(guest.all('time:pong').map(({ clientTime }) => clientTime), names.map((_, n) => n));
});

scenario('a large message passes, a larger one ends the connection', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  if (transport === 'upgrade') await guest.upgraded();
  const answer = await guest.ask('no:such:event', { text: 'x'.repeat(900_000) });
  assert.equal(answer.error.code, 'VALIDATION_ERROR');
  guest.socket.emit('no:such:event', { text: 'x'.repeat(1_100_000) });
  await guest.next('disconnect');
  await owner.must('time:ping', { clientTime: 1 });
});

test('a probe that misbehaves is dropped, and the poll goes on', async () => {
  const client = await connect(server, { transport: 'polling' });
  const sid = client.socket.io.engine.id;
  const probe = new WebSocket(`${server.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&sid=${sid}`);
  probe.on('open', () => probe.send('4hello'));
  await within(SOON_MS, 'the end of the probe', new Promise((resolve) => probe.on('close', resolve).on('error', resolve)));
  await client.must('time:ping', { clientTime: 1 });
});
