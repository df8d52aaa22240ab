// The published client behind a balancer that knows nothing of sessions, in front of three of our servers.
//
//   CLUSTER_BIN=path/to/example/cluster node --test
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { startBalancer } from './balancer.mjs';
import { freePort, start, startRedis, until } from './processes.mjs';

const CLIENTS = 12;
const MESSAGES = 40;

for (const mode of ['classic', 'sharded']) {
  describe(`three servers, ${mode}`, () => {
    let redis, kills, balancer, url;

    before(async () => {
      redis = await startRedis();
      kills = [];
      const ports = [];
      for (let instance = 0; instance < 3; instance++) {
        const port = await freePort();
        kills.push(await start(process.env.CLUSTER_BIN, [port, redis.url, mode], port));
        ports.push(port);
      }
      balancer = await startBalancer(ports);
      url = `http://127.0.0.1:${balancer.port}`;
    });
    after(async () => {
      balancer.close();
      for (const kill of kills) await kill();
      await redis.end();
    });

    /** A client in the lobby that keeps what is said there, by whom. */
    async function member(name, options) {
      const socket = io(url, { forceNew: true, reconnection: false, ...options });
      const heard = new Map();
      socket.on('said', (who, number) => heard.set(who, [...(heard.get(who) ?? []), number]));
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject));
      await socket.emitWithAck('join', 'lobby');
      return { name, socket, heard, reasons: [], transport: () => socket.io.engine.transport.name };
    }

    async function members(t, options) {
      const names = Array.from({ length: CLIENTS }, (_, i) => `client ${i}`);
      const all = await Promise.all(names.map((name) => member(name, options)));
      for (const one of all) one.socket.on('disconnect', (reason) => one.reasons.push(reason));
      t.after(() => all.forEach(({ socket }) => socket.disconnect()));
      return all;
    }

    /** Everybody says something, and hears everything, in the order in which each has said it. */
    async function talk(all) {
      const numbers = Array.from({ length: MESSAGES }, (_, i) => i);
      for (const number of numbers) {
        for (const { name, socket } of all) socket.emit('say', name, number, Buffer.alloc(number * 10));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const said = CLIENTS * MESSAGES;
      const count = (heard) => [...heard.values()].reduce((sum, { length }) => sum + length, 0);
      await until('everything to be heard', () => all.every(({ heard }) => count(heard) >= said));
      for (const { heard, reasons } of all) {
        assert.deepEqual(reasons, []);
        for (const { name } of all) assert.deepEqual(heard.get(name), numbers);
      }
    }

    test('polling', { timeout: 60_000 }, async (t) => {
      const all = await members(t, { transports: ['polling'] });
      await talk(all);
      for (const { socket } of all) {
        const { id } = socket.io.engine;
        assert.ok(balancer.seen.get(id).size > 1, 'its requests have gone to several servers');
      }
    });

    test('polling, then WebSocket', { timeout: 60_000 }, async (t) => {
      // They talk while they upgrade.
      const all = await members(t, {});
      await talk(all);
      await until('all upgrades', () => all.every(({ transport }) => transport() === 'websocket'));
      for (const one of all) one.heard.clear();
      await talk(all);
      const text = 'é'.repeat(300_000);
      const [one, other] = all;
      other.heard.clear();
      one.socket.emit('say', one.name, text);
      await until('a long text', () => other.heard.get(one.name)?.[0] === text);
      const before = one.heard.get(other.name)?.length ?? 0;
      other.socket.disconnect();
      await until('one to be gone', async () => (await one.socket.emitWithAck('who')).length === CLIENTS - 1);
      assert.equal(one.heard.get(other.name)?.length ?? 0, before);
    });

    test('WebSocket alone', { timeout: 60_000 }, async (t) => {
      await talk(await members(t, { transports: ['websocket'] }));
    });

    test('a server that is killed takes its clients along, who come back', { timeout: 90_000 }, async (t) => {
      const all = await members(t, { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
      await until('all upgrades', () => all.every(({ transport }) => transport() === 'websocket'));
      const ids = all.map(({ socket }) => socket.id);
      await kills.at(-1)();
      await until('some to come back', () => all.some(({ socket, reasons }) => reasons.length > 0 && socket.connected));
      await until(
        'everybody to be there',
        async () => {
          if (!all.every(({ socket, transport }) => socket.connected && transport() === 'websocket')) return false;
          const asked = all[0].socket.timeout(5_000).emitWithAck('who');
          const there = new Set((await asked.catch(() => [])).map(({ id }) => id));
          return all.every(({ socket }) => there.has(socket.id));
        },
        60,
      );
      // What each saw was one loss at most, and nobody else's.
      for (const [i, { socket, reasons }] of all.entries()) {
        const kept = socket.id === ids[i];
        assert.deepEqual(reasons.length > 0, !kept);
        for (const reason of reasons) assert.match(reason, /^transport (close|error)$/);
      }
    });
  });
}
