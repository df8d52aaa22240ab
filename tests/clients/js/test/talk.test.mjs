// Chat and ready checks.
import assert from 'node:assert/strict';
import { joinGuest, joinUser, openRoom } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer();

scenario('a message reaches everyone, and the next joiner as history', async (transport) => {
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

scenario('bad messages are refused', async (transport) => {
  const { owner } = await openRoom(server, transport);
  for (const payload of [{}, { content: '' }, { content: 7 }, { content: 'x'.repeat(1_001) }, { content: null }]) {
    const error = await owner.refused('VALIDATION_ERROR', 'chat:message', payload);
    assert.match(error.message, /content/);
  }
  await owner.must('chat:message', { content: 'x'.repeat(1_000) });
});

scenario('thirty messages a minute', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await joinGuest(server, transport, room);
  const answers = [];
  for (let n = 0; n < 31; n += 1) answers.push(await guest.ask('chat:message', { content: `message ${n}` }));
  assert.ok(answers.slice(0, 30).every(({ ok }) => ok));
  assert.equal(answers[30].error?.code, 'RATE_LIMIT_EXCEEDED');
  assert.ok(answers[30].error.retryAfterMs > 0 && answers[30].error.retryAfterMs <= 60_000);
  await owner.must('chat:message', { content: 'each has a limit of their own' });
});

scenario('a ready check ends with a PLAY when all are ready', async (transport) => {
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

scenario('a ready check ends without a PLAY when one is not', async (transport) => {
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
