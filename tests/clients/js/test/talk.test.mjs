// Chat, ready checks, and what players report of themselves.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { joinGuest, joinUser, openRoom, settle } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer();

/** Each event of this suite with a payload that is right. */
const ACTS = {
  'chat:message': { content: 'hello?' },
  'ready:start': {},
  'ready:respond': { checkId: 'x', ready: true },
  'sync:buffering': { buffering: true, mediaTimeMs: 0 },
  'sync:report': { mediaTimeMs: 0, atServerTime: 1, isPlaying: false },
};

/** Skips the test where the server does not know `event` yet: it is in the contract, and not in every release. */
async function served(t, transport, event) {
  const outside = await connect(server, { transport });
  const { error } = await outside.ask(event, ACTS[event]);
  if (error?.code === 'VALIDATION_ERROR') t.skip(`${event} is not served yet`);
  return error?.code !== 'VALIDATION_ERROR';
}

scenario('a message reaches everyone, and the next joiner as history', async (transport, t) => {
  if (!(await served(t, transport, 'chat:message'))) return;
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room, { guestName: 'Ann' });
  const told = [];
  for (const [client, content] of [[guest, 'hello'], [owner, 'hi <b>Ann</b> 😀']]) {
    await client.must('chat:message', { content });
    const seen = await Promise.all([owner, guest].map((each) => each.next('chat:message')));
    assert.deepEqual(seen[0], seen[1]);
    const { id, oderId, name, timestamp } = seen[0];
    assert.equal(seen[0].content, content, 'as it was written');
    assert.equal(oderId, client.oderId);
    assert.equal(typeof id, 'string');
    assert.equal(name, client === guest ? 'Ann' : 'owner');
    assert.ok(['string', 'number'].includes(typeof timestamp));
    told.push(seen[0]);
  }
  const late = await joinGuest(server, transport, room, { guestName: 'late' });
  assert.deepEqual(await late.next('chat:history'), { messages: told });
  assert.deepEqual(late.since(0).slice(0, 2), ['room:state', 'chat:history'], 'right after room:state');
});

scenario('bad messages are refused', async (transport, t) => {
  if (!(await served(t, transport, 'chat:message'))) return;
  const { owner } = await openRoom(server, transport);
  for (const payload of [{}, { content: '' }, { content: 7 }, { content: 'x'.repeat(1_001) }, { content: null }]) {
    const error = await owner.refused('VALIDATION_ERROR', 'chat:message', payload);
    assert.match(error.message, /content/);
  }
  await owner.must('chat:message', { content: 'x'.repeat(1_000) });
});

scenario('thirty messages a minute', async (transport, t) => {
  if (!(await served(t, transport, 'chat:message'))) return;
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const answers = [];
  for (let n = 0; n < 31; n += 1) answers.push(await guest.ask('chat:message', { content: `message ${n}` }));
  assert.ok(answers.slice(0, 30).every(({ ok }) => ok));
  assert.equal(answers[30].error?.code, 'RATE_LIMIT_EXCEEDED');
  assert.ok(answers[30].error.retryAfterMs > 0 && answers[30].error.retryAfterMs <= 60_000);
  await owner.must('chat:message', { content: 'each has a limit of their own' });
});

scenario('a ready check ends with a PLAY when all are ready', async (transport, t) => {
  if (!(await served(t, transport, 'ready:start'))) return;
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  await owner.must('ready:start', {});
  const [update] = await Promise.all([bob, owner].map((client) => client.next('ready:update')));
  assert.equal(typeof update.checkId, 'string');
  assert.ok(update.expiresAtMs > 0);
  assert.deepEqual(update.participants.map(({ oderId }) => oderId).sort(), [owner.oderId, bob.oderId].sort());
  const { checkId } = update;
  for (const client of [bob, owner]) await client.must('ready:respond', { checkId, ready: true });
  for (const client of [bob, owner]) {
    assert.deepEqual(await client.next('ready:complete'), { checkId, allReady: true });
    assert.equal((await client.next('sync:command')).command.type, 'PLAY');
  }
});

scenario('a ready check ends without a PLAY when one is not', async (transport, t) => {
  if (!(await served(t, transport, 'ready:start'))) return;
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  await owner.must('ready:start', {});
  const { checkId } = await bob.next('ready:update');
  await bob.must('ready:respond', { checkId, ready: false });
  await owner.must('ready:respond', { checkId, ready: true });
  for (const client of [bob, owner]) assert.deepEqual(await client.next('ready:complete'), { checkId, allReady: false });
  assert.equal(owner.all('sync:command').length, 0);
});

scenario('buffering is told, and a room that waits for all waits', async (transport, t) => {
  if (!(await served(t, transport, 'sync:buffering'))) return;
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  await owner.must('room:update', { waitFor: 'all' });
  await owner.must('sync:play', {});
  assert.equal((await owner.next('sync:command')).state.isPlaying, true);
  await bob.must('sync:buffering', { buffering: true, mediaTimeMs: 100 });
  const { participant } = await owner.next('room:participant:updated');
  assert.equal(participant.oderId, bob.oderId);
  assert.equal(participant.buffering, true);
  assert.equal((await owner.next('sync:command')).state.isPlaying, false, 'the film waits for bob');
  await bob.must('sync:buffering', { buffering: false, mediaTimeMs: 100 });
  assert.notEqual((await owner.next('room:participant:updated')).participant.buffering, true);
  assert.equal((await owner.next('sync:command')).state.isPlaying, true, 'and goes on');
});

scenario('reports are taken and nobody hears of them', async (transport, t) => {
  if (!(await served(t, transport, 'sync:report'))) return;
  const { room, owner } = await openRoom(server, transport);
  const bob = await joinUser(server, transport, room, { who: user('bob') });
  const guest = await joinGuest(server, transport, room);
  await owner.must('sync:source', { sourceType: 'youtube', sourceId: 'x' });
  await bob.next('sync:state');
  await bob.next('room:participant:joined');
  const mark = bob.mark();
  await guest.must('sync:report', { mediaTimeMs: 10, atServerTime: Date.now(), isPlaying: false, bufferedMs: 5, rttMs: 3 });
  await settle(owner, bob);
  assert.deepEqual(bob.since(mark), ['room:updated']);
});

for (const [event, payload] of Object.entries(ACTS)) {
  scenario(`${event} is for members, and asks for its fields`, async (transport, t) => {
    if (!(await served(t, transport, event))) return;
    const { owner } = await openRoom(server, transport);
    if (event !== 'ready:start') {
      for (const wrong of [null, 7, 'text', [], {}]) await owner.refused('VALIDATION_ERROR', event, wrong);
    }
    await owner.must('room:leave');
    await owner.refused('NOT_IN_ROOM', event, payload);
  });
}

scenario('a ready check is the owner’s to start', async (transport, t) => {
  if (!(await served(t, transport, 'ready:start'))) return;
  const { room } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  await guest.refused('UNAUTHORIZED', 'ready:start', {});
});
