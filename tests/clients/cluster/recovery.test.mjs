// The published client, cut off and back again, at the example servers with connection state recovery.
//
//   CLUSTER_BIN=path/to/example/cluster FANOUT_BIN=path/to/example/fanout node --test
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { createClient } from 'redis';
import { io } from 'socket.io-client';
import { freePort, start, startRedis, until } from './processes.mjs';

let kill;
let url;

before(async () => {
  const port = await freePort();
  kill = await start(process.env.FANOUT_BIN, ['--port', port, '--recovery', '1'], port);
  url = `http://127.0.0.1:${port}/bench`;
});

after(() => kill());

async function member(room, transports) {
  const socket = io(url, { transports, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 50 });
  await once(socket, 'connect');
  await socket.emitWithAck('join', room);
  return socket;
}

for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
  test(`cut off again and again over ${transports}`, { timeout: 30_000 }, async (t) => {
    const room = `room ${transports}`;
    const [speaker, listener] = [await member(room, ['websocket']), await member(room, transports)];
    t.after(() => [speaker, listener].forEach((socket) => socket.disconnect()));
    const { id } = listener;
    const heard = [];
    listener.on('cast', (number) => heard.push(number));
    let sent = 0;
    const say = () => speaker.emit('cast', sent++);
    const isCaughtUp = () => heard.length === sent;
    for (let round = 0; round < 4; round++) {
      // In the first round nothing has been received yet.
      for (let count = 0; count < round; count++) say();
      await until('what was said is heard', isCaughtUp);
      const [gone, back] = [once(listener, 'disconnect'), once(listener, 'connect')];
      listener.io.engine.close();
      await gone;
      for (let count = 0; count < 3; count++) say();
      await back;
      assert.equal(listener.recovered, true, `round ${round}`);
      assert.equal(listener.id, id);
      await until('what was missed is heard', isCaughtUp);
    }
    say();
    await until('the room is still joined', isCaughtUp);
    assert.deepEqual(heard, Array.from({ length: sent }, (_, number) => number));
  });
}

describe('several instances', () => {
  let redis, kills, urls, store;

  before(async () => {
    redis = await startRedis();
    [kills, urls] = [[], []];
    for (let instance = 0; instance < 3; instance++) {
      const port = await freePort();
      kills.push(await start(process.env.CLUSTER_BIN, [port, redis.url, 'classic', 'recovery'], port));
      urls.push(`http://127.0.0.1:${port}`);
    }
    store = await createClient({ url: redis.url }).connect();
  });
  after(async () => {
    await store.disconnect();
    for (const kill of kills) await kill();
    await redis.end();
  });

  /** A client in the lobby that keeps what is said there. */
  async function talker(instance) {
    const socket = io(urls[instance], {
      transports: ['websocket'],
      forceNew: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 50,
    });
    const heard = [];
    socket.on('said', (what) => heard.push(what));
    await once(socket, 'connect');
    await socket.emitWithAck('join', 'lobby');
    return { socket, heard };
  }

  /** The instance is in the client's address, where only its manager sees it. */
  const moves = ({ socket }, instance) => (socket.io.uri = urls[instance]);

  test('a client that is cut off comes back to each in turn', { timeout: 60_000 }, async (t) => {
    const [speaker, listener] = [await talker(0), await talker(0)];
    t.after(() => [speaker, listener].forEach(({ socket }) => socket.disconnect()));
    const { id } = listener.socket;
    let said = 0;
    const say = () => speaker.socket.emit('say', said++);
    const isCaughtUp = () => listener.heard.length === said && speaker.heard.length === said;
    for (let round = 0; round < 9; round++) {
      // In the first round nothing has been received yet.
      for (let count = 0; count < round; count++) say();
      await until('what was said is heard', isCaughtUp);
      moves(listener, (round + 1) % 3);
      const [gone, back] = [once(listener.socket, 'disconnect'), once(listener.socket, 'connect')];
      listener.socket.io.engine.close();
      await gone;
      for (let count = 0; count < 3; count++) say();
      await back;
      assert.equal(listener.socket.recovered, true, `round ${round}`);
      assert.equal(listener.socket.id, id);
      await until('what was missed is heard', isCaughtUp);
    }
    assert.deepEqual(listener.heard, Array.from({ length: said }, (_, number) => number));
    assert.deepEqual(speaker.heard, listener.heard);
    const who = await speaker.socket.emitWithAck('who');
    assert.deepEqual(who.find((socket) => socket.id === id), { id, rooms: ['lobby'], data: { joined: 'lobby' } });
  });

  test('a client comes back from an instance that was killed', { timeout: 60_000 }, async (t) => {
    const [speaker, listener] = [await talker(0), await talker(2)];
    t.after(() => [speaker, listener].forEach(({ socket }) => socket.disconnect()));
    const { id } = listener.socket;
    await until('the session to be noted down', async () => {
      const keys = await store.keys('socket.io-session#/#*');
      const states = await Promise.all(keys.map((key) => store.hGet(key, 'state')));
      return states.some((state) => state?.includes(id) && state.includes('lobby'));
    });
    speaker.socket.emit('say', 'before');
    await until('it to be heard', () => listener.heard.length === 1);
    moves(listener, 1);
    const [gone, back] = [once(listener.socket, 'disconnect'), once(listener.socket, 'connect')];
    await kills[2]();
    await gone;
    speaker.socket.emit('say', 'meanwhile');
    await back;
    assert.equal(listener.socket.recovered, true);
    assert.equal(listener.socket.id, id);
    speaker.socket.emit('say', 'after');
    await until('everything to be heard', () => listener.heard.length === 3);
    assert.deepEqual(listener.heard, ['before', 'meanwhile', 'after']);
  });
});
