/** The client library against a scripted server: what a browser and a real server cannot be made to do on cue. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ServerClock, SyncWatch, positionAt } from "../../server/web/client.js";

const HANDSHAKE = '0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":10000,"maxPayload":1000000}';
const ROOM = { id: "r", code: "ABCD2345", ownerId: "o", maxParticipants: 10, playbackControl: "owner_only" };
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Stands in for `WebSocket`; keeps what the client sent and lets the test answer. */
class Wire {
  static opened = [];
  readyState = 1;
  sent = [];
  closedWith = null;
  constructor(url) {
    this.url = String(url);
    Wire.opened.push(this);
  }
  send(frame) {
    this.sent.push(frame);
  }
  close(code) {
    this.closedWith = code;
  }
  receive(...frames) {
    for (const data of frames) this.onmessage({ data });
  }
  event(name, data) {
    this.receive(`42/sync,${JSON.stringify([name, data])}`);
  }
  /** The `room:join` the client sent: its ack id and payload. */
  get joining() {
    const [, id, data] = this.sent.map((frame) => /^42\/sync,(\d+)\["room:join",(.*)\]$/.exec(frame)).findLast(Boolean) ?? [];
    return { id, data: data && JSON.parse(data) };
  }
}

function roomState(resumeToken, playback = null) {
  const me = { oderId: "me", role: "owner", guestName: "Ada", canControl: false, online: true };
  return { room: ROOM, participants: [me], playback, self: { oderId: "me", resumeToken }, serverTime: Date.now() };
}

function playing(sequenceNumber, anchorServerTimeMs, anchorMediaTimeMs, more = {}) {
  const base = { roomId: "r", sourceType: "external", sourceId: "x", isPlaying: true, playbackRate: 1 };
  return { ...base, anchorServerTimeMs, anchorMediaTimeMs, sequenceNumber, ...more };
}

async function admit(wire) {
  wire.receive(HANDSHAKE);
  await settled();
  wire.receive('40/sync,{"sid":"n"}');
  await settled();
}

async function answerJoin(wire, state) {
  wire.event("room:state", state);
  wire.receive(`43/sync,${wire.joining.id}${JSON.stringify([{ ok: true, ...state }])}`);
  await settled();
}

/** A client with a seat, and its wire. */
async function seated(t, playback) {
  Wire.opened = [];
  const sync = new SyncWatch({ url: "https://watch.example", token: "jwt", WebSocket: Wire });
  t.after(() => sync.close());
  const joined = sync.join({ roomCode: "ABCD2345", guestName: "Ada", password: "open" });
  const [wire] = Wire.opened;
  await admit(wire);
  await answerJoin(wire, roomState("token-1", playback));
  await joined;
  return { sync, wire };
}

/** The wire the client opens next, admitted to the namespace. */
async function nextWire(sync) {
  const before = Wire.opened.length;
  sync.connect(); // what the backoff does in its own time
  assert.equal(Wire.opened.length, before + 1);
  const wire = Wire.opened.at(-1);
  await admit(wire);
  return wire;
}

test("the handshake is that of the protocol", async (t) => {
  const { sync, wire } = await seated(t);
  assert.equal(wire.url, "wss://watch.example/socket.io/?EIO=4&transport=websocket");
  assert.equal(wire.sent[0], '40/sync,{"token":"jwt"}');
  assert.deepEqual(wire.joining.data, { roomCode: "ABCD2345", guestName: "Ada", password: "open" });
  wire.receive("2");
  assert.equal(wire.sent.at(-1), "3");
  assert.deepEqual([sync.status, sync.isOwner, sync.canControl], ["online", true, true]);
});

test("a command that comes late or twice changes nothing", async (t) => {
  const now = Date.now();
  const { sync, wire } = await seated(t, playing(5, now - 1000, 0));
  wire.event("sync:command", { command: {}, state: playing(7, now - 500, 70_000) });
  wire.event("sync:command", { command: {}, state: playing(6, now - 500, 60_000) });
  wire.event("sync:command", { command: {}, state: playing(7, now - 500, 90_000) });
  assert.equal(sync.playback.sequenceNumber, 7);
  assert.equal(sync.position(now), 70_500);
});

test("a command takes effect at its time, not before", async (t) => {
  const now = Date.now();
  const { sync, wire } = await seated(t, playing(1, now - 10_000, 0));
  wire.event("sync:command", { command: {}, state: playing(2, now + 5000, 15_000, { isPlaying: false }) });
  assert.equal(sync.position(now + 4000), 14_000);
  assert.equal(sync.position(now + 6000), 15_000);
  assert.equal(positionAt(playing(1, now, 1000, { playbackRate: 2 }), now + 500), 2000);
  assert.equal(positionAt(playing(1, now, 1000), now - 500), 1000);
});

test("a lost seat is taken again with the newest resume token", async (t) => {
  const { sync, wire } = await seated(t);
  wire.onclose();
  assert.equal(sync.status, "waiting");
  assert.equal(sync.room.code, "ABCD2345", "the room stays on show");
  await assert.rejects(sync.play(), { code: "DISCONNECTED" });
  const second = await nextWire(sync);
  assert.equal(second.joining.data.resumeToken, "token-1");
  assert.equal(sync.status, "connecting");
  await answerJoin(second, roomState("token-2"));
  assert.equal(sync.status, "online");
  second.onclose();
  assert.equal((await nextWire(sync)).joining.data.resumeToken, "token-2");
});

test("nothing is written to a socket on its way down", async (t) => {
  const { sync, wire } = await seated(t);
  wire.readyState = 2;
  const written = wire.sent.length;
  const played = assert.rejects(sync.play(), { code: "DISCONNECTED" });
  wire.onclose();
  await played;
  assert.equal(wire.sent.length, written);
});

test("a refused rejoin gives the seat up, a passing trouble does not", async (t) => {
  const { sync, wire } = await seated(t);
  const left = [];
  sync.addEventListener("left", ({ detail }) => left.push([detail.reason, detail.error?.code]));
  const refuse = async (on, code) => {
    on.receive(`43/sync,${on.joining.id}${JSON.stringify([{ ok: false, error: { code, message: "no" } }])}`);
    await settled();
  };
  wire.onclose();
  const second = await nextWire(sync);
  await refuse(second, "UNAVAILABLE");
  assert.deepEqual([sync.status, second.closedWith, left], ["waiting", 4000, []]);
  await refuse(await nextWire(sync), "ROOM_NOT_FOUND");
  assert.deepEqual([sync.status, sync.room, left], ["online", null, [["refused", "ROOM_NOT_FOUND"]]]);
});

test("who was kicked does not come back", async (t) => {
  const { sync, wire } = await seated(t);
  wire.event("room:kicked", { reason: "replaced" });
  wire.event("room:participant:joined", { participant: { oderId: "late" } });
  assert.deepEqual([sync.room, sync.participants.size], [null, 0]);
  wire.onclose();
  assert.equal((await nextWire(sync)).joining.id, undefined);
});

test("a bad token is final", async () => {
  Wire.opened = [];
  const sync = new SyncWatch({ url: "http://watch.example", WebSocket: Wire });
  const joined = assert.rejects(sync.join({ roomCode: "ABCD2345" }), { code: "INVALID_TOKEN" });
  Wire.opened[0].receive(HANDSHAKE);
  await settled();
  Wire.opened[0].receive('44/sync,{"message":"expired","data":{"code":"INVALID_TOKEN","message":"expired"}}');
  await joined;
  assert.equal(sync.status, "closed");
});

test("a shutdown tells when to come back", async (t) => {
  const { sync, wire } = await seated(t);
  let retryInMs;
  sync.addEventListener("status", ({ detail }) => (retryInMs ??= detail.retryInMs));
  wire.event("server:shutdown", { message: "restarting", reconnectIn: 30_000 });
  wire.receive("41/sync,");
  assert.equal(sync.status, "waiting");
  assert.ok(retryInMs > 29_000 && retryInMs <= 30_000, `${retryInMs}`);
});

test("garbage drops the connection and nothing else", async (t) => {
  const { sync, wire } = await seated(t);
  wire.receive("42/sync,[oops");
  assert.deepEqual([sync.status, wire.closedWith], ["waiting", 4000]);
});

test("the clock trusts the shortest round trip until clocks jump", () => {
  const clock = new ServerClock();
  const off = () => clock.now() - performance.now();
  clock.hint(Date.now());
  clock.add(0, 200, 5000 + 180); // true offset 5000; asymmetric, so the estimate is 5080
  assert.ok(Math.abs(off() - 5080) < 1);
  clock.add(1000, 1020, 5000 + 1010);
  clock.add(2000, 2300, 5000 + 2280);
  assert.ok(Math.abs(off() - 5000) < 1);
  assert.equal(clock.roundTrip, 20);
  clock.add(3000, 3100, 65_000 + 3050); // the device slept a minute
  assert.ok(Math.abs(off() - 65_000) < 1);
});
