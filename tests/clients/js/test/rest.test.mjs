// The REST API and the pages beside it.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createRoom, joinGuest, rest, seats } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { ROOM_CODE, assertRoom } from '../lib/shape.mjs';
import { user } from '../lib/token.mjs';

const failed = (answer, status, code) => {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.body?.success, false, answer.text);
  if (code) assert.equal(answer.body.error.code, code, answer.text);
  assert.equal(typeof answer.body.error.message, 'string');
};

describe('rooms over REST', () => {
  const server = useServer({ GUEST_ROOMS: 'true' });

  test('a user makes a room', async () => {
    const owner = user('owner');
    const body = { name: 'Film night', maxParticipants: 5, password: 'open sesame', playbackControl: 'selected' };
    const answer = await rest(server, 'POST', '/api/rooms', { token: owner.token, body });
    assert.equal(answer.status, 201, answer.text);
    assert.match(answer.headers.get('content-type'), /^application\/json/);
    const room = answer.body.data;
    assertRoom(room);
    assert.match(room.code, ROOM_CODE);
    assert.equal(room.name, 'Film night');
    assert.equal(room.maxParticipants, 5);
    assert.equal(room.hasPassword, true);
    assert.equal(room.playbackControl, 'selected');
    assert.equal(room.ownerId, owner.userId);
    const hours = (Date.parse(room.expiresAt) - Date.parse(room.createdAt)) / 3_600_000;
    assert.ok(Math.abs(hours - 24) < 0.1, `a room lives for 24 hours, not ${hours}`);
    assert.ok(!answer.text.includes('sesame'));
  });

  test('an empty body makes a room with defaults', async () => {
    const answer = await rest(server, 'POST', '/api/rooms', { token: user().token, body: {} });
    assert.equal(answer.status, 201, answer.text);
    assertRoom(answer.body.data);
    assert.equal(answer.body.data.playbackControl, 'owner_only');
    assert.equal(answer.body.data.waitFor, 'none');
  });

  test('someone without a token gets one that makes them the owner', async () => {
    const answer = await rest(server, 'POST', '/api/rooms', { body: { name: 'ours' } });
    assert.equal(answer.status, 201, answer.text);
    const { token } = answer.body;
    assert.equal(typeof token, 'string', answer.text);
    const changed = await rest(server, 'PATCH', `/api/rooms/${answer.body.data.code}`, { token, body: { name: 'renamed' } });
    assert.equal(changed.status, 200, changed.text);
    assert.equal(changed.body.data.name, 'renamed');
  });

  test('a room can be read, with the number of seats taken', async () => {
    const room = await createRoom(server);
    const path = `/api/rooms/${room.code}`;
    const empty = await rest(server, 'GET', path);
    assert.equal(empty.status, 200, empty.text);
    assert.equal(empty.body.data.participantCount, 0);
    const { participantCount, ...data } = empty.body.data;
    assertRoom(data);
    assert.equal(participantCount, 0);
    const guest = await joinGuest(server, 'websocket', room);
    await seats(server, room, 1);
    guest.socket.disconnect();
    await seats(server, room, 0);
    const small = await rest(server, 'GET', path.toLowerCase());
    assert.equal(small.body.data.id, room.id, 'whatever the case');
  });

  test('the owner changes a room, and its members are told', async () => {
    const room = await createRoom(server);
    const guest = await joinGuest(server, 'websocket', room);
    const path = `/api/rooms/${room.code}`;
    const answer = await rest(server, 'PATCH', path, { token: room.owner.token, body: { name: 'changed', maxParticipants: 9 } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.body.data.maxParticipants, 9);
    assert.equal((await guest.next('room:updated')).room.name, 'changed');
    failed(await rest(server, 'PATCH', path, { token: user().token, body: { name: 'x' } }), 403, 'UNAUTHORIZED');
    failed(await rest(server, 'PATCH', path, { body: { name: 'x' } }), 401);
    failed(await rest(server, 'DELETE', path, { token: user().token }), 403, 'UNAUTHORIZED');
  });

  test('bad bodies are refused by the name of the field', async () => {
    const token = user().token;
    const bad = {
      name: ['', 7, 'x'.repeat(51), {}],
      maxParticipants: [1, 0, -3, 1e9, 2.5, '5', {}],
      password: ['abc', 'x'.repeat(129), 7],
      playbackControl: ['anarchy', 7],
    };
    for (const [field, values] of Object.entries(bad)) {
      for (const value of values) {
        const answer = await rest(server, 'POST', '/api/rooms', { token, body: { [field]: value } });
        failed(answer, 400, 'VALIDATION_ERROR');
        assert.match(answer.body.error.message, new RegExp(field));
      }
    }
    for (const body of ['{', '[]', '7', '"x"', '\u0000', '{"name":']) {
      failed(await rest(server, 'POST', '/api/rooms', { token, body }), 400);
    }
  });

  test('what is not there is not found', async () => {
    failed(await rest(server, 'GET', '/api/rooms/ZZZZ9999'), 404, 'ROOM_NOT_FOUND');
    failed(await rest(server, 'PATCH', '/api/rooms/ZZZZ9999', { token: user().token, body: { name: 'x' } }), 404, 'ROOM_NOT_FOUND');
    failed(await rest(server, 'DELETE', '/api/rooms/ZZZZ9999', { token: user().token }), 404, 'ROOM_NOT_FOUND');
    for (const path of ['/api/', '/api/nothing', '/api/rooms/x/y', '/nothing/here', '/..%2f..%2fetc/passwd']) {
      assert.equal((await rest(server, 'GET', path)).status, 404, path);
    }
  });

  test('a bad token is told', async () => {
    for (const token of ['nonsense', 'a.b.c']) {
      failed(await rest(server, 'POST', '/api/rooms', { token, body: {} }), 401, 'INVALID_TOKEN');
    }
  });

  test('a deleted room is gone', async () => {
    const room = await createRoom(server);
    const path = `/api/rooms/${room.code}`;
    assert.equal((await rest(server, 'DELETE', path, { token: room.owner.token })).status, 200);
    failed(await rest(server, 'GET', path), 404, 'ROOM_NOT_FOUND');
  });

  test('a body without end is cut off', async () => {
    const answer = await rest(server, 'POST', '/api/rooms', { token: user().token, body: `{"name":"${'x'.repeat(4_000_000)}"}` }).catch(
      (error) => ({ error }),
    );
    if (!answer.error) assert.ok([400, 413].includes(answer.status), String(answer.status));
    assert.equal((await rest(server, 'GET', '/health/live')).status, 200);
  });

  test('statuses tell what was wrong with a request', async () => {
    const large = await rest(server, 'POST', '/api/rooms', { token: user().token, body: { name: 'x'.repeat(20_000) } });
    failed(large, 413, 'VALIDATION_ERROR');
    const anonymous = await rest(server, 'DELETE', `/api/rooms/${(await createRoom(server)).code}`);
    failed(anonymous, 401, 'UNAUTHORIZED');
    assert.equal(anonymous.headers.get('www-authenticate'), 'Bearer');
    for (const path of ['/health/live', '/health/ready', '/metrics', '/', '/client.js']) {
      const answer = await rest(server, 'POST', path);
      failed(answer, 405, 'METHOD_NOT_ALLOWED');
      assert.equal(answer.headers.get('allow'), 'GET');
    }
  });

  test('health tells of each backend', async () => {
    assert.equal((await rest(server, 'GET', '/health/live')).status, 200);
    const ready = await rest(server, 'GET', '/health/ready');
    assert.equal(ready.status, 200, ready.text);
    assert.match(ready.text, /latency/i);
  });

  test('metrics are Prometheus text', async () => {
    const answer = await rest(server, 'GET', '/metrics');
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type'), /^(text\/plain|application\/openmetrics-text)/);
    assert.match(answer.text, /^# (HELP|TYPE) \w+/m);
    assert.match(answer.text, /^\w+(\{[^}]*\})? [0-9.e+-]+/m);
  });
});

describe('a server that takes no rooms of guests', () => {
  const server = useServer({ GUEST_ROOMS: 'false' });

  test('no room without a token', async () => {
    failed(await rest(server, 'POST', '/api/rooms', { body: {} }), 401);
    await createRoom(server);
  });
});

describe('origins', () => {
  const server = useServer({ CORS_ORIGIN: 'https://watch.example, https://other.example' });
  const polling = '/socket.io/?EIO=4&transport=polling';

  test('an origin of the list is let in, on REST and polling', async () => {
    const room = await createRoom(server);
    for (const path of [polling, `/api/rooms/${room.code}`]) {
      const answer = await rest(server, 'GET', path, { headers: { origin: 'https://other.example' } });
      assert.equal(answer.status, 200, `${path}: ${answer.text}`);
      assert.equal(answer.headers.get('access-control-allow-origin'), 'https://other.example');
    }
  });

  test('another is refused with 403', async () => {
    for (const origin of ['https://evil.example', 'https://watch.example.evil.example', 'http://watch.example', 'null']) {
      const answer = await rest(server, 'GET', polling, { headers: { origin } });
      assert.equal(answer.status, 403, origin);
      assert.equal(answer.headers.get('access-control-allow-origin'), null);
    }
  });

  test('the server’s own origin is always let in', async () => {
    const answer = await rest(server, 'GET', polling, { headers: { origin: server.url } });
    assert.equal(answer.status, 200, answer.text);
  });

  test('a preflight is answered', async () => {
    const headers = {
      origin: 'https://watch.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization, content-type',
    };
    for (const path of [polling, '/api/rooms']) {
      const answer = await rest(server, 'OPTIONS', path, { headers });
      assert.ok([200, 204].includes(answer.status), `${path}: ${answer.status}`);
      assert.equal(answer.headers.get('access-control-allow-origin'), 'https://watch.example');
      assert.match(answer.headers.get('access-control-allow-methods'), /POST/);
    }
  });
});
