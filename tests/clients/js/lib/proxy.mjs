// A TCP relay between one client and the server, whose cable can be cut or go silent.
import { createServer, connect } from 'node:net';
import { until } from './wait.mjs';

export class Proxy {
  #pairs = new Set();
  #listener;
  #server;
  #dark = false;
  #frozen = false;

  /** Opens a relay to `server`; it closes with the test. */
  static async open(server) {
    const proxy = new Proxy();
    proxy.#server = server;
    proxy.#listener = createServer((near) => proxy.#relay(near));
    await new Promise((resolve, reject) => {
      proxy.#listener.once('error', reject);
      proxy.#listener.listen(0, '127.0.0.1', resolve);
    });
    proxy.port = proxy.#listener.address().port;
    server.proxies.add(proxy);
    return proxy;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  #relay(near) {
    if (this.#dark) return near.destroy();
    near.on('error', () => near.destroy());
    if (this.#frozen) return this.#pairs.add({ near });
    const far = connect(this.#server.port, '127.0.0.1');
    const pair = { near, far, since: Date.now() };
    this.#pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.setNoDelay(true);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => (to.destroy(), this.#pairs.delete(pair)));
    }
  }

  /**
   * Ends every connection without a goodbye of its protocol, and lets no new one through until `mend`: by a TCP reset, or
   * with `reset: false` by an orderly end of the stream, as when a process dies.
   */
  cut({ reset = true } = {}) {
    this.#dark = true;
    for (const { near, far } of this.#pairs) {
      if (reset) far?.resetAndDestroy();
      else far?.destroy();
      near.destroy();
    }
    this.#pairs.clear();
  }

  /** All ends stay connected and hear nothing more, new ones too: a lost network, before anyone has noticed. */
  freeze() {
    this.#frozen = true;
    for (const { near, far } of this.#pairs) {
      near.unpipe(far).pause();
      far.unpipe(near).pause();
    }
  }

  /** Waits until a connection has stayed open for a moment: a websocket, or a poll that the server holds. */
  held() {
    return until('a held connection', () => [...this.#pairs].some(({ since }) => Date.now() - since > 50));
  }

  mend() {
    this.#dark = false;
  }

  close() {
    this.cut();
    this.#listener.close();
  }
}
