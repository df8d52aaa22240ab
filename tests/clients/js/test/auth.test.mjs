// Who may connect, and as whom.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { Client, connect } from '../lib/client.mjs';
import { createRoom, joinUser } from '../lib/room.mjs';
import { useServer } from '../lib/server.mjs';
import { mint, user } from '../lib/token.mjs';
import { scenario } from '../lib/transports.mjs';

const now = () => Math.floor(Date.now() / 1_000);
const claims = () => ({ userId: 'u-1', username: 'alice' });
const [head, body, tail] = mint(claims()).split('.');

const WRONG = {
  'no token at all but a word': () => 'nonsense',
  'two dots and nothing': () => '..',
  'another secret': () => mint(claims(), { secret: 'another secret, also long enough for HS256' }),
  expired: () => mint({ ...claims(), exp: now() - 3_600 }),
  'not valid yet': () => mint({ ...claims(), nbf: now() + 3_600 }),
  'algorithm none': () => mint(claims(), { header: { alg: 'none' } }),
  'algorithm HS512': () => mint(claims(), { header: { alg: 'HS512' } }),
  'a changed payload': () => `${head}.${body.slice(0, -2)}AA.${tail}`,
  'no signature': () => `${head}.${body}.`,
  'nobody named': () => mint({ username: 'alice' }),
  'exp is no number': () => mint({ ...claims(), exp: 'tomorrow' }),
};

describe('a server that refuses bad tokens', () => {
  const server = useServer();

  for (const [name, token] of Object.entries(WRONG)) {
    scenario(`INVALID_TOKEN: ${name}`, async (transport) => {
      const client = new Client(server, { transport, token: token() });
      const error = await client.next('connect_error');
      assert.equal(error.data?.code, 'INVALID_TOKEN', JSON.stringify(error));
      assert.equal(typeof error.data.message, 'string');
      assert.equal(client.all('connect').length, 0);
    });
  }

  scenario('INVALID_TOKEN: a token that is no text', async (transport) => {
    for (const token of [7, true, {}, [], ['x']]) {
      const client = new Client(server, { transport, auth: { token } });
      const error = await client.next('connect_error');
      assert.equal(error.data?.code, 'INVALID_TOKEN', JSON.stringify([token, error]));
    }
  });

  scenario('sub stands in for userId', async (transport) => {
    const room = await createRoom(server);
    const who = { userId: 'subject-1', username: 'sue', token: mint({ sub: 'subject-1', username: 'sue', exp: now() + 60 }) };
    const client = await joinUser(server, transport, room, { who });
    const self = client.state.participants.find(({ oderId }) => oderId === client.oderId);
    assert.equal(self.userId, 'subject-1');
    assert.equal(self.username, 'sue');
  });

  scenario('a token of the user id alone is enough', async (transport) => {
    const room = await createRoom(server);
    const client = await joinUser(server, transport, room, { who: { userId: 'bare', token: mint({ userId: 'bare' }) } });
    const self = client.state.participants.find(({ oderId }) => oderId === client.oderId);
    assert.equal(self.userId, 'bare');
    assert.ok(!('username' in self), 'an optional field is absent');
  });

  scenario('no token makes a guest', async (transport) => {
    const client = await connect(server, { transport });
    const room = await createRoom(server);
    const state = await client.join(room, { guestName: 'Ann' });
    assert.equal(state.participants[0].role, 'guest');
  });
});

describe('a server that lets bad tokens in as guests', () => {
  const server = useServer({ AUTH_INVALID_TOKEN: 'guest' });

  scenario('the client is told and is a guest', async (transport) => {
    const room = await createRoom(server);
    const client = await connect(server, { transport, token: mint({ ...claims(), exp: 1 }) });
    const error = await client.next('room:error');
    assert.equal(error.code, 'INVALID_TOKEN');
    assert.equal(typeof error.message, 'string');
    await client.refused('UNAUTHORIZED', 'room:join', { roomCode: room.code });
    const state = await client.join(room, { guestName: 'Ann' });
    assert.equal(state.participants[0].role, 'guest');
    assert.ok(!('userId' in state.participants[0]));
  });

  scenario('a good token is still a user', async (transport) => {
    const room = await createRoom(server);
    const client = await joinUser(server, transport, room, { who: user('bob') });
    assert.equal(client.state.participants[0].role, 'participant');
    assert.equal(client.all('room:error').length, 0);
  });
});

describe('a server that asks for exp', () => {
  const server = useServer({ JWT_REQUIRE_EXP: 'true' });

  scenario('a token without exp is refused, one with it is not', async (transport) => {
    const without = new Client(server, { transport, token: mint(claims()) });
    assert.equal((await without.next('connect_error')).data.code, 'INVALID_TOKEN');
    await connect(server, { transport, token: mint({ ...claims(), exp: now() + 60 }) });
  });
});
