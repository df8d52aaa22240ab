// Payloads that no honest client sends: each is refused by name, and the connection lives on.
import assert from 'node:assert/strict';
import { connect } from '../lib/client.mjs';
import { createRoom, joinGuest, openRoom } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { mint } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const server = useServer();

const deep = (depth) => {
  let value = [];
  for (let n = 0; n < depth; n += 1) value = [value];
  return value;
};

scenario('payloads of room:join that are no object', async (transport) => {
  const guest = await connect(server, { transport });
  const payloads = [null, 1, -0.5, 1e308, true, '', 'room', [], [[]], [{ roomCode: 'ABCDEFGH' }], deep(60)];
  for (const payload of payloads) await guest.refused('VALIDATION_ERROR', 'room:join', payload);
  await guest.refused('VALIDATION_ERROR', 'room:join');
  await guest.refused('VALIDATION_ERROR', 'room:join', Buffer.from([1, 2, 3]));
});

scenario('fields of room:join that are wrong', async (transport) => {
  const room = await createRoom(server);
  const guest = await connect(server, { transport });
  const good = { roomCode: room.code, guestName: 'Ann' };
  const bad = {
    roomCode: [undefined, null, 7, '', 'ABCDEFG', 'ABCDEFGHJ', 'ABCD EFG', 'ABCD-EFG', 'ÄÖÜßÄÖÜß', '😀😀', "' OR 1=1", {}, [], true],
    password: [7, {}, [], true, 'x'.repeat(129)],
    guestName: [7, {}, [], true, '', '   ', '\t\n', 'x'.repeat(51)],
    resumeToken: [7, {}, [], true],
  };
  for (const [field, values] of Object.entries(bad)) {
    for (const value of values) {
      const error = await guest.refused('VALIDATION_ERROR', 'room:join', { ...good, [field]: value });
      assert.match(error.message, new RegExp(field), `${field}: ${JSON.stringify(value)}`);
      assert.ok(error.message.length < 300, 'an error message is short, whatever was sent');
    }
  }
  await guest.join(room, { guestName: 'x'.repeat(50), unknown: { field: 1 } });
});

scenario('bytes where text should be', async (transport) => {
  const room = await createRoom(server);
  const guest = await connect(server, { transport });
  await guest.refused('VALIDATION_ERROR', 'room:join', { roomCode: Buffer.from(room.code), guestName: 'Ann' });
  await guest.refused('VALIDATION_ERROR', 'room:join', { roomCode: room.code, guestName: Buffer.from('Ann') });
});

scenario('names of JavaScript’s prototypes are names like any other', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const guest = await connect(server, { transport });
  const payload = JSON.parse('{"__proto__":{"roomCode":"x"},"constructor":{"prototype":{}},"toString":1}');
  const error = await guest.refused('VALIDATION_ERROR', 'room:join', payload);
  assert.match(error.message, /roomCode/);
  await guest.join(room, { guestName: '__proto__', ...JSON.parse('{"hasOwnProperty":1}') });
  const { participant } = await owner.next('room:participant:joined');
  assert.equal(participant.guestName, '__proto__');
  await owner.refused('VALIDATION_ERROR', 'room:grant', { oderId: '__proto__', canControl: 'yes' });
});

scenario('names are text, whatever letters they have', async (transport) => {
  const { room, owner } = await openRoom(server, transport);
  const join = async (guestName, shown) => {
    const guest = await joinGuest(server, transport, room, { guestName });
    const { participant } = await owner.next('room:participant:joined');
    assert.equal(participant.guestName, shown);
    assert.equal(participant.oderId, guest.oderId);
  };
  for (const name of ['Żółć', '日本語', '👩‍👩‍👧‍👦', '<script>alert(1)</script>', '"\\']) await join(name, name);
  await join('Z\u0001o\u0308 \u3000e', 'Zö e');
  await join('a\u2028b\u200b', 'ab');
  await join('ab', 'ab (2)');
  await join('\u202eevil.moc', 'evil.moc');
  const guest = await connect(server, { transport });
  for (const guestName of ['\u200b', '\u3164', '\0', '\u001b', '\n', '\u2800', 'x'.repeat(51), `a${'\u0301'.repeat(201)}`]) {
    const error = await guest.refused('VALIDATION_ERROR', 'room:join', { roomCode: room.code, guestName });
    assert.match(error.message, /^guestName must /);
  }
});

scenario('a name in a token is cleaned, and refused where it is too long', async (transport) => {
  const { room } = await openRoom(server, transport);
  const named = (username) => connect(server, { transport, token: mint({ userId: `u-${username.length}`, username }) });
  const state = await (await named('Ann\u200b\u202e')).join(room);
  assert.equal(state.participants.at(-1).username, 'Ann');
  const error = await (await named('x'.repeat(51))).refused('VALIDATION_ERROR', 'room:join', { roomCode: room.code });
  assert.match(error.message, /^username must /);
});

scenario('fifty letters are fifty letters, also outside ASCII', async (transport) => {
  const { room } = await openRoom(server, transport);
  await joinGuest(server, transport, room, { guestName: 'ż'.repeat(50) });
});

scenario('more arguments than one', async (transport) => {
  const { room } = await openRoom(server, transport);
  const guest = await connect(server, { transport });
  const answer = await guest.ask('room:join', { roomCode: room.code, guestName: 'Ann' }, 'and', ['more']);
  assert.equal(typeof answer.ok, 'boolean');
});

scenario('payloads of a member that are wrong', async (transport) => {
  const { owner } = await openRoom(server, transport);
  const acts = ['room:update', 'room:grant', 'room:kick', 'room:transfer', 'sync:source', 'sync:seek', 'sync:rate'];
  for (const event of acts) {
    for (const payload of [7, 'text', true, [], deep(20)]) await owner.refused('VALIDATION_ERROR', event, payload);
    // `null` is how JavaScript sends an argument that is undefined; only where nothing is needed may it pass.
    if (event !== 'room:update') await owner.refused('VALIDATION_ERROR', event, null);
  }
  for (const payload of [{}, { clientTime: 'now' }, { clientTime: null }, null, 7]) {
    const answer = await owner.ask('time:ping', payload);
    assert.equal(answer.error?.code, 'VALIDATION_ERROR', JSON.stringify(payload));
  }
  await owner.must('room:update', { name: 'still here' });
});

scenario('without an ack the error still comes', async (transport) => {
  const guest = await connect(server, { transport });
  guest.socket.emit('room:join', { roomCode: 'ZZZZ9999', guestName: 'Ann' });
  const error = await guest.next('room:error');
  assert.equal(error.code, 'ROOM_NOT_FOUND');
});
