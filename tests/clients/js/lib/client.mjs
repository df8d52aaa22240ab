// A client of the `/sync` namespace that remembers all it was told.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { TRANSPORTS } from './transports.mjs';
import { SOON_MS, defer, within } from './wait.mjs';

let count = 0;

export class Client {
  /** Everything received, in order: `{ event, payload, at }`. Acks are entered as `ack:<event>`. */
  events = [];
  #inbox = [];
  #waiting = [];
  #sockets = new Set();

  /**
   * Options: `transport` (see `transports.mjs`), `token`, `auth`, `via` (a `Proxy`), `name` (for messages),
   * and those of socket.io-client under `options`.
   */
  constructor(server, { transport = 'websocket', token, auth, via, name, options = {} } = {}) {
    this.name = name ?? `client ${++count}`;
    this.server = server;
    server.clients.add(this);
    this.socket = io(`${via?.url ?? server.url}/sync`, {
      path: '/socket.io/',
      transports: TRANSPORTS[transport],
      auth: auth ?? (token === undefined ? {} : { token }),
      forceNew: true,
      reconnection: false,
      ...options,
    });
    this.token = auth?.token ?? token;
    this.socket.onAny((event, ...args) => this.#receive(event, args[0]));
    for (const event of ['connect', 'disconnect', 'connect_error']) {
      this.socket.on(event, (detail) => {
        if (event === 'connect') this.#remember();
        this.#receive(event, detail instanceof Error ? { message: detail.message, data: detail.data } : detail);
      });
    }
  }

  #remember() {
    this.#sockets.add(this.socket.id);
    const sid = this.socket.io.engine?.id;
    if (sid) this.#sockets.add(sid);
  }

  #receive(event, payload) {
    const entry = { event, payload, at: Date.now() };
    this.events.push(entry);
    const index = this.#waiting.findIndex((wait) => wait.event === event && wait.where(payload));
    if (index >= 0) this.#waiting.splice(index, 1)[0].resolve(payload);
    else this.#inbox.push(entry);
  }

  /** The next `event` that no earlier call has taken and that `where` accepts. */
  next(event, where = () => true, ms = SOON_MS) {
    const index = this.#inbox.findIndex((entry) => entry.event === event && where(entry.payload));
    if (index >= 0) return Promise.resolve(this.#inbox.splice(index, 1)[0].payload);
    const wait = { event, where, ...defer() };
    this.#waiting.push(wait);
    const what = () => `${event} at ${this.name}; it got ${JSON.stringify(this.events.slice(-12))}`;
    return within(ms, what, wait.promise).finally(() => {
      const at = this.#waiting.indexOf(wait);
      if (at >= 0) this.#waiting.splice(at, 1);
    });
  }

  /** All payloads of `event` so far, taken or not. */
  all(event) {
    return this.events.filter((entry) => entry.event === event).map((entry) => entry.payload);
  }

  /** Forgets what has come so far, so that `next` speaks of the future. */
  forget() {
    this.#inbox.length = 0;
    return this;
  }

  /** A mark for `since`. */
  mark() {
    return this.events.length;
  }

  /** Names of the room events since `mark`; the socket's own and acks are left out. */
  since(mark) {
    const own = ['connect', 'disconnect', 'connect_error'];
    return this.events
      .slice(mark)
      .map(({ event }) => event)
      .filter((event) => !own.includes(event) && !event.startsWith('ack:'));
  }

  /** Emits with an acknowledgement and answers it, whatever it says. */
  async ask(event, ...args) {
    const answer = await within(
      SOON_MS,
      () => `the ack of ${event} at ${this.name}; it got ${JSON.stringify(this.events.slice(-12))}`,
      new Promise((resolve) => this.socket.emit(event, ...args, resolve)),
    );
    this.events.push({ event: `ack:${event}`, payload: answer, at: Date.now() });
    return answer;
  }

  /** Emits and expects `ok: true`. */
  async must(event, ...args) {
    const answer = await this.ask(event, ...args);
    assert.equal(answer?.ok, true, `${event} at ${this.name}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Emits and expects this error: in the ack and, the same, as `room:error`. Answers the ack's error. */
  async refused(code, event, ...args) {
    this.#inbox = this.#inbox.filter((entry) => entry.event !== 'room:error');
    const answer = await this.ask(event, ...args);
    assert.equal(answer?.ok, false, `${event} at ${this.name} should fail: ${JSON.stringify(answer)}`);
    assert.deepEqual(Object.keys(answer).sort(), ['error', 'ok']);
    assert.equal(answer.error.code, code, JSON.stringify(answer));
    assert.equal(typeof answer.error.message, 'string');
    assert.notEqual(answer.error.message, '');
    const told = await this.next('room:error');
    assert.equal(told.code, code, JSON.stringify(told));
    assert.equal(told.message, answer.error.message);
    if ('event' in told) assert.equal(told.event, event);
    return answer.error;
  }

  /** Joins and answers the `room:state` value. */
  async join(room, payload = {}) {
    const roomCode = typeof room === 'string' ? room : room.code;
    const ack = await this.must('room:join', { roomCode, ...payload });
    const state = await this.next('room:state');
    assert.deepEqual(state, without(ack, 'ok'), 'the ack of room:join carries the room:state value');
    this.self = state.self;
    this.oderId = state.self.oderId;
    return state;
  }

  /** Waits until the namespace lets it in. */
  async connected() {
    const refused = defer();
    const onError = (error) => refused.reject(new Error(`${this.name} was refused: ${error.message} ${JSON.stringify(error.data)}`));
    this.socket.once('connect_error', onError);
    await Promise.race([this.next('connect'), refused.promise]);
    this.socket.off('connect_error', onError);
    return this;
  }

  /** Waits until the engine runs on a websocket. */
  async upgraded() {
    const engine = this.socket.io.engine;
    if (engine.transport.name !== 'websocket') {
      await within(SOON_MS, `the upgrade of ${this.name}`, new Promise((resolve) => engine.once('upgrade', resolve)));
    }
    return this;
  }

  /** Ends without asking anyone. */
  close() {
    this.socket.disconnect();
    this.socket.io.engine?.close();
  }

  /** What nobody but this client and the server may know. */
  get secrets() {
    const tokens = this.events.flatMap(({ payload }) => payload?.self?.resumeToken ?? []);
    return new Set([...this.#sockets, ...tokens, ...(this.token && this.token.length > 20 ? [this.token] : [])]);
  }

  owns(secret) {
    return this.secrets.has(secret);
  }
}

/** Opens a client and waits until it is in the namespace. */
export async function connect(server, options) {
  const client = new Client(server, options);
  await client.connected();
  return client;
}

/** `value` less the named keys. */
export function without(value, ...keys) {
  return Object.fromEntries(Object.entries(value).filter(([key]) => !keys.includes(key)));
}
