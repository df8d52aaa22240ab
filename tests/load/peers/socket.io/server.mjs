#!/usr/bin/env node
// What the load generator measures, on the reference server: the same events as `socketio/examples/fanout.rs`.
//
// Set up as its documentation says under "Performance tuning" and "Memory usage": the native add-on `bufferutil` of `ws`,
// and no reference to the first request of a session. Start it with NODE_ENV=production. Compression is off by default.

import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

// With --recovery clients that were cut off come back to their session; the times are milliseconds.
const { values } = parseArgs({
  options: {
    port: { type: "string", default: "3000" },
    recovery: { type: "boolean", default: false },
    "ping-interval": { type: "string", default: "25000" },
    "ping-timeout": { type: "string", default: "20000" },
  },
});

const http = createServer();
const io = new Server(http, {
  serveClient: false,
  pingInterval: Number(values["ping-interval"]),
  pingTimeout: Number(values["ping-timeout"]),
  ...(values.recovery && { connectionStateRecovery: { maxDisconnectionDuration: 120_000 } }),
});
io.engine.on("connection", (rawSocket) => {
  rawSocket.request = null;
});

const bench = io.of("/bench");
bench.on("connection", (socket) => {
  // `socket.rooms` would name the socket's own room too, one more to look up in each broadcast.
  const rooms = [...socket.rooms].filter((room) => room !== socket.id);
  socket.on("join", (room, ack) => {
    socket.join(room);
    rooms.push(room);
    ack();
  });
  socket.on("cast", (payload) => bench.to(rooms).emit("cast", payload));
  socket.on("echo", (payload, ack) => ack(payload));
});

http.listen(Number(values.port), "127.0.0.1");
