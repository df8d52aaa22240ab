// Many at once: no seat is given twice, none is lost.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { createRoom, openRoom, seats, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const CAPACITY = 10;
const CROWD = 50;
const server = useServer({ RECONNECT_GRACE_MS: '500', WS_PING_INTERVAL: '2000', WS_PING_TIMEOUT: '3000' });

const crowd = (options, length = CROWD) =>
  Promise.all(Array.from({ length }, (_, n) => connect(server, { ...options(n), name: `guest ${n}` })));
const join = (client, room) => client.ask('room:join', { roomCode: room.code, guestName: client.name });

/** Fills the room and checks that it takes exactly `CAPACITY` in the end. */
async function assertNoSeatLeaked(transport, room, taken) {
  await seats(server, room, taken);
  const late = await crowd(() => ({ transport }), CAPACITY - taken + 1);
  const answers = [];
  for (const client of late) answers.push(await join(client, room));
  assert.deepEqual(
    answers.map(({ ok, error }) => error?.code ?? ok),
    [...Array(CAPACITY - taken).fill(true), 'ROOM_FULL'],
  );
  await seats(server, room, CAPACITY);
}

scenario('fifty want ten seats: ten get one', async (transport) => {
  const room = await createRoom(server, { maxParticipants: CAPACITY });
  const clients = await crowd(() => ({ transport }));
  const answers = await Promise.all(clients.map((client) => join(client, room)));
  const winners = clients.filter((_, n) => answers[n].ok);
  assert.equal(winners.length, CAPACITY);
  const codes = answers.filter(({ ok }) => !ok).map(({ error }) => error.code);
  assert.deepEqual(codes, Array(CROWD - CAPACITY).fill('ROOM_FULL'));
  const places = winners.map((client) => client.all('room:state')[0].participants.length).sort((a, b) => a - b);
  assert.deepEqual(places, Array.from({ length: CAPACITY }, (_, n) => n + 1), 'each saw one more than the one before');
  await seats(server, room, CAPACITY);
});

scenario('half of them disconnect while they join: no seat leaks', async (transport) => {
  const room = await createRoom(server, { maxParticipants: CAPACITY });
  const clients = await crowd(() => ({ transport }));
  const answers = await Promise.all(
    clients.map((client, n) => {
      if (n % 2 === 0) return join(client, room);
      client.socket.emit('room:join', { roomCode: room.code, guestName: client.name });
      client.socket.disconnect();
      return undefined;
    }),
  );
  // Those who vanish hold a seat for a moment, so fewer than ten of the others may have got one; never more.
  const kept = answers.filter((answer) => answer?.ok).length;
  assert.ok(kept <= CAPACITY);
  await assertNoSeatLeaked(transport, room, kept);
});

scenario('half of them are cut off while they join: no seat leaks after the grace', async (transport) => {
  const room = await createRoom(server, { maxParticipants: CAPACITY });
  const proxy = await Proxy.open(server);
  const clients = await crowd((n) => ({ transport, via: n % 2 ? proxy : undefined }));
  const joins = clients.map((client, n) => {
    if (n % 2 === 0) return join(client, room);
    client.socket.emit('room:join', { roomCode: room.code, guestName: client.name });
    return undefined;
  });
  setImmediate(() => proxy.cut());
  const kept = (await Promise.all(joins)).filter((answer) => answer?.ok).length;
  await assertNoSeatLeaked(transport, room, kept);
});

scenario('one user in twenty tabs at once has one seat', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bob = user('bob');
  const tabs = await crowd(() => ({ transport, token: bob.token }), 20);
  const answers = await Promise.all(tabs.map((tab) => tab.ask('room:join', { roomCode: room.code })));
  assert.ok(answers.every(({ ok }) => ok), JSON.stringify(answers.find(({ ok }) => !ok)));
  await seats(server, room, 2);
  await settle(owner);
  const joined = owner.all('room:participant:joined').length;
  const left = owner.all('room:participant:left').length;
  assert.equal(joined - left, 1, 'each takeover is told as one that left and one that joined');
});

scenario('joining and leaving all the time ends as it began', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const clients = await crowd(() => ({ transport }), 10);
  await Promise.all(
    clients.map(async (client) => {
      for (let n = 0; n < 5; n += 1) {
        await client.must('room:join', { roomCode: room.code, guestName: client.name });
        await client.must('room:leave', {});
      }
    }),
  );
  await seats(server, room, 1);
  await settle(owner);
  const open = new Set();
  for (const { event, payload } of owner.events) {
    if (event === 'room:participant:joined') {
      assert.ok(!open.has(payload.participant.oderId), 'nobody joins twice');
      open.add(payload.participant.oderId);
    }
    if (event === 'room:participant:left') assert.ok(open.delete(payload.oderId), 'nobody leaves who was not there');
  }
  assert.equal(open.size, 0);
  assert.equal(owner.all('room:participant:joined').length, 50);
});
