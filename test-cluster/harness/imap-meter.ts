/**
 * An IMAP connection over TLS that only counts: it waits for the tagged reply and keeps nothing of what comes before (unless told to), so that what is measured is
 * the server. Refuses to wait for ever.
 */
import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { authenticateScram } from './scram-login.js';

export interface Measured {
  ms: number;
  bytes: number;
  /** What came before the tagged line, where it was to be kept. */
  text: string;
}

export interface MeterLogin {
  port: number;
  user: string;
  password: string;
  /** Of this side, where a server counts by address. */
  localAddress?: string;
  /** AUTHENTICATE SCRAM-SHA-256 instead of LOGIN: for thousands of connections. */
  usesScram?: boolean;
}

interface Waiting {
  tag: string;
  bytes: number;
  kept: Buffer[] | undefined;
  resolve(status: string): void;
  reject(error: Error): void;
}

const patienceMs = 1_200_000;
const tailBytes = 8_192;

export class ImapMeter {
  private waiting: Waiting | undefined;
  /** The end of what came: enough to hold the longest tagged line. */
  private tail: Buffer = Buffer.alloc(0);
  private failure: Error | undefined;
  private tagNumber = 0;

  private constructor(private readonly socket: TLSSocket) {
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.take(chunk));
    const fail = (error: Error) => {
      this.failure ??= error;
      this.waiting?.reject(this.failure);
      this.waiting = undefined;
    };
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('connection closed')));
  }

  /** Connects over TLS (the certificate is not checked) and logs in. */
  static async connect({ port, user, password, localAddress, usesScram }: MeterLogin): Promise<ImapMeter> {
    const options = { host: '127.0.0.1', port, rejectUnauthorized: false, ...(localAddress ? { localAddress } : {}) };
    const socket = connect(options);
    await once(socket, 'data'); // the greeting
    if (usesScram) await authenticateScram(socket, user, password);
    const meter = new ImapMeter(socket);
    if (!usesScram) await meter.command(`LOGIN ${user} "${password}"`);
    return meter;
  }

  private take(chunk: Buffer): void {
    const { waiting } = this;
    if (waiting) {
      waiting.bytes += chunk.length;
      waiting.kept?.push(chunk);
    }
    this.tail =
      chunk.length >= tailBytes || this.tail.length === 0
        ? chunk.subarray(Math.max(0, chunk.length - tailBytes))
        : Buffer.concat([this.tail, chunk]);
    if (this.tail.length > 2 * tailBytes) this.tail = this.tail.subarray(this.tail.length - tailBytes);
    if (!waiting || chunk[chunk.length - 1] !== 0x0a) return;
    const start = this.tail.lastIndexOf(0x0a, this.tail.length - 2) + 1;
    const line = this.tail.toString('latin1', start);
    if (!line.startsWith(`${waiting.tag} `)) return;
    this.waiting = undefined;
    this.tail = Buffer.alloc(0);
    waiting.resolve(line.slice(waiting.tag.length + 1).trimEnd());
  }

  private answerTo(tag: string, bytes: Buffer | string, keeps: boolean): Promise<{ status: string; waiting: Waiting }> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.socket.destroy(new Error(`no answer within ${patienceMs} ms`)), patienceMs);
      const waiting: Waiting = {
        tag,
        bytes: 0,
        kept: keeps ? [] : undefined,
        resolve: (status) => {
          clearTimeout(timer);
          resolve({ status, waiting });
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.waiting = waiting;
      this.socket.write(bytes);
    });
  }

  /** Runs a command; Literals in it must be non-synchronising (`{n+}`). Throws unless the answer is OK. */
  async command(text: string | Buffer, keeps = false): Promise<Measured> {
    const tag = `m${++this.tagNumber}`;
    const bytes =
      typeof text === 'string' ? `${tag} ${text}\r\n` : Buffer.concat([Buffer.from(`${tag} `), text, Buffer.from('\r\n')]);
    const start = performance.now();
    const { status, waiting } = await this.answerTo(tag, bytes, keeps);
    const ms = performance.now() - start;
    if (!status.startsWith('OK')) throw new Error(`${String(text.slice(0, 60))}: ${status}`);
    return { ms, bytes: waiting.bytes, text: waiting.kept ? Buffer.concat(waiting.kept).toString('latin1') : '' };
  }

  /** The raw socket, once nothing more is measured by command. */
  get raw(): TLSSocket {
    return this.socket;
  }

  async close(): Promise<void> {
    if (this.socket.destroyed) return;
    const closed = once(this.socket, 'close');
    this.socket.destroy();
    await closed;
  }
}
