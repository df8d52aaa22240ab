// Servers of ours and of socket.io as one cluster: what either does reaches the clients of both.
//
//   CLUSTER_BIN=path/to/example/cluster node --test
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { io } from 'socket.io-client';
import { freePort, start, startRedis } from './processes.mjs';
import { startNode } from './server.mjs';

const DEADLINE_MS = 20_000;

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A client that keeps what it is sent. */
class Client {
  #received = [];
  #waiting;
  #packets = [];
  #fetching;
  /** The arguments with which questions are answered, as JSON text. */
  answer;

  static async open(port, room) {
    const client = new Client();
    client.socket = io(`http://127.0.0.1:${port}`, { forceNew: true, transports: ['websocket'], reconnection: false });
    client.socket.onAny((name, ...args) => {
      const ack = typeof args.at(-1) === 'function' ? args.pop() : undefined;
      if (!client.answer) ack?.(`answer of ${room}`);
      client.#received.push([name, ...args]);
      client.#waiting?.();
    });
    await within('a connection', new Promise((resolve, reject) => {
      client.socket.once('connect', resolve).once('connect_error', reject);
    }));
    client.id = client.socket.id;
    client.socket.io.engine.on('data', (packet) => {
      const id = client.answer && /^2(\d+)\["question"/.exec(packet)?.[1];
      if (id) client.write(`3${id}[${client.answer}]`);
      client.#packets.push(packet);
      client.#fetching?.();
    });
    await client.ask('join', room);
    return client;
  }

  emit(...args) {
    this.socket.emit(...args);
  }

  /** Sends a packet as it is. */
  write(...parts) {
    for (const part of parts) this.socket.io.engine.write(part);
  }

  /** The next packet that begins like this, as it is: what comes before is forgotten. */
  packet(start) {
    const found = new Promise((resolve) => {
      this.#fetching = () => {
        while (this.#packets.length > 0) {
          const packet = this.#packets.shift();
          if (typeof packet !== 'string' || !packet.startsWith(start)) continue;
          this.#fetching = undefined;
          resolve(packet);
          return;
        }
      };
      this.#fetching();
    });
    return within(`a packet that begins with ${start}`, found);
  }

  ask(...args) {
    return within(`the answer to ${args[0]}`, this.socket.emitWithAck(...args));
  }

  /** The next event, with its arguments. */
  next() {
    return within('an event', new Promise((resolve) => {
      this.#waiting = () => {
        if (this.#received.length === 0) return;
        this.#waiting = undefined;
        resolve(this.#received.shift());
      };
      this.#waiting();
    }));
  }

  async expect(...event) {
    assert.deepEqual(await this.next(), event);
  }
}

/** Calls until the answer is as wanted: the servers need a moment to see each other, and commands to arrive. */
async function until(what, ask, wanted) {
  const tried = async () => {
    for (;;) {
      const answer = await ask();
      if (wanted(answer)) return answer;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return within(what, tried());
}

for (const mode of ['classic', 'sharded']) {
  describe(`a ${mode} cluster`, () => {
    let url, ends, ports;

    before(async () => {
      const redis = await startRedis();
      url = redis.url;
      const node = await startNode(mode, url);
      const ours = await freePort();
      const endOurs = await start(process.env.CLUSTER_BIN, [ours, url, mode], ours);
      ends = [() => node.close(), endOurs, redis.end];
      ports = { ours, node: node.port };
    });
    after(async () => {
      for (const end of ends ?? []) await end();
    });

    const both = [['ours', 'node'], ['node', 'ours']];
    for (const [here, there] of both) {
      test(`what a client of ${here} does reaches those of both`, async () => {
        const a = await Client.open(ports[here], 'lobby');
        const b = await Client.open(ports[there], 'lobby');
        const c = await Client.open(ports[there], 'other');
        const all = [a, b, c];
        try {
          await until('everybody to be seen', () => a.ask('who'), (who) => who.length === 3);
          // Their subscriptions to rooms travel on another way than questions.
          const reached = new Promise((resolve) => {
            const trying = setInterval(() => a.emit('whisper', ['lobby', 'trying']), 20);
            b.socket.once('whispered', () => (clearInterval(trying), resolve()));
          });
          await within('the subscription', reached);
          const settled = async (client) => {
            let event;
            do event = await client.next();
            while (event[0] === 'whispered');
            return event;
          };

          const nested = { n: [1.5, -7, 2 ** 40, null, true, 'ü'], s: { '': 'x'.repeat(300) } };
          a.emit('say', 'hello', nested);
          assert.deepEqual(await settled(a), ['said', 'hello', nested]);
          assert.deepEqual(await settled(b), ['said', 'hello', nested]);
          const bytes = Buffer.from([0, 1, 254, 255]);
          a.emit('say', { deep: [bytes] }, 'and', bytes);
          for (const client of [a, b]) {
            const [name, { deep }, and, last] = await client.next();
            assert.deepEqual([name, and, Buffer.from(deep[0]), Buffer.from(last)], ['said', 'and', bytes, bytes]);
          }

          a.emit('whisper', [c.id, 'psst']);
          await c.expect('whispered', 'psst');

          const who = await a.ask('who');
          const known = Object.fromEntries(who.map(({ id, rooms, data }) => [id, { rooms, data }]));
          assert.deepEqual(known, {
            [a.id]: { rooms: ['lobby'], data: { joined: 'lobby' } },
            [b.id]: { rooms: ['lobby'], data: { joined: 'lobby' } },
            [c.id]: { rooms: ['other'], data: { joined: 'other' } },
          });

          const asked = await new Promise((resolve) => a.socket.emit('ask', 'how?', (...answer) => resolve(answer)));
          assert.deepEqual([asked[0].sort(), asked[1]], [['answer of lobby', 'answer of lobby', 'answer of other'], true]);
          for (const client of all) await client.expect('question', 'how?');

          assert.deepEqual(await a.ask('ask servers', [20, 22]), [42]);
          a.emit('tell servers', 'news');
          await b.expect('servers told', 'news');
          await c.expect('servers told', 'news');

          a.emit('move', ['other', 'deaf']);
          const rooms = async () => (await a.ask('who')).find(({ id }) => id === c.id).rooms;
          await until('the move', rooms, (rooms) => rooms.length === 1 && rooms[0] === 'deaf');
          a.emit('whisper', [c.id, 'not heard']);
          a.emit('whisper', [b.id, 'heard']);
          await b.expect('whispered', 'heard');

          const gone = new Promise((resolve) => c.socket.once('disconnect', resolve));
          a.emit('kick', 'deaf');
          assert.equal(await within('the end', gone), 'io server disconnect');
          await until('one to be gone', () => a.ask('who'), (who) => who.length === 2);
        } finally {
          all.forEach(({ socket }) => socket.disconnect());
        }
      });
    }

    test('ours deliver the same bytes, and socket.io what JSON.parse makes of them', async () => {
      const twin = await freePort();
      const endTwin = await start(process.env.CLUSTER_BIN, [twin, url, mode], twin);
      const all = [];
      try {
        for (const port of [ports.ours, twin, ports.node]) all.push(await Client.open(port, 'lobby'));
        const [a, b, c] = all;
        await until('everybody to be seen', () => a.ask('who'), (who) => who.length === 3);
        for (const client of [b, c]) {
          const trying = setInterval(() => a.emit('whisper', ['lobby', 'trying']), 20);
          await client.packet('2["whispered"').finally(() => clearInterval(trying));
        }
        // In MessagePack half of a surrogate pair is lost between two servers of socket.io too.
        const half = mode === 'classic' ? '"x\ufffd"' : '"x\\ud83d"';
        for (const [text, parsed] of [
          ['"x\\ud83d"', half],
          ['1e400', 'null'], // as JSON.stringify writes Infinity
          ['123456789012345678901234567890,9007199254740993', '1.2345678901234568e+29,9007199254740992'],
          ['{"b":1,"a":2}', '{"b":1,"a":2}'],
          ['1.0,-0,1E2,0.10', '1,0,100,0.1'],
          ['[ 1 ]', '[1]'],
          ['{"a":1,"a":2}', '{"a":2}'],
          ['"\\u0041"', '"A"'],
        ]) {
          a.write(`2["say",${text}]`);
          for (const client of [a, b]) assert.equal(await client.packet('2["said"'), `2["said",${text}]`);
          assert.equal(await c.packet('2["said"'), `2["said",${parsed}]`);
        }
        const swapped = '{"_placeholder":true,"num":1},1.0,{"_placeholder":true,"num":0}';
        all.forEach((client) => client.socket.once('said', (...what) => (client.said = what)));
        a.write(`52-["say",${swapped}]`, Buffer.from([1]), Buffer.from([2]));
        for (const client of [a, b]) assert.equal(await client.packet('5'), `52-["said",${swapped}]`);
        assert.equal(await c.packet('5'), '52-["said",{"_placeholder":true,"num":0},1,{"_placeholder":true,"num":1}]');
        for (const client of all) {
          const said = () => client.said?.map((what) => (typeof what === 'number' ? what : [...Buffer.from(what)]));
          await until('the attachments', async () => said(), (said) => said !== undefined);
          assert.deepEqual(said(), [[2], 1, [1]]);
        }

        a.answer = '"x\\ud83d",2';
        const [answers, complete] = await new Promise((resolve) => {
          c.socket.emit('ask', 'how?', (...answer) => resolve(answer));
        });
        assert.ok(complete && answers.includes(JSON.parse(half)), JSON.stringify(answers));
        b.socket.emit('ask', 'how?', () => {});
        assert.ok((await b.packet('3')).includes('"x\\ud83d"'));

        const kept = '{"b":1.0,"a":"\\ud83d"}';
        a.write(`2["keep",${kept}]`);
        await until('the data', () => c.ask('who'), (who) => JSON.stringify(who).includes('"a":"\\ud83d"'));
        const who = (await until('the answer', () => (b.emit('who', () => {}), b.packet('3')), () => true)).toString();
        assert.ok(who.includes(`"data":{"kept":${kept}}`), who);
        await c.ask('keep', { file: Buffer.from([7]) });
        const known = (await b.ask('who')).find(({ id }) => id === c.id).data.kept.file;
        // The classic adapter writes JSON here.
        assert.deepEqual(mode === 'classic' ? known.data : [...Buffer.from(known)], [7]);
      } finally {
        all.forEach(({ socket }) => socket.disconnect());
        await endTwin();
      }
    });

    // The emitter knows the classic format alone.
    if (mode === 'classic') {
      test('the emitter reaches the clients of both', async () => {
        const publisher = createClient({ url });
        await publisher.connect();
        const emitter = new Emitter(publisher);
        const a = await Client.open(ports.ours, 'lobby');
        const b = await Client.open(ports.node, 'other');
        try {
          await until('both to be seen', () => b.ask('who'), (who) => who.length === 2);
          emitter.emit('all', 1, Buffer.from([7]), new Date(0));
          for (const client of [a, b]) {
            const [name, one, bytes, date] = await client.next();
            assert.deepEqual([name, one, [...Buffer.from(bytes)], date], ['all', 1, [7], '1970-01-01T00:00:00.000Z']);
          }
          emitter.to(a.id).emit('you');
          await a.expect('you');
          emitter.to(['lobby', 'other']).except('other').emit('lobby');
          await a.expect('lobby');
          emitter.serverSideEmit('told', 'by the emitter');
          await a.expect('servers told', 'by the emitter');
          await b.expect('servers told', 'by the emitter');
          emitter.in('lobby').socketsJoin('more');
          const rooms = async () => (await b.ask('who')).find(({ id }) => id === a.id).rooms;
          await until('the join', rooms, (rooms) => rooms.includes('more'));
          const gone = new Promise((resolve) => a.socket.once('disconnect', resolve));
          emitter.in('more').disconnectSockets(true);
          await within('the end', gone);
        } finally {
          [a, b].forEach(({ socket }) => socket.disconnect());
          await publisher.quit();
        }
      });
    }
  });
}
