// Leaving on purpose, being lost, and coming back.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { joinGuest, joinUser, openRoom, participantCount, seats, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { assertRoomState } from '../lib/shape.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';
import { until } from '../lib/wait.mjs';

const GRACE_MS = 1_500;
// The short heartbeat bounds how long a silent loss stays unseen.
const server = useServer({ RECONNECT_GRACE_MS: String(GRACE_MS), WS_PING_INTERVAL: '1000', WS_PING_TIMEOUT: '2000' });

const leaves = (client, oderId) => client.next('room:participant:left', (left) => left.oderId === oderId);
const turns = (client, oderId, online) =>
  client.next('room:participant:updated', ({ participant }) => participant.oderId === oderId && participant.online === online);

/** A guest behind a cable of its own. */
async function lost(transport, room, guestName = 'lost') {
  const proxy = await Proxy.open(server);
  const guest = await joinGuest(server, transport, room, { guestName, via: proxy });
  if (transport === 'upgrade') await guest.upgraded();
  await proxy.held();
  return { proxy, guest };
}

scenario('room:leave is final at once', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  await guest.must('room:leave', {});
  assert.deepEqual(await leaves(owner, guest.oderId), { oderId: guest.oderId, reason: 'leave' });
  await guest.refused('NOT_IN_ROOM', 'room:leave', {});
  await seats(server, room, 1);
  assert.equal(guest.all('room:participant:left').length, 0, 'left goes to the others only');
});

scenario('socket.disconnect() is final at once', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const start = Date.now();
  guest.socket.disconnect();
  assert.deepEqual(await leaves(owner, guest.oderId), { oderId: guest.oderId, reason: 'disconnect' });
  assert.ok(Date.now() - start < GRACE_MS, 'no grace for those who say goodbye');
  assert.equal(owner.all('room:participant:updated').length, 0, 'it never was offline');
  await seats(server, room, 1);
});

scenario('closing the engine is final at once', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  if (transport === 'upgrade') await guest.upgraded();
  guest.socket.io.engine.close();
  assert.deepEqual(await leaves(owner, guest.oderId), { oderId: guest.oderId, reason: 'disconnect' });
  assert.equal(owner.all('room:participant:updated').length, 0);
});

for (const [how, reset] of [['a reset', true], ['an end without a close frame', false]]) {
  scenario(`${how} keeps the seat for the grace, then left with reason timeout`, async (transport) => {
    const { room, owner } = await openRoom(server, transport);
    const { proxy, guest } = await lost(transport, room);
    owner.forget();
    proxy.cut({ reset });
    const { participant } = await turns(owner, guest.oderId, false);
    const offline = Date.now();
    assert.equal(participant.guestName, 'lost');
    await seats(server, room, 2);
    assert.deepEqual(await leaves(owner, guest.oderId), { oderId: guest.oderId, reason: 'timeout' });
    const kept = Date.now() - offline;
    assert.ok(kept >= GRACE_MS * 0.8, `the seat was kept for ${kept} ms only`);
    await seats(server, room, 1);
  });
}

scenario('a silent network is noticed by the heartbeat', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const { proxy, guest } = await lost(transport, room);
  proxy.freeze();
  await turns(owner, guest.oderId, false);
  assert.equal((await leaves(owner, guest.oderId)).reason, 'timeout');
});

scenario('coming back within the grace: same oderId, nobody left or joined', async (transport) => {
  const { room, owner } = await openRoom(server, transport, { playbackControl: 'selected' });
  const { proxy, guest } = await lost(transport, room);
  await owner.next('room:participant:joined');
  const other = await lost(transport, room, 'other');
  await owner.next('room:participant:joined');
  const mark = owner.mark();
  other.proxy.cut(); // its end of grace tells when the guest's would have come
  proxy.cut();
  await turns(owner, guest.oderId, false);
  const back = await connect(server, { transport });
  const state = await back.join(room, { guestName: 'lost', resumeToken: guest.self.resumeToken });
  assertRoomState(state);
  assert.equal(back.oderId, guest.oderId);
  assert.notEqual(back.self.resumeToken, guest.self.resumeToken, 'a new token with each room:state');
  const self = state.participants.find(({ oderId }) => oderId === back.oderId);
  assert.equal(self.id, guest.state.participants.find(({ oderId }) => oderId === guest.oderId).id, 'the same row');
  assert.equal(self.online, true);
  await turns(owner, guest.oderId, true);
  await leaves(owner, other.guest.oderId);
  await settle(owner, back);
  const told = owner.since(mark);
  assert.equal(told.filter((event) => event === 'room:participant:joined').length, 0);
  assert.equal(told.filter((event) => event === 'room:participant:left').length, 1, 'of the other alone');
  await seats(server, room, 2);
});

scenario('what was granted is kept by a resume', async (transport) => {
  const { room, owner } = await openRoom(server, transport, { playbackControl: 'selected' });
  const proxy = await Proxy.open(server);
  const bob = user('bob');
  const first = await joinUser(server, transport, room, { who: bob, via: proxy });
  await owner.must('room:grant', { oderId: first.oderId, canControl: true });
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  owner.forget();
  proxy.cut();
  await turns(owner, first.oderId, false);
  const back = await joinUser(server, transport, room, { who: bob, payload: { resumeToken: first.self.resumeToken } });
  assert.equal(back.oderId, first.oderId);
  const self = back.state.participants.find(({ oderId }) => oderId === back.oderId);
  assert.equal(self.canControl, true);
  assert.equal(self.role, 'participant');
  await back.must('sync:play', {});
});

scenario('coming back after the grace is a new join', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const { proxy, guest } = await lost(transport, room);
  proxy.cut();
  await leaves(owner, guest.oderId);
  owner.forget();
  const back = await joinGuest(server, transport, room, { payload: { resumeToken: guest.self.resumeToken } });
  assert.notEqual(back.oderId, guest.oderId);
  const { participant } = await owner.next('room:participant:joined');
  assert.equal(participant.oderId, back.oderId);
});

scenario('a resume token works once', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const { proxy, guest } = await lost(transport, room);
  proxy.cut();
  await turns(owner, guest.oderId, false);
  const { resumeToken } = guest.self;
  const back = await joinGuest(server, transport, room, { payload: { resumeToken } });
  assert.equal(back.oderId, guest.oderId);
  owner.forget();
  const thief = await joinGuest(server, transport, room, { guestName: 'thief', payload: { resumeToken } });
  assert.notEqual(thief.oderId, guest.oderId, 'a used token is worth nothing');
  await owner.next('room:participant:joined', ({ participant }) => participant.oderId === thief.oderId);
  await settle(owner, back);
  assert.equal(back.all('room:kicked').length, 0, 'the rightful guest stays');
});

scenario('a resume token is bound to its room', async (transport) => {
  const one = await openRoom(server, transport);
  const two = await openRoom(server, transport);
  const { proxy, guest } = await lost(transport, one.room);
  proxy.cut();
  await turns(one.owner, guest.oderId, false);
  const back = await joinGuest(server, transport, two.room, { payload: { resumeToken: guest.self.resumeToken } });
  assert.notEqual(back.oderId, guest.oderId);
  await two.owner.next('room:participant:joined');
});

scenario('a resume token is worth nothing after leaving on purpose', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  guest.socket.disconnect();
  await leaves(owner, guest.oderId);
  const back = await joinGuest(server, transport, room, { payload: { resumeToken: guest.self.resumeToken } });
  assert.notEqual(back.oderId, guest.oderId);
});

scenario('a guest comes back before the server has noticed the loss', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const { proxy, guest } = await lost(transport, room);
  await owner.next('room:participant:joined');
  const mark = owner.mark();
  proxy.freeze();
  const back = await joinGuest(server, transport, room, { guestName: 'lost', payload: { resumeToken: guest.self.resumeToken } });
  assert.equal(back.oderId, guest.oderId);
  proxy.cut(); // the late end of the old connection must not touch the new one
  await settle(owner, back);
  const told = owner.since(mark);
  assert.ok(!told.includes('room:participant:left') && !told.includes('room:participant:joined'), told.join());
  await seats(server, room, 2);
});

scenario('a disconnect during a join leaves nothing behind', async (transport) => {
  const { room, owner } = await openRoom(server, transport, { maxParticipants: 50 });
  for (let n = 0; n < 10; n += 1) {
    const guest = await connect(server, { transport });
    guest.socket.emit('room:join', { roomCode: room.code, guestName: `gone ${n}` });
    guest.socket.disconnect();
  }
  // Some of the joins may still be under way; whoever they bring in is gone again soon, for old members and new ones.
  const late = await joinGuest(server, transport, room);
  const present = (client, before) => {
    const view = new Set(before);
    for (const { event, payload } of client.events) {
      if (event === 'room:participant:joined') view.add(payload.participant.oderId);
      if (event === 'room:participant:left') view.delete(payload.oderId);
    }
    return [...view].sort().join();
  };
  const both = [owner.oderId, late.oderId].sort().join();
  await until('owner and late joiner see each other and nobody else', async () => {
    const lists = [present(owner, [owner.oderId]), present(late, late.state.participants.map(({ oderId }) => oderId))];
    return lists.every((list) => list === both) && (await participantCount(server, room)) === 2;
  });
});

scenario('socket.io-client reconnects on its own and resumes', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const proxy = await Proxy.open(server);
  const guest = await joinGuest(server, transport, room, {
    via: proxy,
    options: { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 100 },
  });
  const first = guest.self;
  proxy.cut();
  await guest.next('disconnect');
  await turns(owner, first.oderId, false);
  proxy.mend();
  await guest.next('connect');
  await guest.join(room, { guestName: 'guest', resumeToken: first.resumeToken });
  assert.equal(guest.oderId, first.oderId);
  await turns(owner, first.oderId, true);
});
