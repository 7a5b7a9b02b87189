/** A bare IMAP connection for tests: sends bytes, reads lines (literals joined to their line). */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

const waitMs = 10_000;

export class TestClient {
  readonly socket: Socket;
  #buffer = Buffer.alloc(0);
  #isClosed = false;
  #waiter: (() => void) | undefined;
  #tags = 0;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#waiter?.();
    });
    const onEnd = () => {
      this.#isClosed = true;
      this.#waiter?.();
    };
    socket.on('end', onEnd);
    socket.on('close', onEnd);
    socket.on('error', onEnd);
  }

  static async open(port: number, tls = false): Promise<TestClient> {
    const socket = tls
      ? connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
      : connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once(tls ? 'secureConnect' : 'connect', resolve);
      socket.once('error', reject);
    });
    return new TestClient(socket);
  }

  /** Opens, reads the greeting and logs in. */
  static async login(port: number, login = 'alice'): Promise<TestClient> {
    const client = await TestClient.open(port);
    await client.line();
    await client.ok(`LOGIN ${login} secret`);
    return client;
  }

  send(text: string | Buffer): void {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text);
  }

  /** The next response line without CRLF, literals in place; undefined when the connection is closed. Throws when nothing comes. */
  async line(): Promise<string | undefined> {
    const deadlineMs = Date.now() + waitMs;
    for (;;) {
      const line = this.#takeLine();
      if (line !== undefined) return line;
      if (this.#isClosed) return undefined;
      const leftMs = deadlineMs - Date.now();
      if (leftMs <= 0)
        throw new Error(`nothing came; buffered: ${JSON.stringify(this.#buffer.toString('latin1').slice(0, 500))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#waiter = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  #takeLine(): string | undefined {
    let from = 0;
    for (;;) {
      const end = this.#buffer.indexOf('\r\n', from);
      if (end < 0) return undefined;
      const mark = /\{(\d+)\}$/.exec(this.#buffer.toString('latin1', Math.max(from, end - 24), end));
      if (!mark) {
        const line = this.#buffer.toString('latin1', 0, end);
        this.#buffer = this.#buffer.subarray(end + 2);
        return line;
      }
      from = end + 2 + Number(mark[1]);
      if (this.#buffer.length < from) return undefined;
    }
  }

  /** Sends a command; answers untagged lines and the tagged one last. */
  async command(text: string): Promise<string[]> {
    const tag = `t${++this.#tags}`;
    this.send(`${tag} ${text}\r\n`);
    return this.until(tag);
  }

  /** All lines up to the one that begins with the tag. */
  async until(tag: string): Promise<string[]> {
    const lines: string[] = [];
    for (;;) {
      const line = await this.line();
      if (line === undefined) throw new Error(`closed before ${tag}; got ${JSON.stringify(lines)}`);
      lines.push(line);
      if (line.startsWith(`${tag} `)) return lines;
    }
  }

  /** `command` that must succeed; untagged lines only. */
  async ok(text: string): Promise<string[]> {
    const lines = await this.command(text);
    const last = lines.pop()!;
    if (!/^t\d+ OK/.test(last)) throw new Error(`${text}: ${last}`);
    return lines;
  }

  async closed(): Promise<void> {
    while ((await this.line()) !== undefined);
  }

  close(): void {
    this.socket.destroy();
  }
}
