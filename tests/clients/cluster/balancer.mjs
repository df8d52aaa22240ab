// A balancer without a memory: each request goes to the next server, whoever sent it.
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';

/** Listens on a port of its own in front of some ports. `seen` has, for each sid, the ports that its requests went to. */
export async function startBalancer(ports) {
  const seen = new Map();
  let turn = 0;
  const next = (url) => {
    const port = ports[turn++ % ports.length];
    const sid = new URL(url, 'http://localhost').searchParams.get('sid');
    if (sid) seen.set(sid, (seen.get(sid) ?? new Set()).add(port));
    return port;
  };
  // One that cannot be reached is passed over; the request has not been sent then.
  const attempt = (url, left, go) => go(next(url), () => left > 1 && attempt(url, left - 1, go));

  const server = createServer((incoming, answer) => {
    attempt(incoming.url, ports.length, (port, again) => {
      const { method, url, headers } = incoming;
      const outgoing = request({ port, host: '127.0.0.1', method, path: url, headers, agent: false });
      outgoing.on('response', (response) => {
        answer.writeHead(response.statusCode, response.headers);
        response.pipe(answer);
      });
      outgoing.on('error', ({ code }) => (code === 'ECONNREFUSED' ? again() : answer.destroy()));
      answer.on('close', () => outgoing.destroy());
      outgoing.on('socket', (socket) => socket.once('connect', () => incoming.pipe(outgoing)));
    });
  });
  server.on('upgrade', ({ method, url, rawHeaders }, client, head) => {
    attempt(url, ports.length, (port, again) => {
      const upstream = connect(port, '127.0.0.1');
      upstream.once('connect', () => {
        const lines = [`${method} ${url} HTTP/1.1`];
        for (let i = 0; i < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
        upstream.write(`${lines.join('\r\n')}\r\n\r\n`);
        upstream.write(head);
        client.pipe(upstream).pipe(client);
      });
      upstream.on('error', ({ code }) => (code === 'ECONNREFUSED' ? again() : client.destroy()));
      client.on('error', () => upstream.destroy());
      client.on('close', () => upstream.destroy());
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: server.address().port,
    seen,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
