/**
 * A reference client for SyncWatch: one WebSocket, no dependencies.
 *
 *     import { SyncWatch } from "https://watch.example/client.js";
 *     const sync = new SyncWatch({ url: "https://watch.example" }); // or "https://example.org/watch/", with the slash
 *     sync.addEventListener("change", () => console.log(sync.participants, sync.playback));
 *     await sync.join({ roomCode: "ABCD2345", guestName: "Ada" });
 *     setInterval(() => console.log(sync.position()), 1000);
 *
 * It speaks as much of Engine.IO 4 and Socket.IO 5 as the `/sync` namespace needs: text packets over WebSocket. It keeps
 * the connection up, takes its seat again after a loss, follows the server's clock, and knows where playback is.
 *
 * Every event of the server is dispatched under its own name once it has been applied, its payload in `event.detail`.
 * Three more are the client's own:
 * - `status`: the connection changed; `{ status, error?, retryInMs? }`
 * - `change`: `room`, `participants` or `playback` changed
 * - `left`: the seat is gone and will not be taken again; `{ reason, message?, error? }`
 *
 * @module
 */

const NAMESPACE = "/sync";
/** From opening the socket to the namespace's answer. */
const CONNECT_TIMEOUT_MS = 10_000;
const ACK_TIMEOUT_MS = 10_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_LAST_MS = 15_000;
/** A close code that is neither "leaving" (1000) nor "tab closed" (1001), so that the seat is kept for the grace period. */
const CLOSE_COMING_BACK = 4000;
/** Refusals of a rejoin that a later attempt may not meet; any other gives the seat up. */
const TRANSIENT = new Set(["TIMEOUT", "DISCONNECTED", "UNAVAILABLE", "RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR"]);
/** What a client without a seat may hear. */
const UNSEATED_EVENTS = new Set(["time:pong", "room:state", "room:error", "server:shutdown"]);

/** Why a request failed: a code of the server's, or `TIMEOUT`, `DISCONNECTED` of the client's own. */
export class SyncWatchError extends Error {
  /** @param {{ code: string, message: string, retryAfterMs?: number }} error @param {string} [event] what was asked */
  constructor({ code, message, ...details }, event) {
    super(message);
    Object.assign(this, details, { name: "SyncWatchError", code, event });
  }
}

/**
 * Estimates the server's clock. The offset of a sample is off by at most half its round trip, so the sample with the
 * shortest one wins; samples that contradict each other mean that a clock jumped (a laptop slept), and the old ones go.
 */
export class ServerClock {
  static #KEPT = 15;
  static #DRIFT_SLACK_MS = 10;
  #samples = [];
  /** Until the first sample the local wall clock has to do. */
  #best = { offset: Date.now() - performance.now(), roundTrip: Infinity };

  /** Takes in an exchange: both ends in local `performance.now()` time, the server's time in between. */
  add(sentAt, receivedAt, serverTime) {
    this.#take({ offset: serverTime - (sentAt + receivedAt) / 2, roundTrip: receivedAt - sentAt });
  }

  /** Takes in a time the server sent unasked: right but for the way here, so any real exchange beats it. */
  hint(serverTime) {
    if (this.#samples.length === 0) this.#best = { offset: serverTime - performance.now(), roundTrip: Infinity };
  }

  #take(sample) {
    const error = (sample.roundTrip + this.#best.roundTrip) / 2 + ServerClock.#DRIFT_SLACK_MS;
    if (Math.abs(sample.offset - this.#best.offset) > error) this.#samples = [];
    this.#samples = [...this.#samples, sample].slice(-ServerClock.#KEPT);
    this.#best = this.#samples.reduce((best, next) => (next.roundTrip <= best.roundTrip ? next : best));
  }

  /** Server time now, Unix milliseconds. */
  now() {
    return performance.now() + this.#best.offset;
  }

  /** Round trip of the sample in use, milliseconds; the estimate is at most half of it off. `Infinity`: none yet. */
  get roundTrip() {
    return this.#best.roundTrip;
  }
}

/** Where `state` is at server time `t`, milliseconds of media time. A command that is yet to take effect moves nothing. */
export function positionAt(state, t) {
  const elapsed = state.isPlaying ? Math.max(0, t - state.anchorServerTimeMs) * state.playbackRate : 0;
  return Math.max(0, state.anchorMediaTimeMs + elapsed);
}

/** One participant of at most one room. */
export class SyncWatch extends EventTarget {
  #options;
  #socket = null;
  #connected = false;
  #status = "closed";
  /** How long the server may be silent: first until the namespace answers, then a whole heartbeat. */
  #silenceLimitMs = CONNECT_TIMEOUT_MS;
  #heartbeatMs = 0;
  #heardAt = 0;
  #onlineSince = Infinity;
  #timers = { silence: 0, retry: 0, clock: 0 };
  #attempt = 0;
  #notBefore = 0;
  #acks = new Map();
  #nextAck = 0;
  #pings = new Map();
  /** The seat that is wanted, as a `room:join` payload with the latest `resumeToken`; null outside a room. */
  #request = null;
  /** Whether this connection has had its `room:state`. */
  #seated = false;
  /** The state in force, then those still to come (a command takes effect a little after it is sent). */
  #timeline = [];

  clock = new ServerClock();
  /** The `Room`, null outside one. */
  room = null;
  /** `RoomParticipant` by `oderId`, in the order they joined. */
  participants = new Map();
  /** The caller's own `oderId`. */
  oderId = null;

  /**
   * @param {object} [options]
   * @param {string} [options.url] the server; default: where the page came from
   * @param {string | (() => string | undefined | Promise<string | undefined>)} [options.token] a JWT, or what fetches a
   *   fresh one for each connection; none: a guest
   * @param {typeof WebSocket} [options.WebSocket] for runtimes without one of their own
   */
  constructor(options = {}) {
    super();
    this.#options = options;
    // A device that is back on its network need not sit out the backoff.
    globalThis.addEventListener?.("online", () => this.#status === "waiting" && this.connect());
  }

  /** `closed`, `connecting` (rejoining included), `online`, or `waiting` for the next attempt. */
  get status() {
    return this.#status;
  }

  /** The newest `PlaybackState`, in force or about to be; null without a source. */
  get playback() {
    return this.#timeline.at(-1) ?? null;
  }

  /** The caller as a `RoomParticipant`; null outside a room. */
  get self() {
    return this.participants.get(this.oderId) ?? null;
  }

  get isOwner() {
    return this.self?.role === "owner";
  }

  /** Whether the server would take a playback command from the caller. */
  get canControl() {
    if (!this.self || this.isOwner) return this.isOwner;
    if (this.room.playbackControl === "all") return this.self.role !== "guest";
    return this.room.playbackControl === "selected" && this.self.canControl;
  }

  /** Estimated server time, Unix milliseconds. */
  serverNow() {
    return this.clock.now();
  }

  /** The `PlaybackState` in force at server time `t`. */
  playbackAt(t = this.serverNow()) {
    return this.#timeline.findLast((state) => state.anchorServerTimeMs <= t) ?? this.#timeline[0] ?? null;
  }

  /** Media time at server time `t`, milliseconds; 0 without a source. */
  position(t = this.serverNow()) {
    const state = this.playbackAt(t);
    return state ? positionAt(state, t) : 0;
  }

  // --- Requests. Each resolves with the server's answer or rejects with a SyncWatchError.

  /** Connects at once and keeps the connection until `close()`. `join` does this on its own. */
  connect() {
    if (this.#socket) return;
    clearTimeout(this.#timers.retry);
    const url = new URL("socket.io/?EIO=4&transport=websocket", this.#options.url ?? globalThis.location?.origin);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new (this.#options.WebSocket ?? WebSocket)(url);
    this.#socket = socket;
    this.#heardAt = performance.now();
    this.#silenceLimitMs = CONNECT_TIMEOUT_MS;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = () => socket === this.#socket && this.#lost();
    this.#watchSilence();
    this.#setStatus("connecting");
  }

  /** Takes a seat. @param {{ roomCode: string, guestName?: string, password?: string, resumeToken?: string }} request */
  async join(request) {
    this.connect();
    await this.#online();
    if (this.#request) throw new SyncWatchError({ code: "ALREADY_IN_ROOM", message: "Already in a room" }, "room:join");
    this.#request = { ...request };
    try {
      await this.#enter();
    } catch (error) {
      // Nobody waits for a seat that comes late. The server handles requests in order.
      if (error.code === "TIMEOUT" && this.#connected) this.#emit("room:leave", {});
      this.#forget({ reason: "refused", error });
      throw error;
    }
    return this.room;
  }

  /** Gives the seat up for good. */
  async leave() {
    const left = this.#connected && this.#request && this.request("room:leave", {});
    this.#forget({ reason: "leave" });
    await left;
  }

  /** Leaves and closes the connection for good. */
  close() {
    if (this.#connected) this.#send(`41${NAMESPACE},`);
    this.#forget({ reason: "leave" });
    this.#end(1000);
    this.#setStatus("closed");
  }

  play = () => this.request("sync:play", {});
  pause = () => this.request("sync:pause", {});
  /** @param {number} targetMediaTime milliseconds */
  seek = (targetMediaTime) => this.request("sync:seek", { targetMediaTime });
  /** @param {number} rate 0.1 to 4 */
  setRate = (rate) => this.request("sync:rate", { rate });
  /** @param {"upload" | "youtube" | "external"} sourceType */
  setSource = (sourceType, sourceId, startMediaTimeMs = 0) =>
    this.request("sync:source", { sourceType, sourceId, startMediaTimeMs });
  resync = () => this.request("sync:resync", { lastSequence: this.playback?.sequenceNumber ?? 0 });
  /** The owner's: what the room is like. */
  update = (changes) => this.request("room:update", changes);
  /** The owner's: who may control a `selected` room. */
  grant = (oderId, canControl) => this.request("room:grant", { oderId, canControl });
  kick = (oderId, reason) => this.request("room:kick", { oderId, reason });
  transfer = (oderId) => this.request("room:transfer", { oderId });

  /** Sends any event and waits for its acknowledgement. */
  request(event, data, timeoutMs = ACK_TIMEOUT_MS) {
    const failure = (code, message) => new SyncWatchError({ code, message }, event);
    if (!this.#connected) return Promise.reject(failure("DISCONNECTED", "Not connected to the server"));
    return new Promise((resolve, reject) => {
      const id = this.#nextAck++;
      const settle = (answer, local) => {
        clearTimeout(timer);
        this.#acks.delete(id);
        if (local) reject(failure(...local));
        else if (answer?.ok === false) reject(new SyncWatchError(answer.error, event));
        else resolve(answer);
      };
      const timer = setTimeout(settle, timeoutMs, null, ["TIMEOUT", "The server did not answer in time"]);
      this.#acks.set(id, settle);
      this.#emit(event, data, id);
    });
  }

  // --- The connection

  #emit(event, data, ackId = "") {
    this.#send(`42${NAMESPACE},${ackId}${JSON.stringify([event, data])}`);
  }

  /** A socket on its way down takes nothing any more; its `close` event will tell those who wait. */
  #send(frame) {
    if (this.#socket.readyState === 1) this.#socket.send(frame);
  }

  #receive(frame) {
    if (typeof frame !== "string") return; // binary is not part of this namespace
    this.#heardAt = performance.now();
    try {
      if (frame[0] === "0") this.#open(JSON.parse(frame.slice(1)));
      else if (frame[0] === "1") this.#drop();
      else if (frame[0] === "2") this.#send("3" + frame.slice(1));
      else if (frame[0] === "4") this.#packet(frame);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      this.#drop(); // what does not parse did not come from a SyncWatch server
    }
  }

  /** Engine.IO is open: asks for the namespace. */
  async #open({ pingInterval, pingTimeout }) {
    const socket = this.#socket;
    this.#heartbeatMs = pingInterval + pingTimeout;
    const { token } = this.#options;
    try {
      const auth = { token: typeof token === "function" ? await token() : token };
      if (socket === this.#socket) this.#send(`40${NAMESPACE},${JSON.stringify(auth)}`);
    } catch {
      if (socket === this.#socket) this.#drop(); // no token to be had now; perhaps at the next attempt
    }
  }

  /** One Socket.IO packet: type, namespace, ack id, JSON. */
  #packet(frame) {
    const [, type, namespace, id, json] = /^4(\d)(?:(\/[^,]*),?)?(\d*)(.*)$/s.exec(frame) ?? [];
    if (namespace !== NAMESPACE) return;
    const data = json ? JSON.parse(json) : undefined;
    if (type === "0") this.#admitted();
    else if (type === "1") this.#dismissed();
    else if (type === "2") this.#event(...data);
    else if (type === "3") this.#acks.get(Number(id))?.(data[0]);
    else if (type === "4") this.#refused(data);
  }

  /** The namespace let us in: sets the clock and, after a loss, takes the seat again. */
  async #admitted() {
    const socket = this.#socket;
    this.#connected = true;
    this.#silenceLimitMs = this.#heartbeatMs;
    this.#sampleClock(5);
    if (this.#request) {
      try {
        await this.#enter();
      } catch (error) {
        if (socket !== this.#socket) return;
        if (TRANSIENT.has(error.code)) return this.#drop();
        this.#forget({ reason: "refused", error });
      }
    }
    if (socket !== this.#socket) return;
    this.#onlineSince = performance.now();
    this.#setStatus("online");
  }

  async #enter() {
    const state = await this.request("room:join", this.#request);
    if (!this.#seated) this.#enterState(state); // the acknowledgement overtook the event
  }

  #refused(error) {
    const { code = "INTERNAL_ERROR", message } = { ...error, ...error.data };
    if (code !== "INVALID_TOKEN") return this.#drop();
    this.#stop(new SyncWatchError({ code, message }));
  }

  /** The server ended the namespace. Unless it is shutting down, it does not want this client back. */
  #dismissed() {
    if (this.#notBefore > performance.now()) return this.#drop();
    this.#stop(new SyncWatchError({ code: "DISCONNECTED", message: "The server closed the connection" }));
  }

  #stop(error) {
    this.#forget({ reason: "refused", error });
    this.#end(1000);
    this.#setStatus("closed", { error });
  }

  /** Lets go of a connection that is of no use, to come back. */
  #drop() {
    this.#end(CLOSE_COMING_BACK);
    this.#lost();
  }

  #end(code) {
    const socket = this.#socket;
    this.#socket = null;
    this.#disconnected();
    socket?.close(code);
  }

  #lost() {
    this.#socket = null;
    this.#disconnected();
    // Only a connection that held counts as a success, lest a server that drops everyone is stormed.
    if (performance.now() - this.#onlineSince > BACKOFF_LAST_MS) this.#attempt = 0;
    this.#onlineSince = Infinity;
    const backoff = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** this.#attempt++) * (0.5 + Math.random() / 2);
    const retryInMs = Math.max(backoff, this.#notBefore - performance.now());
    this.#timers.retry = setTimeout(() => this.connect(), retryInMs);
    this.#setStatus("waiting", { retryInMs });
  }

  #disconnected() {
    this.#connected = this.#seated = false;
    this.#pings.clear();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    for (const settle of this.#acks.values()) settle(null, ["DISCONNECTED", "The connection was lost"]);
  }

  /** A server that has been silent for a whole heartbeat is gone, even if the socket has not noticed. */
  #watchSilence() {
    const left = this.#heardAt + this.#silenceLimitMs - performance.now();
    if (left <= 0) return this.#drop();
    // In short steps: the limit changes, and timers stand still while a device sleeps.
    this.#timers.silence = setTimeout(() => this.#watchSilence(), Math.min(left, 1000));
  }

  #setStatus(status, details = {}) {
    this.#status = status;
    this.#dispatch("status", { status, ...details });
  }

  #online() {
    return new Promise((resolve, reject) => {
      const settle = (error) => {
        clearTimeout(timer);
        this.removeEventListener("status", check);
        if (error) reject(error);
        else resolve();
      };
      const check = ({ detail }) => {
        if (this.#status === "online") settle();
        else if (this.#status === "closed")
          settle(detail?.error ?? new SyncWatchError({ code: "DISCONNECTED", message: "The client was closed" }));
      };
      const late = new SyncWatchError({ code: "TIMEOUT", message: "The server cannot be reached" });
      const timer = setTimeout(settle, CONNECT_TIMEOUT_MS, late);
      this.addEventListener("status", check);
      check({});
    });
  }

  /** A few samples now, a few more every 20 s: oscillators drift apart by a millisecond or so in that time. */
  #sampleClock(count) {
    const clientTime = Date.now();
    this.#pings.set(clientTime, performance.now());
    this.#emit("time:ping", { clientTime });
    clearTimeout(this.#timers.clock);
    this.#timers.clock = setTimeout(() => this.#sampleClock(count > 1 ? count - 1 : 3), count > 1 ? 100 : 20_000);
  }

  // --- The room

  #event(name, data) {
    // Outside a room its events are echoes of one that was left.
    if (!this.#seated && !UNSEATED_EVENTS.has(name)) return;
    this.#handlers[name]?.(data);
    this.#dispatch(name, data);
  }

  #dispatch(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #changed() {
    this.#dispatch("change");
  }

  #handlers = {
    "time:pong": ({ clientTime, serverTime }) => {
      const sentAt = this.#pings.get(clientTime);
      if (this.#pings.delete(clientTime)) this.clock.add(sentAt, performance.now(), serverTime);
    },
    "room:state": (state) => this.#enterState(state),
    "room:updated": ({ room }) => {
      this.room = room;
      this.#changed();
    },
    "room:participant:joined": ({ participant }) => this.#seat(participant),
    "room:participant:updated": ({ participant }) => this.#seat(participant),
    "room:participant:left": ({ oderId }) => {
      this.participants.delete(oderId);
      this.#changed();
    },
    "room:owner:changed": ({ ownerId, oderId }) => {
      this.room = { ...this.room, ownerId };
      for (const [id, participant] of this.participants) {
        if (id === oderId) this.participants.set(id, { ...participant, role: "owner" });
        else if (participant.role === "owner") this.participants.set(id, { ...participant, role: "participant" });
      }
      this.#changed();
    },
    "room:kicked": ({ reason } = {}) =>
      this.#forget(reason === "replaced" ? { reason } : { reason: "kicked", message: reason }),
    "room:closed": ({ reason } = {}) => this.#forget({ reason: "closed", message: reason }),
    "sync:command": ({ state }) => this.#follow(state),
    "sync:state": ({ state }) => this.#follow(state),
    "server:shutdown": ({ reconnectIn }) => {
      this.#notBefore = performance.now() + reconnectIn;
    },
  };

  /** The whole room, first of its events on a connection: replaces all that was known. */
  #enterState({ room, participants, playback, self, serverTime }) {
    if (!this.#request) return;
    if (serverTime) this.clock.hint(serverTime);
    this.#seated = true;
    this.#request.resumeToken = self.resumeToken;
    this.oderId = self.oderId;
    this.room = room;
    this.participants = new Map(participants.map((participant) => [participant.oderId, participant]));
    this.#timeline = playback ? [playback] : [];
    this.#changed();
  }

  #seat(participant) {
    this.participants.set(participant.oderId, participant);
    this.#changed();
  }

  /** Puts a state on the timeline. Commands have an order; what comes late or twice is old news. */
  #follow(state) {
    if (!state || !this.room || state.sequenceNumber <= (this.playback?.sequenceNumber ?? -1)) return;
    const same = state.sourceType === this.playback?.sourceType && state.sourceId === this.playback.sourceId;
    const inForce = this.#timeline.indexOf(this.playbackAt());
    this.#timeline = same ? [...this.#timeline.slice(inForce), state] : [state];
    this.#changed();
  }

  #forget(detail) {
    const hadRoom = this.room !== null;
    this.#request = this.room = this.oderId = null;
    this.#seated = false;
    this.participants = new Map();
    this.#timeline = [];
    if (!hadRoom) return;
    this.#dispatch("left", detail);
    this.#changed();
  }
}
