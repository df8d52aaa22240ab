// The same chat as socketio/examples/cluster.rs, on socket.io.
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const TIMEOUT_MS = 2_000;

const describe = ({ id, rooms, data }) => ({ id, rooms: [...rooms].filter((room) => room !== id), data });

function chat(io) {
  io.on('connection', (socket) => {
    socket.on('join', (room, ack) => {
      socket.join(room);
      socket.data.joined = room;
      ack();
    });
    socket.on('keep', (what, ack) => {
      socket.data.kept = what;
      ack?.();
    });
    socket.on('say', (...what) => io.to('lobby').emit('said', ...what));
    socket.on('whisper', ([to, text]) => socket.to(to).except('deaf').emit('whispered', text));
    socket.on('who', async (ack) => ack((await io.fetchSockets()).map(describe)));
    socket.on('ask', (question, ack) => {
      io.timeout(TIMEOUT_MS).emit('question', question, (error, answers) => ack(answers, !error));
    });
    socket.on('move', ([from, to]) => {
      io.in(from).socketsJoin(to);
      io.in(from).socketsLeave(from);
    });
    socket.on('kick', (room) => io.in(room).disconnectSockets(true));
    socket.on('tell servers', (text) => io.serverSideEmit('told', text));
    socket.on('ask servers', ([a, b], ack) => io.serverSideEmit('add', a, b, (_error, sums) => ack(sums)));
  });
  io.on('told', (text) => io.local.emit('servers told', text));
  io.on('add', (a, b, ack) => ack(a + b));
}

/** Serves on a free port; the answer closes it. */
export async function startNode(mode, url) {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const adapter = mode === 'sharded' ? createShardedAdapter(publisher, subscriber) : createAdapter(publisher, subscriber);
  const io = new Server(0, { adapter });
  chat(io);
  await new Promise((resolve) => io.httpServer.once('listening', resolve));
  return {
    port: io.httpServer.address().port,
    async close() {
      await io.close();
      await Promise.all([publisher.quit(), subscriber.quit()]); // behind what the adapter still says
    },
  };
}
