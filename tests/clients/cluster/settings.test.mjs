// The published client with options, and what other clients send, against one server with the settings for them.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { freePort, start } from './processes.mjs';

const BINARY = process.env.SETTINGS_BIN;
const DEADLINE_MS = 20_000;

/** Has the tests of a suite served with these settings. */
function useServer(...settings) {
  const server = {};
  let kill;
  before(async () => {
    const port = await freePort();
    kill = await start(BINARY, [port, ...settings], port);
    server.url = `http://127.0.0.1:${port}`;
  });
  after(() => kill());
  return server;
}

/** Connects, and ends with the error that keeps it from that, if one does. */
function connect(server, options) {
  const socket = io(server.url, { forceNew: true, reconnection: false, timeout: DEADLINE_MS, ...options });
  return new Promise((resolve, reject) => {
    socket.on('connect', () => resolve(socket));
    socket.on('connect_error', (error) => reject(error));
  });
}

async function echoes(server, options) {
  const socket = await connect(server, options);
  assert.equal(await socket.timeout(DEADLINE_MS).emitWithAck('echo', 'hello'), 'hello');
  return socket;
}

const upgraded = (socket) =>
  socket.io.engine.transport.name === 'websocket' || new Promise((resolve) => socket.io.engine.once('upgrade', resolve));

const WAYS = { polling: ['polling'], websocket: ['websocket'], both: ['polling', 'websocket'] };

describe('with the default settings', () => {
  const server = useServer();

  for (const [way, transports] of Object.entries(WAYS)) {
    test(`subprotocols are answered with the first, by ${way}`, async () => {
      const socket = await echoes(server, { transports, protocols: ['my-proto', 'another'] });
      if (way !== 'polling') {
        await upgraded(socket);
        assert.equal(socket.io.engine.transport.ws.protocol, 'my-proto');
      }
      assert.equal(await socket.timeout(DEADLINE_MS).emitWithAck('echo', 'still'), 'still');
      socket.close();
    });

    test(`a client without the slash finds nothing, by ${way}`, async () => {
      await assert.rejects(connect(server, { transports, addTrailingSlash: false }));
    });
  }

  test('the own origin is known as Swift and browsers write it', async () => {
    const headers = [
      { Host: 'watch.example:443', Origin: 'wss://watch.example' },
      { Host: 'watch.example', Origin: 'wss://watch.example' },
      { Host: 'watch.example:443', Origin: 'https://watch.example' },
      { Host: 'watch.example:8080', Origin: 'ws://watch.example:8080' },
    ];
    for (const extraHeaders of headers) {
      (await echoes(server, { transports: ['websocket'], extraHeaders })).close();
    }
  });

  test('a foreign origin is refused', async () => {
    for (const Origin of ['wss://evil.example', 'file://', 'null']) {
      const extraHeaders = { Host: 'watch.example:443', Origin };
      await assert.rejects(connect(server, { transports: ['websocket'], extraHeaders }), Origin);
    }
  });

  test('parameters of the query that are not the server’s make no difference', async () => {
    for (const transports of Object.values(WAYS)) {
      const query = { b64: '1', t: 'x y', 'a b': 'ü&=+', list: ['1', '2'], empty: '' };
      (await echoes(server, { transports, query, timestampRequests: true })).close();
    }
    (await echoes(server, { transports: ['websocket'], query: { j: '1' } })).close();
  });
});

describe('with add_trailing_slash=false', () => {
  const server = useServer('add_trailing_slash=false');

  for (const [way, transports] of Object.entries(WAYS)) {
    for (const addTrailingSlash of [false, true]) {
      test(`clients connect with addTrailingSlash: ${addTrailingSlash}, by ${way}`, async () => {
        const socket = await echoes(server, { transports, addTrailingSlash });
        if (way !== 'polling') await upgraded(socket);
        socket.close();
      });
    }
  }
});

describe('with path=/', () => {
  const server = useServer('path=/');

  for (const [way, transports] of Object.entries(WAYS)) {
    test(`clients connect at the root, by ${way}`, async () => {
      const socket = await echoes(server, { transports, path: '/' });
      if (way !== 'polling') await upgraded(socket);
      socket.close();
    });
  }
});

describe('with max_payload_bytes=100000000', () => {
  const server = useServer('max_payload_bytes=100000000');

  for (const [way, transports] of Object.entries(WAYS)) {
    test(`an attachment of 4.1 MB is taken, by ${way}`, async () => {
      const socket = await connect(server, { transports });
      const bytes = Buffer.alloc(4_100_000, 7);
      assert.equal(await socket.timeout(DEADLINE_MS).emitWithAck('measure', bytes), bytes.length);
      socket.close();
    });
  }
});

describe('with origins=file://,https://app.example', () => {
  const server = useServer('origins=file://,https://app.example');

  test('what is listed is let in, and nothing else', async () => {
    for (const Origin of ['file://', 'https://app.example']) {
      (await echoes(server, { transports: ['websocket'], extraHeaders: { Origin } })).close();
    }
    for (const Origin of ['null', 'http://app.example', 'wss://app.example']) {
      await assert.rejects(connect(server, { transports: ['websocket'], extraHeaders: { Origin } }), Origin);
    }
  });
});
