// The three ways in which a client of the field reaches the server.
import { describe, test } from 'node:test';

export const TRANSPORTS = {
  websocket: ['websocket'],
  polling: ['polling'],
  upgrade: ['polling', 'websocket'],
};

/** Registers `name` once for each transport setting; the scenario gets the setting's name and the test's context. */
export function scenario(name, run) {
  describe(name, () => {
    for (const transport of Object.keys(TRANSPORTS)) {
      test(`over ${transport}`, { timeout: 60_000 }, (t) => run(transport, t));
    }
  });
}
