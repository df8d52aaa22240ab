// The `/sync` namespace.
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { isPasswordRight, viewOf } from './rest.mjs';
import { Refusal, check } from './refusal.mjs';
import { lost } from './state.mjs';

const MESSAGES = {
  NOT_IN_ROOM: 'you are not in a room',
  UNAUTHORIZED: 'you may not control playback',
  VALIDATION_ERROR: 'the room has no source yet',
  RATE_LIMIT_EXCEEDED: 'too many sync commands',
};
const SOURCE_TYPES = ['upload', 'youtube', 'external'];
const ORDERS = { 'sync:play': 'PLAY', 'sync:pause': 'PAUSE', 'sync:seek': 'SEEK', 'sync:rate': 'SET_RATE' };

const sha256 = (text) => createHash('sha256').update(text).digest();
const secret = (bytes) => randomBytes(bytes).toString('base64url');

export function serveSync({ io, store, state, tokens, graceMs }) {
  const sync = io.of('/sync');
  /** Who waits in a seat for the end of the grace, by order id. */
  const graces = new Map();

  sync.use((socket, next) => {
    try {
      const { token } = socket.handshake.auth;
      socket.data.user = token ? tokens.verify(token) : undefined;
      next();
    } catch (error) {
      const refusal = Refusal.of(error);
      next(Object.assign(new Error(refusal.message), { data: refusal }));
    }
  });

  async function join(socket, payload) {
    const { roomCode, password, guestName, resumeToken } = payload;
    check(typeof roomCode === 'string' && /^[a-z0-9]{8}$/i.test(roomCode), 'roomCode must be 8 letters or digits');
    const name = guestName?.trim?.();
    check(guestName === undefined || (name?.length >= 1 && name.length <= 50), 'guestName must be 1 to 50 characters');
    if (socket.data.seat) throw new Refusal('ALREADY_IN_ROOM', 'you are in a room already');
    const room = await store.room(roomCode);
    if (!room) throw new Refusal('ROOM_NOT_FOUND', 'there is no such room');

    const token = secret(32);
    const { user } = socket.data;
    let participant =
      typeof resumeToken === 'string'
        ? await store.resume(room.id, sha256(resumeToken), user?.userId, sha256(token))
        : undefined;
    if (!participant) {
      if (room.passwordHash && !(typeof password === 'string' && (await isPasswordRight(password, room.passwordHash)))) {
        throw new Refusal('INVALID_PASSWORD', 'the password is wrong, or missing');
      }
      if (!user && !name) throw new Refusal('UNAUTHORIZED', 'a guest needs a guestName');
      const isOwner = user?.userId === room.ownerId;
      const entering = {
        id: randomUUID(),
        roomId: room.id,
        oderId: randomBytes(8).toString('base64url').slice(0, 10),
        userId: user?.userId,
        username: user ? user.username ?? name : undefined,
        guestName: user ? undefined : name,
        role: isOwner ? 'owner' : user ? 'participant' : 'guest',
        canControl: isOwner,
        joinedAt: new Date(),
      };
      participant = await store.enter(entering, sha256(token));
    }

    const seated = await state.join(room, participant, socket.id);
    if (!seated) {
      await store.remove(participant.id);
      throw new Refusal('ROOM_FULL', 'the room is full');
    }
    const { participants, playback, previous } = seated;
    const { oderId } = participant;
    if (previous) {
      clearTimeout(graces.get(previous.oderId));
      graces.delete(previous.oderId);
      sendOff(previous.socketId);
    }
    socket.data.seat = { room, oderId, participantId: participant.id };
    if (!socket.connected) {
      await ended(socket, true);
      throw new Refusal('UNAVAILABLE', 'the connection has ended');
    }
    socket.join(room.id);
    const self = { oderId, resumeToken: token };
    const answer = { room: viewOf(room), participants, playback: playback || null, self, serverTime: Date.now() };
    socket.emit('room:state', answer);
    const others = socket.to(room.id);
    if (!previous) {
      others.emit('room:participant:joined', { participant });
    } else if (previous.oderId === oderId) {
      others.emit('room:participant:updated', { participant });
    } else {
      others.emit('room:participant:left', { oderId: previous.oderId, reason: 'replaced' });
      others.emit('room:participant:joined', { participant });
    }
    return answer;
  }

  /** Tells the connection whose seat was taken over, if it is one of ours. */
  function sendOff(socketId) {
    const replaced = sync.sockets.get(socketId);
    if (!replaced?.data.seat) return;
    replaced.leave(replaced.data.seat.room.id);
    replaced.data.seat = undefined;
    replaced.emit('room:kicked', { reason: 'replaced' });
  }

  async function leave(room, oderId, participantId, holder, reason) {
    if (!(await state.leave(room.id, oderId, holder))) return;
    sync.to(room.id).emit('room:participant:left', { oderId, reason });
    // The seat is free already; its row need not be waited for.
    store.remove(participantId).catch(Refusal.of);
  }

  async function ended(socket, deliberate) {
    const { seat } = socket.data;
    if (!seat) return;
    socket.data.seat = undefined;
    const { room, oderId, participantId } = seat;
    if (deliberate) return leave(room, oderId, participantId, socket.id, 'disconnect');
    const participant = await state.lose(room.id, oderId, socket.id);
    if (!participant) return;
    sync.to(room.id).emit('room:participant:updated', { participant });
    const giveUp = () => {
      graces.delete(oderId);
      leave(room, oderId, participantId, lost(socket.id), 'timeout').catch(Refusal.of);
    };
    graces.set(oderId, setTimeout(giveUp, graceMs));
  }

  async function steer(socket, type, value, proposed) {
    const { seat } = socket.data;
    if (!seat) throw new Refusal('NOT_IN_ROOM', MESSAGES.NOT_IN_ROOM);
    check(proposed === undefined || Number.isFinite(proposed), 'atServerTime must be a finite number');
    const [result, detail, at, now] = await state.steer(seat.room, seat.oderId, socket.id, type, value, proposed);
    if (result !== 'OK') throw new Refusal(result, MESSAGES[result], detail && Number(detail));
    return { room: seat.room, state: JSON.parse(detail), at, now };
  }

  const handlers = {
    'room:join': join,
    async 'room:leave'(socket) {
      const { seat } = socket.data;
      if (!seat) throw new Refusal('NOT_IN_ROOM', MESSAGES.NOT_IN_ROOM);
      socket.data.seat = undefined;
      socket.leave(seat.room.id);
      await leave(seat.room, seat.oderId, seat.participantId, socket.id, 'leave');
    },
    async 'sync:source'(socket, { sourceType, sourceId, startMediaTimeMs = 0 }) {
      check(SOURCE_TYPES.includes(sourceType), 'sourceType must be one of ' + SOURCE_TYPES.join(', '));
      const isText = typeof sourceId === 'string' && sourceId.length >= 1 && sourceId.length <= 2048;
      check(isText, 'sourceId must be a string of 1 to 2048 characters');
      check(startMediaTimeMs >= 0, 'startMediaTimeMs must be 0 or more');
      const roomId = socket.data.seat?.room.id;
      const source = { roomId, sourceType, sourceId, isPlaying: false, playbackRate: 1, anchorMediaTimeMs: startMediaTimeMs };
      const done = await steer(socket, 'SOURCE', JSON.stringify(source));
      sync.to(roomId).emit('sync:state', { state: done.state, serverTime: done.now });
    },
    async 'sync:resync'(socket) {
      const { seat } = socket.data;
      if (!seat) throw new Refusal('NOT_IN_ROOM', MESSAGES.NOT_IN_ROOM);
      const playback = await state.playback(seat.room.id);
      check(playback, MESSAGES.VALIDATION_ERROR);
      socket.emit('sync:state', { state: playback, serverTime: Date.now() });
    },
    async 'time:ping'(socket, { clientTime }) {
      check(Number.isFinite(clientTime), 'clientTime must be a finite number');
      const pong = { clientTime, serverTime: Date.now() };
      socket.emit('time:pong', pong);
      return pong;
    },
  };
  for (const [event, type] of Object.entries(ORDERS)) {
    handlers[event] = async (socket, { targetMediaTime, rate, atServerTime }) => {
      const fields = { SEEK: { targetMediaTime }, SET_RATE: { rate } }[type] ?? {};
      if (type === 'SEEK') check(targetMediaTime >= 0 && Number.isFinite(targetMediaTime), 'targetMediaTime must be 0 or more');
      if (type === 'SET_RATE') check(rate >= 0.1 && rate <= 4, 'rate must be a number from 0.1 to 4.0');
      const done = await steer(socket, type, Object.values(fields)[0] ?? '', atServerTime);
      const command = { type, ...fields, atServerTime: done.at, sequenceNumber: done.state.sequenceNumber };
      sync.to(done.room.id).emit('sync:command', { command, state: done.state });
    };
  }

  async function answer(socket, event, handler, args) {
    const ack = typeof args.at(-1) === 'function' ? args.pop() : undefined;
    try {
      const payload = args[0] ?? {};
      check(typeof payload === 'object', 'the payload must be an object');
      const value = await handler(socket, payload);
      ack?.({ ok: true, ...value });
    } catch (error) {
      const refusal = Refusal.of(error);
      ack?.({ ok: false, error: refusal });
      socket.emit('room:error', { ...refusal.toJSON(), event });
    }
  }

  sync.on('connection', (socket) => {
    watchClose(socket);
    // Requests of one socket are handled in the order sent.
    let turn = Promise.resolve();
    for (const [event, handler] of Object.entries(handlers)) {
      socket.on(event, (...args) => {
        turn = turn.then(() => answer(socket, event, handler, args));
      });
    }
    socket.on('disconnect', (reason) => {
      const deliberate = reason === 'client namespace disconnect' || socket.data.saidGoodbye === true;
      turn = turn.then(() => ended(socket, deliberate)).catch(Refusal.of);
    });
  });
}

/** Notes whether the client closes with a close frame, which tells leaving from being cut off. */
function watchClose(socket) {
  const watch = (transport) => {
    // Before the transport's own listener, which ends the session; 1006 stands for no close frame.
    transport.socket?.prependListener('close', (code) => {
      socket.data.saidGoodbye = code !== 1006;
    });
  };
  watch(socket.conn.transport);
  socket.conn.on('upgrade', watch);
}
