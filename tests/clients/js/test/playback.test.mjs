// One film for everyone: commands, their order, the clock and the anchors.
import assert from 'node:assert/strict';
import { joinGuest, joinUser, openRoom, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { assertPlayback } from '../lib/shape.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer();
const SOURCE = { sourceType: 'external', sourceId: 'https://video.example/a.mp4' };
const [LEAST_LEAD_MS, MOST_LEAD_MS] = [50, 500];

/** The position of `state` at server time `at`. */
function position(state, at) {
  const moved = state.isPlaying ? (at - state.anchorServerTimeMs) * state.playbackRate : 0;
  return Math.max(0, state.anchorMediaTimeMs + moved);
}

const serverTime = async (client) => (await client.must('time:ping', { clientTime: Date.now() })).serverTime;

/** Gives the order and answers what every one of `clients` was told, after checking that it is right in itself. */
async function command(sender, event, payload, clients = [sender]) {
  const before = await serverTime(sender);
  await sender.must(event, payload);
  const told = await Promise.all(clients.map((client) => client.next('sync:command')));
  const after = await serverTime(sender);
  for (const other of told) assert.deepEqual(other, told[0], 'everyone is told the same');
  const { command: order, state } = told[0];
  assertPlayback(state);
  assert.equal(order.sequenceNumber, state.sequenceNumber);
  assert.ok(Number.isSafeInteger(order.atServerTime));
  if (payload.atServerTime === undefined) {
    assert.ok(order.atServerTime >= before + LEAST_LEAD_MS, `${order.atServerTime - before} ms ahead`);
    assert.ok(order.atServerTime <= after + MOST_LEAD_MS, `${order.atServerTime - after} ms ahead`);
  }
  return { order, state };
}

/** A room with a source, its owner and two more. */
async function cinema(transport, body = {}) {
  const { room, owner } = await openRoom(server, transport, body);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  const guest = await joinGuest(server, transport, room);
  const all = [owner, bob, guest];
  await owner.must('sync:source', SOURCE);
  const states = await Promise.all(all.map((client) => client.next('sync:state')));
  return { room, owner, bob, guest, all, source: states[0].state, states };
}

scenario('time:ping is answered outside a room too', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  await owner.must('room:leave');
  owner.forget();
  const clientTime = 1_234_567.5;
  const answer = await owner.must('time:ping', { clientTime });
  assert.equal(answer.clientTime, clientTime);
  assert.ok(Number.isSafeInteger(answer.serverTime) || typeof answer.serverTime === 'number');
  const pong = await owner.next('time:pong');
  assert.deepEqual(pong, { clientTime, serverTime: answer.serverTime });
  owner.socket.emit('time:ping', { clientTime: 2 });
  assert.equal((await owner.next('time:pong')).clientTime, 2);
  assert.ok(room);
});

scenario('server time runs forward, by Unix milliseconds', async (transport) => {
  const { owner } = await openRoom(server, transport);
  let last = 0;
  for (let n = 0; n < 10; n += 1) {
    const now = await serverTime(owner);
    assert.ok(now >= last, `${now} after ${last}`);
    assert.ok(Math.abs(now - Date.now()) < 60_000);
    last = now;
  }
});

scenario('without a source nothing plays', async (transport) => {
  const { owner } = await openRoom(server, transport);
  await owner.refused('VALIDATION_ERROR', 'sync:play', {});
  await owner.refused('VALIDATION_ERROR', 'sync:pause', {});
  await owner.refused('VALIDATION_ERROR', 'sync:seek', { targetMediaTime: 0 });
  await owner.refused('VALIDATION_ERROR', 'sync:rate', { rate: 1 });
});

scenario('a source starts paused', async (transport) => {
  const { room, source, states, owner, all } = await cinema(transport);
  for (const told of states) {
    assert.deepEqual(told.state, source);
    assert.equal(typeof told.serverTime, 'number');
  }
  assertPlayback(source);
  assert.equal(source.roomId, room.id);
  assert.equal(source.sourceType, SOURCE.sourceType);
  assert.equal(source.sourceId, SOURCE.sourceId);
  assert.equal(source.isPlaying, false);
  assert.equal(source.playbackRate, 1);
  assert.equal(source.anchorMediaTimeMs, 0);
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'y', startMediaTimeMs: 61_000 });
  const next = await Promise.all(all.map((client) => client.next('sync:state')));
  assert.equal(next[2].state.anchorMediaTimeMs, 61_000);
  assert.ok(next[2].state.sequenceNumber > source.sequenceNumber);
});

scenario('play, pause, seek and rate reach everyone, the sender too, numbered without a gap', async (transport) => {
  const { owner, all, source } = await cinema(transport);
  const play = await command(owner, 'sync:play', {}, all);
  assert.equal(play.order.type, 'PLAY');
  assert.equal(play.state.isPlaying, true);
  assert.equal(play.state.anchorServerTimeMs, play.order.atServerTime);
  assert.equal(play.state.anchorMediaTimeMs, 0);

  const seek = await command(owner, 'sync:seek', { targetMediaTime: 90_000 }, all);
  assert.equal(seek.order.type, 'SEEK');
  assert.equal(seek.order.targetMediaTime, 90_000);
  assert.equal(seek.state.isPlaying, true, 'a seek does not stop the film');
  assert.equal(seek.state.anchorMediaTimeMs, 90_000);
  assert.equal(seek.state.anchorServerTimeMs, seek.order.atServerTime);

  const rate = await command(owner, 'sync:rate', { rate: 1.5 }, all);
  assert.equal(rate.order.type, 'SET_RATE');
  assert.equal(rate.order.rate, 1.5);
  assert.equal(rate.state.playbackRate, 1.5);
  const at = rate.order.atServerTime;
  assert.ok(Math.abs(position(rate.state, at) - position(seek.state, at)) <= 1, 'a new rate moves nobody');

  const pause = await command(owner, 'sync:pause', {}, all);
  assert.equal(pause.order.type, 'PAUSE');
  assert.equal(pause.state.isPlaying, false);
  const stop = pause.order.atServerTime;
  assert.ok(Math.abs(position(pause.state, stop) - position(rate.state, stop)) <= 1, 'it stops where it was');

  const numbers = [play, seek, rate, pause].map(({ order }) => order.sequenceNumber);
  assert.deepEqual(numbers, [1, 2, 3, 4].map((n) => source.sequenceNumber + n));
});

scenario('a PLAY while playing moves nobody', async (transport) => {
  const { owner } = await cinema(transport);
  const first = await command(owner, 'sync:play', {});
  const second = await command(owner, 'sync:play', {});
  const at = second.order.atServerTime;
  assert.ok(Math.abs(position(second.state, at) - position(first.state, at)) <= 1);
  assert.equal(second.state.isPlaying, true);
});

scenario('a time proposed by the client counts only within the next two seconds', async (transport) => {
  const { owner } = await cinema(transport);
  const near = (await serverTime(owner)) + 1_000;
  const kept = await command(owner, 'sync:play', { atServerTime: near });
  assert.equal(kept.order.atServerTime, near);
  for (const off of [60_000, -60_000]) {
    const before = await serverTime(owner);
    const { order } = await command(owner, 'sync:pause', { atServerTime: before + off });
    const after = await serverTime(owner);
    assert.ok(order.atServerTime >= before && order.atServerTime <= after + MOST_LEAD_MS, `${order.atServerTime - before}`);
  }
});

scenario('a late joiner gets the state of the film', async (transport) => {
  const { room, owner } = await cinema(transport);
  await command(owner, 'sync:play', {});
  const { state } = await command(owner, 'sync:seek', { targetMediaTime: 5_000 });
  const late = await joinGuest(server, transport, room, { guestName: 'late' });
  assert.deepEqual(late.state.playback, state);
  await late.must('sync:resync', { lastSequence: 0 });
  assert.deepEqual((await late.next('sync:state')).state, state);
});

scenario('resync answers the caller alone', async (transport) => {
  const { owner, guest, bob } = await cinema(transport);
  const mark = bob.mark();
  await guest.must('sync:resync', {});
  const { state, serverTime: now } = await guest.next('sync:state');
  assertPlayback(state);
  assert.equal(typeof now, 'number');
  await settle(owner, bob);
  assert.deepEqual(bob.since(mark), ['room:updated']);
});

scenario('playbackControl all: every user, no guest', async (transport) => {
  const { bob, guest, all } = await cinema(transport, { playbackControl: 'all' });
  await command(bob, 'sync:play', {}, all);
  await guest.refused('UNAUTHORIZED', 'sync:pause', {});
});

scenario('commands of several people come to all in the same order', async (transport) => {
  const { room, owner, bob, guest, all } = await cinema(transport, { playbackControl: 'all' });
  const carol = await joinUser(server, transport, room, { who: user('carol') });
  const senders = [owner, bob, carol];
  const each = 6;
  await Promise.all(
    senders.flatMap((sender, who) =>
      Array.from({ length: each }, (_, n) => sender.must('sync:seek', { targetMediaTime: who * 1_000 + n })),
    ),
  );
  const total = senders.length * each;
  const seen = await Promise.all(
    [...all, carol].map(async (client) => {
      const list = [];
      for (let n = 0; n < total; n += 1) list.push(await client.next('sync:command'));
      return list;
    }),
  );
  for (const list of seen) assert.deepEqual(list, seen[0]);
  const numbers = seen[0].map(({ command: { sequenceNumber } }) => sequenceNumber);
  assert.deepEqual(numbers, numbers.map((_, n) => numbers[0] + n), 'no gap, no twin, no turn');
  assert.ok(guest);
});

scenario('bad sync payloads name their field and change nothing', async (transport) => {
  const { room, owner, source } = await cinema(transport);
  const bad = [
    ['sync:source', { sourceType: 'vhs', sourceId: 'x' }, /sourceType/],
    ['sync:source', { sourceType: 'youtube' }, /sourceId/],
    ['sync:source', { sourceType: 'youtube', sourceId: '' }, /sourceId/],
    ['sync:source', { sourceType: 'youtube', sourceId: 'x'.repeat(2_049) }, /sourceId/],
    ['sync:source', { sourceType: 'youtube', sourceId: 'x', startMediaTimeMs: -1 }, /startMediaTimeMs/],
    ['sync:seek', {}, /targetMediaTime/],
    ['sync:seek', { targetMediaTime: '5' }, /targetMediaTime/],
    ['sync:seek', { targetMediaTime: null }, /targetMediaTime/],
    ['sync:rate', {}, /rate/],
    ['sync:rate', { rate: 0 }, /rate/],
    ['sync:rate', { rate: 4.5 }, /rate/],
    ['sync:rate', { rate: -1 }, /rate/],
    ['sync:rate', { rate: '1' }, /rate/],
    ['sync:play', { atServerTime: 'soon' }, /atServerTime/],
    ['sync:pause', { atServerTime: {} }, /atServerTime/],
  ];
  for (const [event, payload, field] of bad) {
    // A refused payload may count against the limit of ten a second, so it is not sent faster.
    await new Promise((resolve) => setTimeout(resolve, 110));
    const error = await owner.refused('VALIDATION_ERROR', event, payload);
    assert.match(error.message, field, `${event} ${JSON.stringify(payload).slice(0, 80)}`);
  }
  const late = await joinGuest(server, transport, room, { guestName: 'late' });
  assert.deepEqual(late.state.playback, source);
});

scenario('the rates at both ends are allowed', async (transport) => {
  const { owner } = await cinema(transport);
  for (const rate of [0.1, 4, 1]) assert.equal((await command(owner, 'sync:rate', { rate })).state.playbackRate, rate);
});
