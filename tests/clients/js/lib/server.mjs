// The binary under test, as a process of its own on a free port with a data directory of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before } from 'node:test';
import { SECRET } from './token.mjs';
import { defer, within } from './wait.mjs';

const READY = /^SyncWatch is ready: (http:\/\/127\.0\.0\.1:(\d+)\/)$/;
const START_MS = 30_000;
const STOP_MS = 30_000;
/** What is kept of stderr; a flood of logs must not become a flood of memory. */
const LOG_LINES = 20_000;

const INHERITED = ['PATH', 'HOME', 'TMPDIR', 'LLVM_PROFILE_FILE'];
/** Set where the suite is to be played on Redis and PostgreSQL. */
const BACKENDS = ['DATABASE_URL', 'REDIS_URL'];
const isShared = BACKENDS.some((name) => process.env[name]);
/** How long it takes until an instance that was killed is found lost, and its people offline: only another can find that. */
export const FOUND_LOST_MS = isShared ? 15_000 : 0;

const running = new Set();
// The runner ends a file that hangs; its servers must not outlive it.
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export class Server {
  /** Every client made for this server, also those that are gone. */
  clients = new Set();
  proxies = new Set();
  stdout = [];
  stderr = [];
  /**
   * Every server is a cluster of its own, however often it is started: whichever instance finds another lost decides
   * by its own settings what becomes of the seats, and those of other suites differ.
   */
  #cluster = `${randomUUID()}:`;
  #env;
  #child;
  #exit;

  constructor(env = {}) {
    this.dataDir = mkdtempSync(join(tmpdir(), 'syncwatch-js-'));
    this.#env = env;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid() {
    return this.#child?.pid;
  }

  async start() {
    const binary = process.env.SYNCWATCH_BIN;
    assert.ok(binary, 'SYNCWATCH_BIN names the binary under test');
    const inherited = Object.fromEntries(
      [...INHERITED, ...BACKENDS].flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
    );
    const child = spawn(binary, [], {
      cwd: this.dataDir, // no `.env` of the checkout is read
      env: {
        ...inherited,
        HOST: '127.0.0.1',
        PORT: '0',
        DATA_DIR: this.dataDir,
        JWT_SECRET: SECRET,
        ...(isShared && { GUEST_ROOMS: 'true', REDIS_KEY_PREFIX: this.#cluster }), // no guest rooms by themselves there
        SHUTDOWN_TIMEOUT_MS: '3000', // sessions that a test abandoned are waited for that long
        ...this.#env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    running.add(child);
    const ready = defer();
    const exit = defer();
    this.#exit = exit.promise;
    child.on('error', (error) => (ready.reject(error), exit.reject(error)));
    child.on('exit', (code, signal) => {
      running.delete(child);
      exit.resolve({ code, signal });
      ready.reject(new Error(`the server ended (${code ?? signal}) before it was ready:\n${this.stderr.join('\n')}`));
    });
    ready.promise.catch(() => {});
    exit.promise.catch(() => {});
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.stdout.push(line);
      const match = READY.exec(line);
      if (match) ready.resolve(Number(match[2]));
    });
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.stderr.push(line);
      if (this.stderr.length > LOG_LINES) this.stderr.shift();
    });
    this.port = await within(START_MS, 'the ready line on stdout', ready.promise);
    return this;
  }

  /** The process dies as by the kernel's hand: nothing is flushed or said. */
  async kill() {
    this.#child?.kill('SIGKILL');
    return within(STOP_MS, 'the end of a killed process', this.#exit);
  }

  /** Asks for a graceful stop and answers how the process ended. */
  async terminate() {
    this.#child?.kill('SIGTERM');
    return within(STOP_MS, 'the end after SIGTERM', this.#exit);
  }

  /** Ends every client of the test that just ran. */
  dropClients() {
    for (const client of this.clients) client.close();
    for (const proxy of this.proxies) proxy.close();
    this.proxies.clear();
  }

  /** Stops gracefully and checks what holds for every run: exit status 0, no panic, no error logged, no secret told. */
  async stop() {
    this.dropClients();
    if (!this.#child) return;
    try {
      if (this.#child.exitCode === null && this.#child.signalCode === null) {
        const { code, signal } = await this.terminate();
        assert.equal(code, 0, `exit status after SIGTERM (signal ${signal}):\n${this.stderr.slice(-20).join('\n')}`);
      }
      this.assertCalmLogs();
      this.assertNoSecretTold();
    } finally {
      this.#child.kill('SIGKILL');
      rmSync(this.dataDir, { recursive: true, force: true });
    }
  }

  assertCalmLogs() {
    assert.ok(this.stdout.every((line) => READY.test(line)), `stdout is the ready line alone:\n${this.stdout.join('\n')}`);
    const bad = this.stderr.filter((line) => line.includes('panicked at') || level(line) === 'ERROR');
    assert.deepEqual(bad, [], 'no panic and no error in the log');
  }

  /** No client learns what belongs to another, and the log learns neither. */
  assertNoSecretTold() {
    const log = this.stderr.join('\n');
    const secrets = [];
    for (const client of this.clients) for (const secret of client.secrets) secrets.push([secret, client]);
    assert.ok(!log.includes(SECRET), 'the signing secret is not logged');
    for (const [secret] of secrets) assert.ok(!log.includes(secret), `a secret of a client is logged: ${secret}`);
    for (const reader of this.clients) {
      const text = reader.events.map(({ payload }) => JSON.stringify(payload)).join('\n');
      for (const [secret, owner] of secrets) {
        assert.ok(reader.owns(secret) || !text.includes(secret), `${reader.name} was told a secret of ${owner.name}: ${secret}`);
      }
    }
  }
}

/** The level of a JSON log line, or of a plain one. */
export function level(line) {
  try {
    return String(JSON.parse(line).level).toUpperCase();
  } catch {
    return /\b(ERROR|WARN|INFO|DEBUG|TRACE)\b/.exec(line)?.[1];
  }
}

/** A server for all tests of the file; each test's clients end with it. */
export function useServer(env) {
  const server = new Server(env);
  before(() => server.start());
  afterEach(() => server.dropClients());
  after(() => server.stop());
  return server;
}
