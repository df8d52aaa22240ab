// The published client, cut off and back again, at the example server with connection state recovery.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect } from 'node:net';
import { after, before, test } from 'node:test';
import { io } from 'socket.io-client';

let server;
let url;

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

async function until(what, condition) {
  const end = Date.now() + 15_000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const isUp = (port) =>
  new Promise((resolve) => {
    const probe = connect(port, '127.0.0.1', () => (probe.destroy(), resolve(true)));
    probe.on('error', () => resolve(false));
  });

before(async () => {
  const port = await freePort();
  server = spawn(process.env.FANOUT_BIN, ['--port', `${port}`, '--recovery', '1'], { stdio: 'inherit' });
  process.on('exit', () => server.kill('SIGKILL'));
  url = `http://127.0.0.1:${port}/bench`;
  await until('the server listens', () => isUp(port));
});

after(() => server.kill('SIGKILL'));

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
