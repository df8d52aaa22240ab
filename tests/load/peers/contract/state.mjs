// What moves: playback, participants and who is online, in Redis. Each change is one script, so it is atomic.
import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';

const TTL_SECONDS = 24 * 60 * 60;

const script = (name) => readFileSync(new URL(`scripts/${name}.lua`, import.meta.url), 'utf8');

/** The contract's three keys of a room, then our own: which connection is in which seat. */
const keys = (roomId) => [
  `room:${roomId}:participants`,
  `room:${roomId}:online`,
  `room:${roomId}:playback`,
  `syncwatch:${roomId}:seats`,
];

export class State {
  #redis;

  constructor(url) {
    // What is asked for within one turn of the event loop goes out in one write.
    this.#redis = new Redis(url, { enableAutoPipelining: true });
    for (const name of ['join', 'leave', 'lose', 'steer']) {
      this.#redis.defineCommand(name, { lua: script(name), numberOfKeys: name === 'steer' ? 5 : 4 });
    }
  }

  /** Another connection with the same settings. */
  duplicate() {
    return this.#redis.duplicate();
  }

  /** Takes a seat, or takes over the one of the same row; nothing where the room is full. */
  async join(room, participant, socketId) {
    const seat = JSON.stringify(participant);
    const found = await this.#redis.join(...keys(room.id), TTL_SECONDS, socketId, room.maxParticipants, seat);
    if (!found) return undefined;
    const [participants, playback, previousOderId, previousSocket] = found;
    return {
      participants: JSON.parse(participants),
      playback: playback && JSON.parse(playback),
      previous: previousOderId && { oderId: previousOderId, socketId: previousSocket },
    };
  }

  /** Gives up a seat if this connection is the one in it. */
  async leave(roomId, oderId, socketId) {
    return (await this.#redis.leave(...keys(roomId), TTL_SECONDS, socketId, oderId)) === 1;
  }

  /** Marks a seat whose connection was lost; answers the participant as it is now. */
  async lose(roomId, oderId, socketId) {
    const seat = await this.#redis.lose(...keys(roomId), TTL_SECONDS, socketId, oderId);
    return seat && JSON.parse(seat);
  }

  /** Carries out one order of a member: `[failure, detail]`, or `['OK', state, at, now]`. */
  async steer(room, oderId, socketId, type, value, proposed) {
    const rate = `syncwatch:${room.id}:rate:${oderId}`;
    return this.#redis.steer(
      ...keys(room.id), rate,
      TTL_SECONDS, socketId, oderId, room.playbackControl, type, value, proposed ?? '',
    );
  }

  /** What the room watches now. */
  async playback(roomId) {
    const state = await this.#redis.get(`room:${roomId}:playback`);
    return state && JSON.parse(state);
  }

  async count(roomId) {
    return this.#redis.hlen(`syncwatch:${roomId}:seats`);
  }
}

/** The name under which a seat waits for the one whose connection was lost. */
export const lost = (socketId) => `lost:${socketId}`;
