// A client on a bare WebSocket, which reads as fast as it is told to: a published one reads all that comes.
import { once } from 'node:events';
import { connect } from 'node:net';

const TEXT = 0x81;
const CLOSE = 0x88;

/** Opens the WebSocket and joins `/bench`. */
export async function openRaw(port) {
  const client = new Raw(connect(port, '127.0.0.1'));
  await client.open();
  return client;
}

class Raw {
  /** Called with each packet of Socket.IO. */
  onPacket = () => {};
  /** Called when the connection has ended. */
  onClose = () => {};
  #socket;
  #unread = [];
  #unreadBytes = 0;
  /** How many bytes the first frame takes, as far as that is known. */
  #awaitedBytes = 0;
  #isUpgraded = false;
  #stopped = false;
  #pace;

  constructor(socket) {
    this.#socket = socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#onData(chunk));
    socket.on('error', () => {}); // `close` follows
    socket.on('close', () => this.onClose());
  }

  get port() {
    return this.#socket.localPort;
  }

  /** How much of what was sent the system has taken, or keeps for it. */
  get bytesWritten() {
    return this.#socket.bytesWritten;
  }

  async open() {
    await once(this.#socket, 'connect');
    this.#socket.write(
      'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n' +
        'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    await this.#next('0{');
    await this.send('40/bench,');
    await this.#next('40/bench,');
  }

  async #next(start) {
    const packet = await new Promise((resolve, reject) => {
      this.onPacket = resolve;
      this.onClose = () => reject(new Error('closed before it was open'));
    });
    this.onPacket = () => {};
    if (!packet.startsWith(start)) throw new Error(`${packet} where ${start} was expected`);
  }

  /** Sends a packet; resolves when there is room for another one. */
  async send(packet) {
    const data = Buffer.from(packet);
    // All frames have the long form of the length, and a mask of zeroes, which leaves the data as it is.
    const head = Buffer.alloc(14);
    head.writeUInt8(TEXT, 0);
    head.writeUInt8(0x80 | 127, 1);
    head.writeBigUInt64BE(BigInt(data.length), 2);
    this.#socket.cork();
    this.#socket.write(head);
    const hasRoom = this.#socket.write(data);
    this.#socket.uncork();
    if (!hasRoom) await once(this.#socket, 'drain');
  }

  /** Reads so many bytes a second from now on. */
  readAt(bytesPerSecond) {
    this.#pace = { bytesPerSecond, start: Date.now(), bytes: 0 };
  }

  /** Reads nothing from now on. */
  stop() {
    this.#stopped = true;
    this.#socket.pause();
  }

  /** Reads again, to the end of the connection. */
  async readToEnd() {
    this.#stopped = false;
    // Not `once` of the module, which fails with an error of the connection.
    const end = new Promise((resolve) => this.#socket.once('close', resolve));
    this.#socket.resume();
    if (!this.#socket.closed) await end;
  }

  close() {
    this.#socket.destroy();
  }

  #onData(chunk) {
    if (this.#pace) {
      this.#pace.bytes += chunk.length;
      const { bytesPerSecond, start, bytes } = this.#pace;
      this.#socket.pause();
      setTimeout(() => this.#stopped || this.#socket.resume(), start + (bytes / bytesPerSecond) * 1000 - Date.now());
    }
    this.#unread.push(chunk);
    this.#unreadBytes += chunk.length;
    while (this.#unreadBytes > 0 && this.#unreadBytes >= this.#awaitedBytes) {
      const unread = this.#unread.length === 1 ? this.#unread[0] : Buffer.concat(this.#unread);
      const taken = this.#isUpgraded ? this.#takeFrame(unread) : this.#takeResponse(unread);
      this.#unread = [unread.subarray(taken)];
      this.#unreadBytes = unread.length - taken;
      if (taken === 0) break;
    }
  }

  /** The bytes of the response to the handshake, or zero until it is whole. */
  #takeResponse(unread) {
    const end = unread.indexOf('\r\n\r\n');
    if (end < 0) return 0;
    if (!unread.toString('latin1').startsWith('HTTP/1.1 101 ')) throw new Error(unread.toString('latin1', 0, end));
    this.#isUpgraded = true;
    return end + 4;
  }

  /** The bytes of the first frame, or zero until it is whole. */
  #takeFrame(unread) {
    const size = frameSize(unread);
    this.#awaitedBytes = size ? size.head + size.data : unread.length + 1;
    if (unread.length < this.#awaitedBytes) return 0;
    this.#awaitedBytes = 0;
    const packet = unread.toString('utf8', size.head, size.head + size.data);
    if (unread[0] === TEXT && packet === '2') this.send('3').catch(() => {});
    else if (unread[0] === TEXT) this.onPacket(packet);
    else if (unread[0] !== CLOSE) throw new Error(`a frame that starts with ${unread[0]}`);
    return size.head + size.data;
  }
}

/** How many bytes the head and the data of an unmasked frame have, if its head is there. */
function frameSize(bytes) {
  const short = bytes[1];
  if (short < 126) return { head: 2, data: short };
  if (short === 126 && bytes.length >= 4) return { head: 4, data: bytes.readUInt16BE(2) };
  if (short === 127 && bytes.length >= 10) return { head: 10, data: Number(bytes.readBigUInt64BE(2)) };
  return undefined;
}
