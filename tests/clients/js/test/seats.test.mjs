// One seat for each user, and what the owner may do with the seats of others.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { createRoom, joinGuest, joinUser, openRoom, rest, seats, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { assertParticipant, assertRoom } from '../lib/shape.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer({ OWNER_HANDOVER_MS: '400', RECONNECT_GRACE_MS: '5000' });

scenario('a second tab takes the seat over', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bob = user('bob');
  const first = await joinUser(server, transport, room, { who: bob });
  await owner.next('room:participant:joined');
  const second = await joinUser(server, transport, room, { who: bob });
  assert.equal((await first.next('room:kicked')).reason, 'replaced');
  assert.notEqual(second.oderId, first.oderId);
  const row = (client) => client.state.participants.find(({ oderId }) => oderId === client.oderId);
  assert.equal(row(second).id, row(first).id, 'the same row');
  assert.equal(row(second).role, row(first).role);
  assert.equal(second.state.participants.length, 2, 'one seat for one user');
  assert.deepEqual(await owner.next('room:participant:left'), { oderId: first.oderId, reason: 'replaced' });
  assert.equal((await owner.next('room:participant:joined')).participant.oderId, second.oderId);
  await first.refused('NOT_IN_ROOM', 'room:leave', {});
  // The late end of the old connection must not remove the new one.
  first.socket.disconnect();
  await settle(owner, second);
  await seats(server, room, 2);
  assert.equal(second.all('room:kicked').length, 0);
  assert.equal(owner.all('room:participant:left').length, 1);
});

scenario('a second tab with the resume token keeps the oderId', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bob = user('bob');
  const first = await joinUser(server, transport, room, { who: bob });
  const second = await joinUser(server, transport, room, { who: bob, payload: { resumeToken: first.self.resumeToken } });
  assert.equal((await first.next('room:kicked')).reason, 'replaced');
  assert.equal(second.oderId, first.oderId);
  await settle(owner, second);
  assert.equal(owner.all('room:participant:left').length, 0);
  assert.equal(owner.all('room:participant:joined').length, 1);
});

scenario('a takeover needs no free seat', async (transport) => {
  const { room } = await openRoom(server, transport, { maxParticipants: 2 });
  const bob = user('bob');
  await joinUser(server, transport, room, { who: bob });
  await joinUser(server, transport, room, { who: bob });
  await seats(server, room, 2);
});

scenario('a second tab of the owner is the owner', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const again = await joinUser(server, transport, room, { who: room.owner });
  await owner.next('room:kicked');
  assert.equal(again.state.participants[0].role, 'owner');
  await again.must('room:update', { name: 'still mine' });
});

scenario('the owner kicks', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bad = await joinGuest(server, transport, room, { guestName: 'bad' });
  const good = await joinGuest(server, transport, room, { guestName: 'good' });
  await owner.must('room:kick', { oderId: bad.oderId, reason: 'spoilers' });
  assert.deepEqual(await bad.next('room:kicked'), { reason: 'spoilers' });
  for (const client of [owner, good]) {
    assert.deepEqual(await client.next('room:participant:left'), { oderId: bad.oderId, reason: 'kicked' });
  }
  await bad.refused('NOT_IN_ROOM', 'sync:resync', {});
  await seats(server, room, 2);
  const mark = bad.mark();
  await settle(owner, good);
  assert.deepEqual(bad.since(mark), [], 'whoever is out hears nothing more');
  assert.equal(bad.all('room:participant:left').length, 0);
});

scenario('kicking or granting nobody is an error', async (transport) => {
  const { owner } = await openRoom(server, transport);
  for (const [event, extra] of [['room:kick', {}], ['room:grant', { canControl: true }], ['room:transfer', {}]]) {
    const answer = await owner.ask(event, { oderId: 'AAAAAAAAAA', ...extra });
    assert.equal(answer.ok, false, event);
    assert.equal(typeof answer.error.code, 'string');
  }
});

scenario('the owner grants and takes back', async (transport) => {
  const { room, owner } = await openRoom(server, transport, { playbackControl: 'selected' });
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  await bob.refused('UNAUTHORIZED', 'sync:play', {});
  for (const canControl of [true, false]) {
    await owner.must('room:grant', { oderId: bob.oderId, canControl });
    for (const client of [owner, bob]) {
      const { participant } = await client.next('room:participant:updated');
      assertParticipant(participant);
      assert.equal(participant.oderId, bob.oderId);
      assert.equal(participant.canControl, canControl);
    }
    if (canControl) await bob.must('sync:play', {});
    else await bob.refused('UNAUTHORIZED', 'sync:pause', {});
  }
});

scenario('the owner hands the room over', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  await owner.must('room:transfer', { oderId: bob.oderId });
  for (const client of [owner, bob]) {
    assert.deepEqual(await client.next('room:owner:changed'), {
      ownerId: bob.user.userId,
      oderId: bob.oderId,
      reason: 'transfer',
    });
  }
  await bob.must('room:update', { name: 'bob’s room' });
  await owner.refused('UNAUTHORIZED', 'room:update', { name: 'mine again' });
  const late = await joinGuest(server, transport, room);
  assert.equal(late.state.room.ownerId, bob.user.userId);
  const roles = Object.fromEntries(late.state.participants.map(({ oderId, role }) => [oderId, role]));
  assert.equal(roles[bob.oderId], 'owner');
  assert.equal(roles[owner.oderId], 'participant');
});

scenario('the owner changes the room', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const change = { name: 'New name', maxParticipants: 12, playbackControl: 'all', waitFor: 'all', password: 'open sesame' };
  await owner.must('room:update', change);
  for (const client of [owner, guest]) {
    const { room: told } = await client.next('room:updated');
    assertRoom(told);
    assert.deepEqual(
      { name: told.name, maxParticipants: told.maxParticipants, playbackControl: told.playbackControl, waitFor: told.waitFor },
      { name: 'New name', maxParticipants: 12, playbackControl: 'all', waitFor: 'all' },
    );
    assert.equal(told.hasPassword, true);
  }
  const late = await connect(server, { transport });
  await late.refused('INVALID_PASSWORD', 'room:join', { roomCode: room.code, guestName: 'late' });
  await owner.must('room:update', { password: null });
  assert.equal((await guest.next('room:updated')).room.hasPassword, false);
  await late.join(room, { guestName: 'late' });
});

scenario('a bad change changes nothing', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const bad = {
    name: 7,
    maxParticipants: 1,
    playbackControl: 'anarchy',
    waitFor: 'godot',
    password: 12,
  };
  for (const [field, value] of Object.entries(bad)) {
    const error = await owner.refused('VALIDATION_ERROR', 'room:update', { [field]: value });
    assert.match(error.message, new RegExp(field));
  }
  const guest = await joinGuest(server, transport, room);
  const { name, maxParticipants, playbackControl, waitFor, hasPassword } = guest.state.room;
  assert.deepEqual(
    { name, maxParticipants, playbackControl, waitFor, hasPassword },
    {
      name: room.name,
      maxParticipants: room.maxParticipants,
      playbackControl: room.playbackControl,
      waitFor: room.waitFor,
      hasPassword: false,
    },
  );
});

scenario('with the owner away the longest-present user acts as owner', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  const carol = await joinUser(server, transport, room, { who: user('carol') });
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  owner.socket.disconnect();
  for (const client of [guest, bob, carol]) {
    const change = await client.next('room:owner:changed');
    assert.equal(change.reason, 'absent');
    assert.equal(change.oderId, bob.oderId, 'bob was there before carol, and a guest is never owner');
  }
  await bob.must('sync:play', {});
  await carol.refused('UNAUTHORIZED', 'sync:pause', {});
  const back = await joinUser(server, transport, room, { who: room.owner });
  const change = await carol.next('room:owner:changed');
  assert.equal(change.reason, 'returned');
  assert.equal(change.oderId, back.oderId);
  assert.equal(change.ownerId, room.owner.userId);
  await back.must('sync:pause', {});
  await bob.refused('UNAUTHORIZED', 'sync:play', {});
});

scenario('the same user sits in two rooms', async (transport) => {
  const one = await createRoom(server);
  const two = await createRoom(server);
  const bob = user('bob');
  const first = await joinUser(server, transport, one, { who: bob });
  await joinUser(server, transport, two, { who: bob });
  assert.equal((await rest(server, 'GET', `/api/rooms/${one.code}`)).body.data.participantCount, 1);
  assert.equal(first.all('room:kicked').length, 0);
});
