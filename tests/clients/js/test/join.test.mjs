// Joining: who gets what, in which order, in which shape.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { createRoom, joinGuest, joinUser, openRoom, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { ROOM_CODE, assertParticipant, assertRoomState } from '../lib/shape.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer();

scenario('a guest joins', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const mark = owner.mark();
  const guest = await joinGuest(server, transport, room, { guestName: '  Ann  ' });
  assertRoomState(guest.state);
  assert.equal(guest.state.room.id, room.id);
  assert.equal(guest.state.playback, null, 'nothing plays yet');
  assert.deepEqual(guest.state.participants.map(({ role }) => role), ['owner', 'guest'], 'in the order of joining');
  const self = guest.state.participants[1];
  assert.equal(self.oderId, guest.oderId);
  assert.equal(self.guestName, 'Ann', 'trimmed');
  assert.equal(self.online, true);
  assert.equal(self.canControl, false);
  assert.deepEqual(await owner.next('room:participant:joined'), { participant: self });
  await settle(owner, guest);
  assert.deepEqual(owner.since(mark).filter((event) => event !== 'room:updated'), ['room:participant:joined']);
  assert.equal(guest.all('room:participant:joined').length, 0, 'joined goes to the others only');
  assert.equal(guest.all('room:state').length, 1);
});

scenario('a user joins with a token', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  assertRoomState(bob.state);
  const self = bob.state.participants.find(({ oderId }) => oderId === bob.oderId);
  assert.equal(self.userId, bob.user.userId);
  assert.equal(self.username, 'bob');
  assert.equal(self.role, 'participant');
  const { participant } = await owner.next('room:participant:joined');
  assertParticipant(participant);
  assert.deepEqual(participant, self);
});

scenario('the owner is known by the token', async (transport) => {
  const room = await createRoom(server, { name: 'Film night', maxParticipants: 7, playbackControl: 'all' });
  const owner = await connect(server, { transport, token: room.owner.token });
  const state = await owner.join(room);
  assertRoomState(state);
  assert.match(room.code, ROOM_CODE);
  assert.equal(state.room.name, 'Film night');
  assert.equal(state.room.maxParticipants, 7);
  assert.equal(state.room.playbackControl, 'all');
  assert.equal(state.room.ownerId, room.owner.userId);
  assert.equal(state.room.hasPassword, false);
  assert.equal(state.participants[0].role, 'owner');
  const age = Math.abs(Date.now() - state.serverTime);
  assert.ok(age < 60_000, `serverTime is Unix milliseconds: off by ${age}`);
  assert.ok(Date.parse(state.room.expiresAt) > Date.parse(state.room.createdAt));
});

scenario('no event of the room comes before room:state', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  // The room is busy while the guest joins.
  let busy = true;
  const noise = (async () => {
    for (let n = 0; busy; n += 1) await owner.must('room:update', { name: `noise ${n}` });
  })();
  for (let n = 0; n < 5; n += 1) {
    const guest = await joinGuest(server, transport, room, { guestName: `guest ${n}` });
    assert.equal(guest.since(0)[0], 'room:state');
  }
  busy = false;
  await noise;
});

scenario('everyone in the room learns of each other once', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guests = [];
  for (let n = 0; n < 6; n += 1) guests.push(await joinGuest(server, transport, room, { guestName: `guest ${n}` }));
  await settle(owner, ...guests);
  const order = guests.map(({ oderId }) => oderId);
  assert.equal(new Set(order).size, guests.length);
  [owner, ...guests].forEach((client, place) => {
    const told = client.all('room:participant:joined').map(({ participant }) => participant.oderId);
    assert.deepEqual(told, order.slice(place), `what ${client.name} was told`);
  });
  assert.deepEqual(guests.at(-1).state.participants.map(({ oderId }) => oderId), [owner.oderId, ...order]);
});

scenario('a room code is read without regard to case', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room.code.toLowerCase());
  assert.equal(guest.state.room.code, room.code);
  await owner.next('room:participant:joined');
});

scenario('the right password opens the room', async (transport) => {
  const room = await createRoom(server, { password: 'open sesame' });
  assert.equal(room.hasPassword, true);
  const guest = await joinGuest(server, transport, room, { payload: { password: 'open sesame' } });
  assert.equal(guest.state.room.hasPassword, true);
  assert.ok(!JSON.stringify(guest.events).includes('sesame'), 'the password is never told back');
});

scenario('a room can be left and joined again, with a new oderId', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const first = guest.oderId;
  await guest.must('room:leave', {});
  assert.deepEqual(await owner.next('room:participant:left'), { oderId: first, reason: 'leave' });
  await guest.join(room, { guestName: 'guest' });
  assert.notEqual(guest.oderId, first);
});

scenario('one socket can change rooms', async (transport) => {
  const one = await openRoom(server, transport);
  const two = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, one.room);
  await guest.must('room:leave');
  const state = await guest.join(two.room, { guestName: 'guest' });
  assert.equal(state.room.id, two.room.id);
  await two.owner.next('room:participant:joined');
  const mark = guest.mark();
  await settle(one.owner);
  await settle(two.owner, guest);
  assert.deepEqual(guest.since(mark), ['room:updated'], 'the old room is silent');
});

scenario('requests of one socket are handled in the order sent', async (transport) => {
  const { room } = await openRoom(server, transport);
  const guest = await connect(server, { transport });
  // All are on their way before the first is answered.
  const answers = await Promise.all([
    guest.ask('room:join', { roomCode: room.code, guestName: 'Ann' }),
    guest.ask('room:leave'),
    guest.ask('room:join', { roomCode: room.code, guestName: 'Bea' }),
    guest.ask('room:join', { roomCode: room.code, guestName: 'Cat' }),
  ]);
  assert.deepEqual(answers.map(({ ok, error }) => error?.code ?? ok), [true, true, true, 'ALREADY_IN_ROOM']);
});
