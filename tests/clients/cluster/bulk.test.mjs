// Clients that ask for much at once, and read: all of it reaches them, whole and in order. One that does not read is
// closed, and costs the server little.
//
//   FANOUT_BIN=path/to/example/fanout node --test bulk.test.mjs
//
// The reference server passes it with FANOUT_BIN=tests/load/peers/socket.io/server.mjs, except for what it has no limits
// for: memory, and the end of a connection that nothing is read from.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { io } from 'socket.io-client';
import { freePort, isServed, peakMemory, start, until } from './processes.mjs';
import { openRaw } from './raw.mjs';

const MIB = 1 << 20;

/** How many events at once, and of how many bytes: near the largest that a server takes, 1,000,000, and far below. */
const BULKS = [
  { events: 1_000, bytes: 20_000 },
  { events: 20_000, bytes: 1_000 },
  { events: 50, bytes: 950_000 },
];
/** More than may ever wait for one client, 64 MiB. */
const LONG_BULK = { events: 80, bytes: 900_000 };
/** Instead of that one where it takes the least time. */
const BULKS_OF_ECHOES_OVER_WEBSOCKET = [
  { events: 20, bytes: 900_000 },
  { events: 200, bytes: 900_000 },
];

const DIGITS = '0123456789'.repeat(100_000);

/** Text of so many bytes, which differs from that of any other event. */
function payload(number, bytes) {
  const start = `${number}:`;
  return start + DIGITS.slice(number % 10, (number % 10) + bytes - start.length);
}

describe('the published client asks for much at once', () => {
  let kill, url;

  before(async () => {
    const port = await freePort();
    kill = await start(process.env.FANOUT_BIN, ['--port', port], port);
    url = `http://127.0.0.1:${port}/bench`;
  });
  after(() => kill());

  /** A client of one transport, or of polling until it is told to upgrade. */
  function client(t, transport) {
    const transports = transport === 'upgrade' ? ['polling', 'websocket'] : [transport];
    const socket = io(url, { transports, upgrade: false, forceNew: true, reconnection: false });
    t.after(() => socket.disconnect());
    return socket;
  }

  /** Checks what comes back, and upgrades when a tenth of it is there. */
  function collector(transport, socket, { events, bytes }) {
    let received = 0;
    let upgradedAfter;
    const { promise, resolve, reject } = deferred();
    socket.on('disconnect', (reason) => reject(new Error(`disconnected after ${received}: ${reason}`)));
    const onPayload = (data) => {
      // An assertion would print both.
      if (data !== payload(received, bytes)) reject(new Error(`what came as number ${received} is another`));
      received += 1;
      if (transport === 'upgrade' && received === events / 10) {
        const { engine } = socket.io;
        engine.once('upgrade', () => (upgradedAfter = received));
        engine._probe('websocket'); // what the option `upgrade` does when the session is open
      }
      if (received === events) resolve();
    };
    const all = promise.then(() => {
      if (transport !== 'upgrade') return;
      assert.equal(socket.io.engine.transport.name, 'websocket');
      assert.ok(upgradedAfter < events, `upgraded after ${upgradedAfter}`);
    });
    return { onPayload, all };
  }

  for (const transport of ['websocket', 'polling', 'upgrade']) {
    const more = transport === 'websocket' ? BULKS_OF_ECHOES_OVER_WEBSOCKET : [LONG_BULK];
    for (const bulk of [...BULKS, ...more]) {
      const { events, bytes } = bulk;
      test(`${events} echoes of ${bytes} bytes, ${transport}`, { timeout: 30_000 }, async (t) => {
        const socket = client(t, transport);
        await once(socket, 'connect');
        const { onPayload, all } = collector(transport, socket, bulk);
        for (let number = 0; number < events; number++) socket.emit('echo', payload(number, bytes), onPayload);
        await all;
      });
    }

    for (const bulk of [...BULKS, LONG_BULK]) {
      const { events, bytes } = bulk;
      test(`${events} broadcasts of ${bytes} bytes, ${transport}`, { timeout: 30_000 }, async (t) => {
        const members = [client(t, transport), client(t, transport)];
        const room = `${events} of ${bytes}, ${transport}`;
        for (const member of members) await member.emitWithAck('join', room);
        const received = members.map((member) => {
          const { onPayload, all } = collector(transport, member, bulk);
          member.on('cast', onPayload);
          return all;
        });
        for (let number = 0; number < events; number++) members[0].emit('cast', payload(number, bytes));
        await Promise.all(received);
      });
    }
  }

  test('1,500 echoes from before the client is connected, polling', { timeout: 30_000 }, async (t) => {
    const socket = client(t, 'polling');
    const acks = Array.from({ length: 1_500 }, (_, number) => socket.emitWithAck('echo', number));
    assert.equal(socket.connected, false);
    const disconnected = once(socket, 'disconnect').then(([reason]) => assert.fail(reason));
    assert.deepEqual(await Promise.race([Promise.all(acks), disconnected]), Array.from(acks.keys()));
  });
});

function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

const PING_INTERVAL_MS = 1_000;
const PING_TIMEOUT_MS = 10_000;
/** For what a server does between a timeout and the end of the connection. */
const GRACE_MS = 4_000;

/** For one of the small events of another client, while the server is as busy as it can be. */
const LONGEST_WAIT_MS = 3_000;

const READERS = {
  fast: { sizes: Array(2_000).fill(20_000) },
  /** At its pace the last ping that waits behind all the rest still comes in time. */
  slow: { sizes: Array(450).fill(20_000), bytesPerSecond: 1_000_000 },
  /** The second half is more than buffers of the kernel and of any server hold. */
  stopping: { sizes: [...Array(200).fill(20_000), ...Array(200).fill(900_000)], stopsAfter: 200 },
};

/** What a server may need: by itself, for each client, and for one that reads too little of what others send it. */
const BASE_BYTES = 64 * MIB;
const SOFT_BYTES = 4 * MIB;
const HARD_BYTES = 64 * MIB;

/** A client that asks for what it gets by itself. */
async function echoes(port) {
  const reader = await openRaw(port);
  const request = (number, bytes) => `42/bench,${number}["echo","${payload(number, bytes)}"]`;
  const expected = (number, bytes) => `43/bench,${number}["${payload(number, bytes)}"]`;
  return { sender: reader, reader, request, expected };
}

/** A client that gets what another one broadcasts, which gets it too and reads it at once. */
async function broadcasts(port, room) {
  const [sender, reader] = [await openRaw(port), await openRaw(port)];
  for (const client of [sender, reader]) {
    const joined = new Promise((resolve) => (client.onPacket = resolve));
    await client.send(`42/bench,0["join","${room}"]`);
    assert.equal(await joined, '43/bench,0[]');
  }
  const request = (number, bytes) => `42/bench,["cast","${payload(number, bytes)}"]`;
  return { sender, reader, request, expected: request };
}

/** Checks what a client receives, and and resolves `reached` after so many packets; numbers of wrong ones are in `wrong`. */
function collect(client, name, sizes, expected, count) {
  const collected = { client, received: 0, wrong: [] };
  collected.reached = new Promise((resolve, reject) => {
    client.onPacket = (packet) => {
      const number = collected.received++;
      if (packet !== expected(number, sizes[number])) collected.wrong.push(number);
      if (collected.received !== count) return;
      if (count < sizes.length) client.stop();
      resolve();
    };
    client.onClose = () => reject(new Error(`${name}: closed after ${collected.received} of ${sizes.length}`));
  });
  return collected;
}

/** How long one of many small events of a client takes at most, in milliseconds. */
async function longestWait(t, port, isOver) {
  const socket = io(`http://127.0.0.1:${port}/bench`, { transports: ['websocket'], forceNew: true, reconnection: false });
  t.after(() => socket.disconnect());
  let longest = 0;
  for (let number = 0; !isOver(); number++) {
    const sent = Date.now();
    assert.equal(await socket.timeout(10_000).emitWithAck('echo', number), number);
    longest = Math.max(longest, Date.now() - sent);
    await sleep(20);
  }
  return longest;
}

describe('readers of every speed', { concurrency: true }, () => {
  for (const [kind, stream] of Object.entries({ echoes, broadcasts })) {
    test(kind, { timeout: 40_000 }, async (t) => {
      const port = await freePort();
      const flags = ['--port', port, '--ping-interval', PING_INTERVAL_MS, '--ping-timeout', PING_TIMEOUT_MS];
      const kill = await start(process.env.FANOUT_BIN, flags, port);
      t.after(kill);
      /** Opens a reader, and what sends to it where that is another. */
      async function open(name) {
        const { sizes, bytesPerSecond, stopsAfter = sizes.length } = READERS[name];
        const { sender, reader, request, expected } = await stream(port, name);
        t.after(() => [sender, reader].forEach((client) => client.close()));
        if (bytesPerSecond) reader.readAt(bytesPerSecond);
        const clients = [collect(reader, name, sizes, expected, stopsAfter)];
        if (sender !== reader) clients.push(collect(sender, `sender to ${name}`, sizes, expected, sizes.length));
        const send = async () => {
          for (const [number, bytes] of sizes.entries()) await sender.send(request(number, bytes));
        };
        // Where the connection breaks, its reader tells of it.
        return { sender, reader, clients, send: () => send().catch(() => {}) };
      }

      const [fast, slow, stopping] = [await open('fast'), await open('slow'), await open('stopping')];
      const all = [fast, slow, stopping].flatMap(({ clients }) => clients);
      let isOver = false;
      const longest = longestWait(t, port, () => isOver);
      longest.catch(() => {}); // it is awaited last
      slow.send();
      stopping.send();
      const stopped = stopping.clients[0].reached;
      const stoppingPort = stopping.reader.port; // a socket that is closed has forgotten it
      const closed = stopped.then(() =>
        until(
          'the client that does not read to be closed',
          () => !isServed(port, stoppingPort),
          (PING_INTERVAL_MS + PING_TIMEOUT_MS + GRACE_MS) / 1000,
        ),
      );
      const isSendingOver = async () => {
        const { bytesWritten } = stopping.sender;
        await sleep(500);
        return stopping.sender.bytesWritten === bytesWritten;
      };
      const started = stopped
        .then(() => until('what it asked for to be sent, as far as the server lets it', isSendingOver))
        .then(() => void fast.send());
      const reached = all.map((client) => client.reached);
      await Promise.all([closed, started, ...reached]).finally(() => (isOver = true));
      const peak = peakMemory(kill.pid);
      const limit = BASE_BYTES + (all.length + 1) * SOFT_BYTES + (kind === 'broadcasts' ? HARD_BYTES : 0);
      await stopping.reader.readToEnd();
      assert.ok(stopping.clients[0].received < READERS.stopping.sizes.length);
      assert.deepEqual(all.flatMap(({ wrong }) => wrong), []);
      t.diagnostic(`peak of the server's memory: ${Math.round(peak / MIB)} MiB, allowed are ${limit / MIB}`);
      t.diagnostic(`longest wait of another client: ${await longest} ms`);
      assert.ok(peak < limit, `the server's memory has been ${peak / MIB} MiB, allowed are ${limit / MIB}`);
      assert.ok((await longest) < LONGEST_WAIT_MS, `another client has waited for ${await longest} ms`);
    });
  }
});
