/** A client that knows nothing of SMTP: sends octets, reads lines. For tests that say things no real client would. */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

const patienceMs = 5_000;

export class Wire {
  #text = '';
  #at = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  private constructor(private socket: Socket) {
    this.#listen(socket);
  }

  static async open(port: number, options: { tls?: boolean } = {}): Promise<Wire> {
    const socket = options.tls
      ? connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
      : connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    const wire = new Wire(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once(options.tls ? 'secureConnect' : 'connect', () => resolve());
      socket.once('error', reject);
    });
    return wire;
  }

  #listen(socket: Socket): void {
    socket.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('latin1');
      this.#wake?.();
    });
    const end = () => {
      if (socket !== this.socket) return;
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', end);
  }

  /** Everything goes out in one write. */
  send(octets: string | Buffer): void {
    this.socket.write(typeof octets === 'string' ? Buffer.from(octets, 'latin1') : octets);
  }

  /** One line without CRLF; undefined at the end of the connection. */
  async line(): Promise<string | undefined> {
    for (;;) {
      const lf = this.#text.indexOf('\n', this.#at);
      if (lf >= 0) {
        const line = this.#text.slice(this.#at, lf).replace(/\r$/, '');
        this.#at = lf + 1;
        return line;
      }
      this.#text = this.#text.slice(this.#at);
      this.#at = 0;
      if (this.#ended) return undefined;
      await this.#more();
    }
  }

  /** All lines of one reply. */
  async reply(): Promise<string[]> {
    const lines: string[] = [];
    for (;;) {
      const line = await this.line();
      if (line === undefined) return lines;
      lines.push(line);
      if (line[3] !== '-') return lines;
    }
  }

  /** Waits for the server to close; what it said until then. */
  async rest(): Promise<string> {
    while (!this.#ended) await this.#more();
    return this.#text.slice(this.#at);
  }

  #more(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`nothing came; unread: ${JSON.stringify(this.#text)}`)), patienceMs);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  /** Upgrades; the server has said 220. */
  async startTls(): Promise<void> {
    const plain = this.socket;
    plain.removeAllListeners('data');
    plain.removeAllListeners('end');
    const tls = connectTls({ socket: plain, rejectUnauthorized: false });
    this.socket = tls;
    this.#listen(tls);
    await new Promise<void>((resolve, reject) => {
      tls.once('secureConnect', () => resolve());
      tls.once('error', reject);
    });
  }

  /** Closes our half. */
  halfClose(): void {
    this.socket.end();
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  destroy(): void {
    this.socket.destroy();
  }
}
