// Servers in processes of their own, which end with the test, and ways to wait for them.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** Waits for a condition; the answer is what it has come to. */
export async function until(what, condition, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

const isUp = (port) =>
  new Promise((resolve) => {
    const probe = connect(port, '127.0.0.1', () => (probe.destroy(), resolve(true)));
    probe.on('error', () => resolve(false));
  });

/** Starts a process that listens on a port; the answer kills it, and has its `pid`. */
export async function start(command, args, port) {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  children.add(child);
  const ended = once(child, 'exit').then(() => children.delete(child));
  await until(`${command} to listen`, () => {
    assert.equal(child.exitCode, null, `${command} ended`);
    return isUp(port);
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return Object.assign(kill, { pid: child.pid });
}

/** The most memory that a process has had resident, in bytes. */
export function peakMemory(pid) {
  const [, kib] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(kib) * 1024;
}

/** Whether a server at `port` still has its end of the connection that comes from `clientPort`. */
export function isServed(port, clientPort) {
  const ESTABLISHED = '01';
  const hex = (number) => number.toString(16).toUpperCase().padStart(4, '0');
  return readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .some(
      ([, local, remote, state]) =>
        state === ESTABLISHED && local.endsWith(`:${hex(port)}`) && remote.endsWith(`:${hex(clientPort)}`),
    );
}

/** Starts a Redis that keeps nothing. */
export async function startRedis() {
  const directory = mkdtempSync(join(tmpdir(), 'cluster-'));
  const port = await freePort();
  const kill = await start('redis-server', ['--port', port, '--save', '', '--dir', directory], port);
  const end = async () => {
    await kill();
    rmSync(directory, { recursive: true });
  };
  return { url: `redis://127.0.0.1:${port}`, end };
}
