// The `/sync` contract on Socket.IO, Redis and PostgreSQL. Settings: PORT, REDIS_URL, DATABASE_URL, JWT_SECRET,
// RECONNECT_GRACE_MS, and `--adapter` for more than one instance.
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import jwt from 'jsonwebtoken';
import { Server } from 'socket.io';
import { Refusal } from './refusal.mjs';
import { rest } from './rest.mjs';
import { State } from './state.mjs';
import { Store } from './store.mjs';
import { serveSync } from './sync.mjs';

const { PORT = '4000', REDIS_URL, DATABASE_URL, RECONNECT_GRACE_MS = '20000' } = process.env;
const secret = process.env.JWT_SECRET ?? randomBytes(32).toString('hex');

const tokens = {
  verify(token) {
    try {
      const claims = jwt.verify(token, secret, { algorithms: ['HS256'] });
      return { userId: claims.userId ?? claims.sub, username: claims.username };
    } catch (error) {
      throw new Refusal('INVALID_TOKEN', error.message);
    }
  },
  issue: (userId) => jwt.sign({ userId }, secret, { expiresIn: '24h' }),
};

const store = new Store(DATABASE_URL);
await store.open();
const state = new State(REDIS_URL);
const http = createServer(rest({ store, state, tokens }));
const io = new Server(http, {
  pingInterval: 25_000,
  pingTimeout: 10_000,
  serveClient: false,
  adapter: process.argv.includes('--adapter') ? createAdapter(state.duplicate(), state.duplicate()) : undefined,
});
// As the documentation of Socket.IO advises for the memory of connections.
io.engine.on('connection', (rawSocket) => {
  rawSocket.request = null;
});
serveSync({ io, store, state, tokens, graceMs: Number(RECONNECT_GRACE_MS) });
http.listen({ port: Number(PORT), host: '127.0.0.1' });
